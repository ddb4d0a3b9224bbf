"""What signals ask of a run: a checkpoint, then to stop or to go on."""

import os
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

# POSIX's; on Windows some do not exist. Exit codes are those of a shell: 128 and the number of the signal.
STOP = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
SAVE = [getattr(signal, name) for name in ("SIGUSR1",) if hasattr(signal, name)]


class Signals:
    """Notes signals, for a run that asks between two steps; a second Ctrl-C interrupts at once.

    SIGTERM, SIGINT and SIGHUP stop a run after a checkpoint, with exit code 143, 130 and 129. SIGUSR1 writes a
    checkpoint and goes on; in a SLURM job, which is sent it before its time is over, it hands the job back to the
    queue.
    """

    def __init__(self) -> None:
        self._noted = 0

    def listen(self) -> None:
        """Begin; the Trainer puts the handlers of before back when it is done."""
        self._noted = 0
        if threading.current_thread() is threading.main_thread():  # others may not
            for number in (*STOP, *SAVE):
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._noted == number:
            raise KeyboardInterrupt
        self._noted = number

    def noted(self, trainer: Any) -> int:
        """The signal that any rank has received, the same on all of them; 0 if none has."""
        if trainer.world_size == 1:
            return self._noted
        number = torch.tensor(self._noted, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
        return int(number)

    def obey(self, number: int, trainer: Any) -> None:
        """Do what a signal asks for, after its checkpoint has been written.

        Raises:
            SystemExit: If that is to stop.
        """
        self._noted = 0
        name = signal.Signals(number).name
        if trainer.is_global_zero:
            print(f"\n{name} at step {trainer.global_step}: saved, to go on with --ckpt_path last", file=sys.stderr)
        if number in STOP:
            raise SystemExit(128 + number)
        if SLURMEnvironment.detect() and trainer.strategy.broadcast(trainer.is_global_zero and _requeue()):
            raise SystemExit(0)


def _requeue() -> bool:
    """Hand the SLURM job back to the queue; where that fails the run goes on until its time is over."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"warning: the job {job} could not be requeued ({error}); the run goes on", file=sys.stderr)
        return False
    return True
