"""What Lightning's flags, profilers and plugins do to a run."""

from pathlib import Path

import lightning_parts
import pytest
import torch
from cli_runs import call, equal_at_the_end, refusal, run_folders
from test_lightning_callbacks import write

EPOCHS = {"max_epochs": 3, "max_steps": -1, "check_val_every_n_epoch": 1, "val_check_interval": 1.0}


def rows(folder: Path, capsys: pytest.CaptureFixture[str], **flags: object) -> list[torch.Tensor]:
    """The inputs of all batches of a run by epochs."""
    folder.mkdir()
    assert call(capsys, "fit", "-c", write(folder, **{**EPOCHS, **flags})).code == 0
    return [batch[0] for batch in lightning_parts.Spy.seen["rows"]]


def same_rows(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(*pair) for pair in zip(first, second, strict=True))


@pytest.mark.slow
def test_each_epoch_has_its_own_order(tmp_path, capsys) -> None:
    """A loader that is built again goes on with it, and a limit takes the first batches of each."""
    whole = rows(tmp_path / "whole", capsys)
    count = len(whole) // 3
    assert not same_rows(whole[:count], whole[count : 2 * count])
    assert same_rows(whole, rows(tmp_path / "again", capsys, reload_dataloaders_every_n_epochs=1))
    limited = rows(tmp_path / "limited", capsys, limit_train_batches=4)
    assert same_rows(limited, [whole[epoch * count + place] for epoch in range(3) for place in range(4)])


@pytest.mark.slow
def test_a_profiler_changes_nothing(tmp_path, capsys) -> None:
    """Each leaves its report, and the weights are those of a run without it."""
    plain = tmp_path / "plain"
    plain.mkdir()
    assert call(capsys, "fit", "-c", write(plain)).code == 0
    for name in ("SimpleProfiler", "AdvancedProfiler", "PyTorchProfiler"):
        folder = tmp_path / name
        folder.mkdir()
        part = {"class_path": f"lightning.pytorch.profilers.{name}"}
        part["init_args"] = {"dirpath": str(folder / "reports"), "filename": "report"}
        assert call(capsys, "fit", "-c", write(folder, profiler=part)).code == 0
        assert max(path.stat().st_size for path in (folder / "reports").glob("fit-report*")) > 100
        assert equal_at_the_end(run_folders(plain)[0], run_folders(folder)[0])


def test_a_plugin_that_would_give_nan_is_refused(tmp_path, capsys) -> None:
    """As the flag that asks for the same precision, before any text is read."""
    plugin = {"class_path": "lightning.pytorch.plugins.HalfPrecision", "init_args": {}}
    said = refusal(call(capsys, "fit", "-c", write(tmp_path, plugins=[plugin])))
    assert "--trainer.plugins HalfPrecision rounds --model.optimizer.eps" in said
    assert not (tmp_path / "cache").exists()
