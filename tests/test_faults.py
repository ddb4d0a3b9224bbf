"""A run that something happens to: what it says, its exit code, and what is left (K3, K4, K22, N1, T11 to T18)."""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cli_runs import Result, call, losses, refusal, run_folders, spawn, weights, write_tiny

FAULTS = """
import math
import shutil

import torch
from lightning import Callback


class Fault(Callback):
    def __init__(self, at: int, kind: str):
        self.at, self.kind = at, kind

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.at:
            getattr(self, self.kind)(trainer, module)

    def memory(self, trainer, module):
        torch.empty(1 << 50, dtype=torch.uint8)

    def cuda_memory(self, trainer, module):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    def own(self, trainer, module):
        raise ZeroDivisionError("of a callback")

    def nan(self, trainer, module):
        with torch.no_grad():
            module.backbone.norm.weight[0] = math.nan

    def remove(self, trainer, module):
        trainer.logger.experiment.flush()
        shutil.rmtree(trainer.logger.log_dir)
"""


@pytest.fixture
def fit(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> Callable[..., Result]:
    """A run of six steps, validated every second, to which a fault happens at step 4."""
    (tmp_path / "faults_of_runs.py").write_text(FAULTS)
    monkeypatch.syspath_prepend(tmp_path)
    config = write_tiny(tmp_path)

    def run(kind: str, *options: str) -> Result:
        init = f"{{class_path: faults_of_runs.Fault, init_args: {{at: 4, kind: {kind}}}}}"
        return call(capsys, "fit", "-c", config, "--trainer.max_steps=6", f"--trainer.callbacks+={init}", *options)

    return run


def failed(result: Result) -> str:
    """The sentence of a run that failed: the last line, and no traceback."""
    assert result.code == 1, result.err
    assert "Traceback" not in result.err
    line = result.err.splitlines()[-1]
    assert line.startswith("lit-llm fit: error: ")
    return line.removeprefix("lit-llm fit: error: ")


@pytest.mark.parametrize("kind", ["memory", "cuda_memory"])
def test_too_little_memory(tmp_path, fit, kind) -> None:
    """T11, T12: what to lower, and where to go on from; the checkpoint is whole."""
    said = failed(fit(kind))
    assert said.startswith("the memory does not suffice for --data.batch_size 5 with --data.block_size 7; lower one")
    (run,) = run_folders(tmp_path)
    assert said.endswith(f"; the last checkpoint is '{run / 'checkpoints' / 'last.ckpt'}'")
    assert weights(run)["global_step"] == 4


def test_a_loss_that_is_nan(tmp_path, fit) -> None:
    """N1: told with the step, the last good checkpoint and what may help; it holds no NaN."""
    said = failed(fit("nan"))
    assert said.startswith("the loss is nan and the norm of the gradients nan at step 5; the weights were not updated")
    (run,) = run_folders(tmp_path)
    assert f"the last checkpoint is '{run / 'checkpoints' / 'last.ckpt'}'" in said
    good = weights(run)
    assert good["global_step"] == 4
    assert all(value.isfinite().all() for value in good["state_dict"].values())


def test_before_the_first_checkpoint(fit) -> None:
    assert failed(fit("nan", "--trainer.val_check_interval=50")).endswith("; no checkpoint had been written yet")


def test_a_callback_of_ones_own_that_fails(tmp_path, fit) -> None:
    """T18: its own traceback; what was logged and saved until then is there."""
    with pytest.raises(ZeroDivisionError, match="of a callback"):
        fit("own")
    (run,) = run_folders(tmp_path)
    assert list(losses(run)) == [0, 1, 2, 3]
    assert weights(run)["global_step"] == 4


@pytest.mark.filterwarnings("ignore:Exception in thread")  # of TensorBoard's own, which says what it met
def test_a_log_that_is_lost(tmp_path, fit) -> None:
    """T13, T14: whether the disk is full or the folder gone, training goes on, and its checkpoints with it."""
    result = fit("remove")
    assert result.code == 0
    assert result.err.count("warning: the events of the run cannot be written (No such file or directory)") == 1
    assert weights(run_folders(tmp_path)[0])["global_step"] == 6


def test_a_limit_of_time(tmp_path, capsys) -> None:
    """T16: the run ends in time, with a checkpoint, and its config can be written and read again."""
    args = ("fit", "-c", write_tiny(tmp_path), "--trainer.max_steps=-1", "--trainer.max_time=00:00:00:01")
    assert call(capsys, *args).code == 0
    (run,) = run_folders(tmp_path)
    assert weights(run)["global_step"] > 2
    assert call(capsys, "fit", "-c", run / "config.yaml", "--print_config").code == 0


IN_A_THREAD = "--trainer.plugins=lightning.pytorch.plugins.io.AsyncCheckpointIO"


def test_checkpoints_that_a_thread_writes(tmp_path, capsys) -> None:
    """Whole ones, from which a run goes on."""
    config = write_tiny(tmp_path)
    assert call(capsys, "fit", "-c", config, IN_A_THREAD).code == 0
    (run,) = run_folders(tmp_path)
    assert sorted(file.name for file in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert weights(run)["global_step"] == 4
    more = ("--ckpt_path=last", "--trainer.max_steps=6", IN_A_THREAD)
    assert call(capsys, "fit", "-c", config, *more).code == 0
    assert weights(run_folders(tmp_path)[1])["global_step"] == 6


@pytest.mark.parametrize("steps", [2, 6], ids=["the only save", "a later save"])
def test_a_checkpoint_that_a_thread_cannot_write(tmp_path, capsys, monkeypatch, steps) -> None:
    """K22: the run fails with the next save, or at its end, and says what is left."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    config = write_tiny(tmp_path)
    said = failed(call(capsys, "fit", "-c", config, f"--trainer.max_steps={steps}", IN_A_THREAD))
    assert "last.ckpt' (No space left on device; it needs " in said or "best.ckpt' (No space left on device" in said
    assert said.endswith("; no checkpoint had been written yet")


def test_a_folder_that_takes_no_checkpoint(tmp_path, capsys) -> None:
    """K4: told before the first step, also where there is no run folder that would have been tried."""
    (tmp_path / "taken").touch()
    own = ("--trainer.logger=false", f"--trainer.default_root_dir={tmp_path / 'taken'}")
    said = refusal(call(capsys, "fit", "-c", write_tiny(tmp_path), *own))
    taken = tmp_path / "taken"
    wanted = f"cannot write to '{taken}' ('{taken}' is a file); choose another by --trainer.default_root_dir"
    assert said == wanted


@pytest.mark.slow
def test_a_true_limit_of_the_size_of_files(tmp_path) -> None:
    """K3: the checkpoint does not fit; one sentence, exit code 1, and no half file."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    process = spawn("fit", "-c", write_tiny(tmp_path), preexec_fn=limit)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "(File too large; it needs 0 MB, and there are" in err
    assert err.splitlines()[-1].endswith("; no checkpoint had been written yet")
    assert not list(run_folders(tmp_path)[0].glob("checkpoints/*"))
