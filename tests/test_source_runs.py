"""Runs on sources with weights and on validation texts of their own: going on with them, and what is refused."""

from pathlib import Path

import pytest
from cli_runs import Result, call, equal_at_the_end, losses, refusal, run_folders, tiny_config, write_text, write_yaml


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two sources, of which one is read twice and one half in an epoch, and texts to validate and test on."""
    for number, (name, lines) in enumerate({"a": 4, "b": 5, "val": 3, "test": 2}.items()):
        write_text(tmp_path / f"{name}.txt", lines, seed=number)
    made = tiny_config(tmp_path)
    weights = {"a": 2, "b": 0.5}
    made["data"]["init_args"] |= {
        "source": [{"path": str(tmp_path / f"{name}.txt"), "weight": weight} for name, weight in weights.items()],
        "val_source": str(tmp_path / "val.txt"),
        "test_source": str(tmp_path / "test.txt"),
    }
    return write_yaml(tmp_path / "tiny.yaml", made)


def fit(capsys: pytest.CaptureFixture[str], config: Path, *options: str) -> Result:
    return call(capsys, "fit", "-c", config, *options)


def test_a_run_on_weighted_sources_goes_on_where_it_stopped(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the middle of its first and of its second epoch, which has other rows of b; to the last bit."""
    done = fit(capsys, config, "--trainer.max_steps=21")
    assert done.code == 0
    assert "an epoch reads" in done.err
    go_on: tuple[str, ...] = ()
    for stop in (3, 14, 21):
        assert fit(capsys, config, f"--trainer.max_steps={stop}", *go_on).code == 0
        go_on = ("--ckpt_path=last",)
    whole, *parts = run_folders(config.parent)
    for tag in ("train/loss", "val/loss"):
        assert losses(whole, tag) == {step: loss for part in parts for step, loss in losses(part, tag).items()}
    assert equal_at_the_end(whole, parts[-1])


def test_a_run_goes_on_with_its_own_sources(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not with other weights or validation texts; it may be measured on any, and its config reads as it was."""
    assert fit(capsys, config, "--trainer.max_steps=2", "--test_best=true").code == 0
    more = ("--ckpt_path=last", "--trainer.max_steps=4")
    other = str(config.parent / "test.txt")
    said = refusal(fit(capsys, config, *more, f"--data.val_source={other}"))
    assert f"was trained with val_source ['{config.parent / 'val.txt'}']" in said
    equal = f"--data.source=[{config.parent / 'a.txt'}, {config.parent / 'b.txt'}]"
    assert "was trained with weights [2.0, 0.5]" in refusal(fit(capsys, config, *more, equal))
    for command, option in {"validate": "val_source", "test": "test_source"}.items():
        place = config.parent / "val.txt" if command == "test" else other
        assert call(capsys, command, "-c", config, "--ckpt_path=last", f"--data.{option}={place}").code == 0
    written = run_folders(config.parent)[0] / "config.yaml"
    assert fit(capsys, written, *more).code == 0


def test_nothing_is_held_out(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last lines of a run say why there is no validation loss."""
    lines = "--trainer.callbacks+=lit_llm.training.callbacks.ReferenceLines"
    text = f"--data.source={config.parent / 'a.txt'}"
    options = (lines, text, "--trainer.max_steps=1", "--data.val_fraction=0")
    assert "no validation in so few steps" in fit(capsys, config, *options).out
    assert "nothing is held out (data.val_fraction 0)" in fit(capsys, config, *options, "--data.val_source=null").out
