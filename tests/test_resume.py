"""A run that goes on from its checkpoint: what it does then, and what is refused (K14, K15, K17, trap 1)."""

import math
from pathlib import Path

import pytest
import torch
from cli_runs import call, equal_at_the_end, losses, refusal, run_folders, weights, write_tiny

from lit_llm.__main__ import main

BATCHES = 7  # of the tiny text of 8 lines in an epoch
SCHEDULE = (
    "--model.lr_scheduler=lit_llm.training.optim.WarmupCosine",
    "--model.lr_scheduler.warmup_steps=2",
    "--model.lr_scheduler.max_steps=20",
)
MONITOR = "--trainer.callbacks+=lightning.pytorch.callbacks.LearningRateMonitor"
CRASHING = """
from lightning import Callback


class Crash(Callback):
    def __init__(self, batches: int):
        self.batches = batches

    def on_train_batch_start(self, *args):
        self.batches -= 1
        if self.batches < 0:
            raise RuntimeError("crash")
"""


def where(run: Path) -> tuple[int, int]:
    """Epoch of the loader, and windows that it has handed out in it."""
    (state,) = weights(run)["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    return state["epoch"], state["rows"]


def joined(runs: list[Path], tag: str) -> dict[int, float]:
    return {step: value for run in runs for step, value in losses(run, tag).items()}


def test_a_run_with_three_stops_equals_one_without(tmp_path, capsys) -> None:
    """K17: in the middle of an epoch, between two, in epoch 2; with loader processes and without; to the last bit."""
    dropout = "--model.backbone.attention.dropout=0.1"
    args = ("fit", "-c", write_tiny(tmp_path, lines=8), *SCHEDULE, dropout, "--trainer.val_check_interval=3")
    steps = 2 * BATCHES + 5
    assert call(capsys, *args, f"--trainer.max_steps={steps}").code == 0
    go_on: tuple[str, ...] = ()
    for stop, workers in ((3, 0), (BATCHES, 2), (BATCHES + 4, 2), (steps, 0)):
        options = (f"--trainer.max_steps={stop}", f"--data.num_workers={workers}")
        assert call(capsys, *args, *options, *go_on).code == 0
        go_on = ("--ckpt_path=last",)

    whole, *parts = run_folders(tmp_path)
    assert [where(part) for part in parts] == [(0, 15), (1, 0), (1, 20), (2, 25)]  # epoch, windows of 5 a batch
    assert sum(len(losses(part)) for part in parts) == len(losses(whole)) == steps  # each step once
    for tag in ("train/loss", "val/loss"):
        assert losses(whole, tag) == joined(parts, tag)
    assert equal_at_the_end(whole, parts[-1])


def test_accumulated_gradients_are_never_cut_in_two(tmp_path, capsys, monkeypatch) -> None:
    """K17: a checkpoint falls between two optimizer steps, also where a validation or a fresh start falls within one.

    A batch further the run crashes, twice; what was accumulated for an unfinished step is computed again.
    """
    (tmp_path / "resume_crashing.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(tmp_path)
    own = ("--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=3", "--trainer.max_steps=6")
    args = ("fit", "-c", write_tiny(tmp_path), *own)
    assert call(capsys, *args).code == 0
    often = "{class_path: lit_llm.training.checkpoints.LastCheckpoint, init_args: {every_n_train_steps: 1}}"
    for batches, options in ((4, ()), (2, (f"--trainer.callbacks+={often}", "--ckpt_path=last"))):
        crash = ("--trainer.callbacks+=resume_crashing.Crash", f"--trainer.callbacks.batches={batches}")
        with pytest.raises(RuntimeError, match="crash"):
            call(capsys, *args, *crash, *options)
    assert call(capsys, *args, "--ckpt_path=last").code == 0
    whole, first, second, last = run_folders(tmp_path)
    assert [weights(run)["global_step"] for run in (first, second, last)] == [2, 3, 6]
    assert equal_at_the_end(whole, last)


def test_a_run_can_be_made_longer(tmp_path, capsys) -> None:
    """The schedule of the config counts, not that of the checkpoint; the factors of the new one hold at once."""
    args = ("fit", "-c", write_tiny(tmp_path), *SCHEDULE, "--model.lr_scheduler.floor=0.0")
    assert call(capsys, *args, "--trainer.max_steps=4", "--model.lr_scheduler.max_steps=4").code == 0
    longer = ("--trainer.max_steps=7", "--model.lr_scheduler.max_steps=12", "--ckpt_path=last")
    assert call(capsys, *args, *longer, MONITOR).code == 0
    first, second = run_folders(tmp_path)
    assert weights(first)["optimizer_states"][0]["param_groups"][0]["lr"] == 0
    rates = losses(second, "lr-AdamW/matrices")
    wanted = {step: 0.01 * 0.5 * (1 + math.cos(math.pi * (step - 2) / 10)) for step in (4, 5, 6)}
    assert rates == pytest.approx(wanted, rel=1e-6)  # TensorBoard keeps fp32


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The config and the folder of a run of one step."""
    folder = tmp_path_factory.mktemp("run")
    config = write_tiny(folder)
    assert main(["fit", "-c", str(config), "--trainer.max_steps=1"]) == 0
    return config, run_folders(folder)[0]


UNDONE = {
    "--model.optimizer.lr=0.5": "brings model.optimizer.lr back to 0.01, and the config says 0.5",
    "--model.optimizer=torch.optim.SGD": "brings model.optimizer",
    "--data.block_size=8": "backbone.embedding.positions.weight is (7, 24), not (8, 24)",
}


@pytest.mark.parametrize("option", UNDONE)
def test_what_a_checkpoint_would_silently_undo_is_refused(run, capsys, option) -> None:
    """Trap 1, K14: neither the config nor the command line is overridden by the checkpoint, nor the model reshaped."""
    config, folder = run
    assert UNDONE[option] in refusal(call(capsys, "fit", "-c", config, option, f"--ckpt_path={folder}"))
    assert run_folders(config.parent) == [folder]


def test_names_of_wrapped_modules_are_understood(run, tmp_path, capsys) -> None:
    """K20: a checkpoint of a module inside torch.compile or DistributedDataParallel goes on like one of its own."""
    config, folder = run
    checkpoint = weights(folder)
    names = {name: name.replace("backbone.", "backbone._orig_mod.", 1) for name in checkpoint["state_dict"]}
    checkpoint["state_dict"] = {f"module.{names[name]}": value for name, value in checkpoint["state_dict"].items()}
    torch.save(checkpoint, tmp_path / "wrapped.ckpt")
    own = ("--trainer.max_steps=2", f"--trainer.logger.save_dir={tmp_path / 'logs'}")
    for path in (tmp_path / "wrapped.ckpt", folder):
        assert call(capsys, "fit", "-c", config, *own, f"--ckpt_path={path}").code == 0
    assert equal_at_the_end(*run_folders(tmp_path))


def test_another_tokenizer_is_refused(tmp_path, capsys) -> None:
    """One that learns from the corpus gives the ids of another text another meaning; scores would be nonsense."""
    config = write_tiny(tmp_path)
    learning = "--data.tokenizer=Characters"
    assert call(capsys, "fit", "-c", config, learning, "--trainer.max_steps=1").code == 0
    other = tmp_path / "other.txt"
    other.write_text((tmp_path / "text.txt").read_text().replace("g", "z"))
    for command in ("validate", "fit"):
        args = (command, "-c", config, learning, "--ckpt_path=last", f"--data.source={other}")
        assert "the tokenizer of" in refusal(call(capsys, *args))


def test_no_run_to_go_on_with(run, tmp_path, capsys) -> None:
    """K15: never from scratch: no run of that name, and none whose place is known."""
    config, folder = run
    args = ("fit", "-c", config)
    nowhere = f"--trainer.logger.save_dir={tmp_path / 'nothing'}"
    assert "there is no checkpoint or run folder" in refusal(call(capsys, *args, nowhere, "--ckpt_path=last"))
    assert "give a path" in refusal(call(capsys, *args, "--trainer.logger=false", "--ckpt_path=last"))
    assert run_folders(config.parent) == [folder]


def test_nothing_is_downloaded(run, capsys) -> None:
    """K9: a URL is not opened."""
    said = refusal(call(capsys, "fit", "-c", run[0], "--ckpt_path=https://localhost:1/last.ckpt"))
    assert said == "--ckpt_path 'https://localhost:1/last.ckpt' is not a file; download it first"


def test_a_run_at_its_end(run, capsys) -> None:
    """K18: it takes no further step, and says how it could; no empty run folder is left."""
    config, folder = run
    said = refusal(call(capsys, "fit", "-c", config, "--trainer.max_steps=1", f"--ckpt_path={folder}"))
    last = folder / "checkpoints" / "last.ckpt"
    assert said == f"the run of '{last}' has taken its 1 steps; raise --trainer.max_steps to go on"
    assert run_folders(config.parent) == [folder]
