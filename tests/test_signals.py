"""A run that is sent a signal: a checkpoint after the step, then the end or the next step (T1, T2, T3, T5)."""

import os
import signal
import stat
from pathlib import Path

import pytest
from cli_runs import call, equal_at_the_end, losses, run_folders, spawn, wait_for, weights, write_tiny

DROPOUT = ("--model.backbone.block=lit_llm.backbone.gpt.Block", "--model.backbone.block.dropout=0.3")
# No validation comes near, so that what is found was written for the signal.
ENDLESS = ("--trainer.max_steps=-1", "--trainer.val_check_interval=10000000", *DROPOUT)
SENDING = """
import os
from lightning import Callback


class Send(Callback):
    def __init__(self, number: int, at: int, times: int = 1):
        self.number, self.at, self.times = number, at, times

    def on_before_zero_grad(self, trainer, module, optimizer):
        if trainer.global_step == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)
"""


@pytest.fixture
def sending(tmp_path, monkeypatch):
    """Options of a run that sends itself a signal in the middle of a step, once it has taken so many."""
    (tmp_path / "signals_sending.py").write_text(SENDING)
    monkeypatch.syspath_prepend(tmp_path)

    def options(name: str, at: int, times: int = 1) -> tuple[str, ...]:
        init = f"{{number: {signal.Signals[name].value}, at: {at}, times: {times}}}"
        return (f"--trainer.callbacks+={{class_path: signals_sending.Send, init_args: {init}}}",)

    return options


@pytest.mark.parametrize(
    ("name", "code"),
    [("SIGTERM", 143), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("SIGINT", 130), ("SIGHUP", 129)))],
)
def test_a_run_stops_after_the_step_and_goes_on_as_if_it_had_not(tmp_path, capsys, sending, name, code) -> None:
    """With dropout: the losses of both parts, and the weights at the end, are those of a run without a stop."""
    before = signal.getsignal(signal.Signals[name])
    args = ("fit", "-c", write_tiny(tmp_path), *DROPOUT, "--trainer.val_check_interval=100")
    stopped = call(capsys, *args, "--trainer.max_steps=9", *sending(name, 4))
    assert stopped.code == code
    assert f"{name} at step 5: saved, to go on with --ckpt_path last" in stopped.err
    assert signal.getsignal(signal.Signals[name]) == before
    assert call(capsys, *args, "--trainer.max_steps=9", "--ckpt_path=last").code == 0
    assert call(capsys, *args, "--trainer.max_steps=9").code == 0
    first, second, whole = run_folders(tmp_path)
    assert weights(first)["global_step"] == 5
    assert losses(first) | losses(second) == losses(whole)
    assert len(losses(first)) == 5
    assert equal_at_the_end(second, whole)


def test_a_signal_within_an_accumulation_waits_for_the_step(tmp_path, capsys, sending) -> None:
    args = ("fit", "-c", write_tiny(tmp_path), *ENDLESS, "--trainer.accumulate_grad_batches=3")
    assert call(capsys, *args, *sending("SIGTERM", 2)).code == 143
    assert weights(run_folders(tmp_path)[0])["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] == 9


def test_a_request_to_save_is_no_end(tmp_path, capsys, sending) -> None:
    """T3: SIGUSR1 writes a checkpoint, and the run goes on to its last step."""
    args = ("fit", "-c", write_tiny(tmp_path), "--trainer.max_steps=6", "--trainer.val_check_interval=100")
    result = call(capsys, *args, *sending("SIGUSR1", 3))
    assert result.code == 0
    assert "SIGUSR1 at step 4: saved" in result.err
    assert weights(run_folders(tmp_path)[0])["global_step"] == 6


def test_a_second_interrupt_stops_at_once(tmp_path, capsys, sending) -> None:
    """T2: without waiting for the step, and so without a checkpoint."""
    result = call(capsys, "fit", "-c", write_tiny(tmp_path), *ENDLESS, *sending("SIGINT", 3, times=2))
    assert result.code == 130
    assert not list(run_folders(tmp_path)[0].glob("checkpoints/*"))


@pytest.mark.parametrize(("exit_code", "code", "steps"), [(0, 0, 4), (1, 0, 6)])
def test_a_slurm_job_goes_back_to_the_queue(tmp_path, capsys, monkeypatch, sending, exit_code, code, steps) -> None:
    """T5: SIGUSR1, which SLURM sends before the time is over; where requeueing fails, the run goes on."""
    stub = tmp_path / "bin" / "scontrol"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nexit {exit_code}\n')
    stub.chmod(stub.stat().st_mode | stat.S_IEXEC)
    slurm = {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"}
    for name, value in (slurm | {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{stub.parent}{os.pathsep}{os.environ['PATH']}")
    args = ("fit", "-c", write_tiny(tmp_path), "--trainer.max_steps=6", "--trainer.val_check_interval=100")
    assert call(capsys, *args, *sending("SIGUSR1", 3)).code == code
    assert (tmp_path / "asked").read_text() == "requeue 17\n"
    assert weights(run_folders(tmp_path)[0])["global_step"] == steps


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_process_that_is_sent_a_signal(tmp_path: Path, name: str, code: int) -> None:
    """T1, T2, T3: from outside, at any moment of the training."""
    process = spawn("fit", "-c", write_tiny(tmp_path), *ENDLESS)
    wait_for(process, lambda: list(tmp_path.glob("logs/tiny/*/checkpoints")))
    process.send_signal(signal.Signals[name])
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert weights(run_folders(tmp_path)[0])["global_step"] >= 1
