"""`lit-llm bench`: the figures of a real fit, and that nothing of it is left."""

import json
import re
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
from cli_runs import call, refusal, tiny_config, write_text, write_tiny, write_yaml
from python_runs import B, T, tiny_backbone

from lit_llm.__main__ import main
from lit_llm.costs import timer


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The folder, the table and the progress of a tiny bench."""
    folder = tmp_path_factory.mktemp("bench")
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        added = "--trainer.callbacks+=lit_llm.training.callbacks.ReferenceLines"
        assert (
            main(["bench", "-c", str(write_tiny(folder)), "--steps=6", f"--json={folder / 'figures.json'}", added]) == 0
        )
    return folder, out.getvalue(), err.getvalue()


def test_figures_fit_together(finished) -> None:
    """The split adds up to the step it was taken from, and rates follow from times."""
    folder, table, _ = finished
    figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    assert list(figures["split"]) == ["data", "forward", "backward", "optimizer", "callbacks", "lightning"]
    assert all(seconds > 0 for seconds in figures["split"].values())
    # Both clocks tick at the same calls, some microseconds apart.
    assert sum(figures["split"].values()) == pytest.approx(figures["split_seconds_per_step"], rel=0.01)
    assert figures["tokens_per_step"] == B * T
    assert figures["tokens_per_second"] == pytest.approx(B * T / figures["seconds_per_step"])
    windows = figures["windows_seconds_per_step"]
    assert len(windows) == 5
    assert min(windows) <= figures["seconds_per_step"] <= max(windows)
    flops = tiny_backbone().flops_per_token()
    assert figures["flops_per_token"] == flops
    used = figures["tokens_per_second"] * flops / figures["measured_peak_flops"]
    assert figures["model_flops_utilization"] == pytest.approx(used)
    assert figures["peak_memory_bytes"] > 50e6  # an interpreter with torch holds more
    assert figures["trainer_overhead"] is None
    for row in ("tokens per second", "utilization", "peak memory", "  backward"):
        assert re.search(rf"^{row} +\d", table, re.M), table


def test_nothing_is_left_in_the_logs(finished) -> None:
    """No run folder and no checkpoint, though the config has a logger and callbacks that write them."""
    assert {path.name for path in finished[0].iterdir()} == {"text.txt", "tiny.yaml", "cache", "figures.json"}


def test_callbacks_of_the_config_are_called(finished) -> None:
    """Here one that speaks; what it prints is not the table's."""
    _, table, progress = finished
    assert "validation loss" in progress
    assert table.startswith("device ")


def test_the_peak_is_that_of_the_runs_own_products(tmp_path, capsys, monkeypatch) -> None:
    """Though the callback that chooses them sets the process back at the end of the run."""
    seen: list[str] = []
    monkeypatch.setattr(timer, "measured_peak", lambda *_: seen.append(torch.get_float32_matmul_precision()) or 1e9)
    callback = "--trainer.callbacks+=lit_llm.training.precision.MatmulPrecision"
    config = write_tiny(tmp_path)
    call(capsys, "bench", "-c", config, "--steps=1", callback, "--trainer.callbacks.precision=high")
    assert seen == ["high"]
    assert torch.get_float32_matmul_precision() == "highest"


def test_bare_loop(tmp_path, capsys) -> None:
    """It takes turns with the Trainer; a step is an optimizer step, with the tokens of all its batches."""
    options = (
        "--steps=3",
        "--warmup_steps=0",
        "--trainer.gradient_clip_val=1.0",
        "--trainer.accumulate_grad_batches=3",
    )
    result = call(
        capsys, "bench", "-c", write_tiny(tmp_path), *options, "--bare", f"--json={tmp_path / 'figures.json'}"
    )
    assert "the Trainer costs" in result.out
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert figures["tokens_per_step"] == 3 * B * T
    overhead = figures["trainer_overhead"]
    assert overhead["min"] <= overhead["median"] <= overhead["max"]
    assert figures["bare_seconds_per_step"] > 0


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--steps=-1", "--steps -1 cannot be"),
        ("--warmup_steps=-2", "--warmup_steps -2 cannot be"),
        ("--json=nowhere/figures.json", "nowhere/figures.json"),
        ("--ckpt_path=last", "no use for --ckpt_path last"),
        ("--trainer.logger=lightning.pytorch.loggers.MLFlowLogger", "MLFlowLogger"),
    ],
)
def test_refusals(tmp_path, capsys, option, words) -> None:
    assert words in refusal(call(capsys, "bench", "-c", write_tiny(tmp_path), option))


def test_a_config_that_is_not_there(capsys) -> None:
    assert "'nowhere.yaml'" in refusal(call(capsys, "bench", "-c", "nowhere.yaml"))


def test_a_run_that_ends_early_has_no_figures(tmp_path, capsys) -> None:
    """Zeros would look like a result."""
    write_text(tmp_path / "text.txt")
    config = tiny_config(tmp_path)
    config["trainer"]["limit_train_batches"] = 0
    result = call(capsys, "bench", "-c", write_yaml(tmp_path / "none.yaml", config))
    assert (result.code, result.out) == (1, "")
    assert "ended after 0 of 45 steps" in result.err
