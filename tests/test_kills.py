"""Runs killed without a warning at random moments, and resumed: the same batches and losses to the last bit (K17, T4).

`python -m pytest -m slow tests/test_kills.py` tells the figures; each case has its own seed.
"""

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest
from cli_runs import equal_at_the_end, losses, run_folders, spawn, wait_for, weights, write_tiny
from resume_runs import MIXES, TASKS, curves, write_config

STEPS = 90  # about three epochs of the tiny text, half of that in steps where two batches make one
OFTEN = "{class_path: lit_llm.training.checkpoints.LastCheckpoint, init_args: {every_n_train_steps: 1}}"
SETTINGS = {
    "plain": (),
    "accumulated": ("--trainer.accumulate_grad_batches=2",),
    "workers": ("--data.num_workers=2",),
    "by epochs": (
        "--trainer.max_steps=-1",
        "--trainer.max_epochs=3",
        "--trainer.check_val_every_n_epoch=1",
        "--trainer.val_check_interval=0.4",
    ),
    "devices": ("--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=2"),
}
KILLS = 5  # of each


def arguments(folder: Path, setting: str) -> list[str]:
    """A run with dropout, validation within the epochs, and a checkpoint after each step."""
    dropout = ("--model.backbone.block=lit_llm.backbone.gpt.Block", "--model.backbone.block.dropout=0.3")
    own = ("--trainer.val_check_interval=11", f"--trainer.max_steps={STEPS}", f"--trainer.callbacks+={OFTEN}")
    return ["fit", "-c", str(write_tiny(folder, lines=30)), *dropout, *own, *SETTINGS[setting]]


def start(arguments: list[str]) -> subprocess.Popen:
    """In a session of its own, with temporary files on another file system where there is one."""
    env = {"TMPDIR": "/dev/shm"} if Path("/dev/shm").is_dir() else {}
    return spawn(*arguments, env=env, start_new_session=True)


def finish(arguments: list[str]) -> None:
    process = start(arguments)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders of what was never killed, by setting."""
    return {}


@pytest.fixture(scope="module")
def tasks_whole() -> dict[tuple[str, str, int], tuple[Path, Path]]:
    """Configs and run folders of what was never stopped, by task, unit and number of the mix."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("number", range(KILLS))
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path, wholes, setting, number) -> None:
    """Its losses from there on, and weights, optimizer and schedule at the end, are those of the run never killed."""
    if setting not in wholes:
        (tmp_path / "whole").mkdir()
        finish(arguments(tmp_path / "whole", setting))
        (wholes[setting],) = run_folders(tmp_path / "whole")
    args, moment = arguments(tmp_path, setting), random.Random(f"{setting} {number}").randrange(1, 2 * STEPS // 3)
    process = start(args)

    def come_so_far() -> bool:
        files = list(tmp_path.glob("logs/tiny/*/checkpoints/last.ckpt"))
        return bool(files) and weights(files[0].parents[1])["global_step"] >= moment

    wait_for(process, come_so_far)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    (killed,) = run_folders(tmp_path)
    step = weights(killed)["global_step"]
    assert moment <= step < STEPS

    finish([*args, "--ckpt_path=last"])
    _, resumed = run_folders(tmp_path)
    for tag in ("train/loss", "val/loss"):
        found, wanted = losses(resumed, tag), losses(wholes[setting], tag)
        assert found
        assert found.items() <= wanted.items()
    assert list(losses(resumed)) == list(range(step, STEPS))
    assert equal_at_the_end(wholes[setting], resumed)
    assert not list(tmp_path.rglob("*.part-*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(KILLS))
@pytest.mark.parametrize("unit", ["steps", "epochs"])
@pytest.mark.parametrize("name", TASKS)
def test_any_task_goes_on_after_a_signal(tmp_path, tmp_path_factory, tasks_whole, name, unit, number) -> None:
    """SIGTERM, which it obeys after a checkpoint, and SIGKILL, by turns; with each mix of settings but one."""
    mix, signals = MIXES[number], (signal.SIGTERM, signal.SIGKILL)
    if (name, unit, number) not in tasks_whole:
        folder = tmp_path_factory.mktemp("whole")
        config = write_config(folder, name, unit, mix)
        finish(["fit", "-c", str(config)])
        tasks_whole[name, unit, number] = config, run_folders(folder)[0]
    config, whole = tasks_whole[name, unit, number]
    args = ["fit", "-c", str(config), f"--trainer.logger.save_dir={tmp_path / 'logs'}", f"--trainer.callbacks+={OFTEN}"]
    steps = weights(whole)["global_step"]
    moment = random.Random(f"{name} {unit} {number}").randrange(1, max(steps * 2 // 3, 2))
    process, sent = start(args), signals[number % 2]

    def come_so_far() -> bool:
        files = list(tmp_path.glob("logs/tiny/*/checkpoints/last.ckpt"))
        return bool(files) and weights(files[0].parents[1])["global_step"] >= moment

    wait_for(process, come_so_far)
    os.killpg(process.pid, sent)
    process.communicate()
    assert process.returncode == (143 if sent == signal.SIGTERM else -signal.SIGKILL)
    finish([*args, "--ckpt_path=last"])
    cut, wanted = run_folders(tmp_path), curves([whole])
    assert equal_at_the_end(whole, cut[-1])
    found = curves(cut)
    for tag in ("train/loss", "val/loss"):
        assert found[tag].items() <= wanted[tag].items()
        assert list(found[tag])[-1] == list(wanted[tag])[-1]
