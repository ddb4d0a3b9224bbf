"""The ranks of a run end together: when one of them dies, raises or gets stuck, no other waits for it."""

import atexit
import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from lightning.pytorch.callbacks import Callback

GRACE = 12  # seconds in which a rank may end in its own way, which can be to wait for ranks that know nothing of it
LAUNCHER = "LIT_LLM_LAUNCHER"  # process id of the rank that starts the others of its machine
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def end_with_launcher() -> None:
    """Let the system end this process when the one that launched it is gone, even if by `kill -9` (Linux).

    It ends by SIGUSR2, at which every thread first writes to stderr where it is. A process that no launcher started may
    outlive its parent.
    """
    if "LOCAL_RANK" not in os.environ:
        os.environ[LAUNCHER] = str(os.getpid())
    elif "TORCHELASTIC_RUN_ID" in os.environ or os.environ.get(LAUNCHER) == str(os.getppid()):
        if hasattr(signal, "SIGUSR2"):
            faulthandler.register(signal.SIGUSR2, chain=True)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGUSR2)


class EndTogether(Callback):
    """Ends this rank if one that it has started fails, or if it has failed itself and cannot come to an end."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Watch the ranks that this one has started."""
        self._is_over = False
        if started := _started(trainer):
            threading.Thread(target=self._watch, args=(started,), daemon=True).start()
            atexit.register(_end, started)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """From here on a rank may end before this one."""
        self._is_over = True

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Be gone after a while, whatever the rest of the program waits for."""
        self._is_over = True
        if trainer.world_size > 1:
            why = f"rank {trainer.global_rank} failed ({exception!r}) and cannot end by itself"
            timer = threading.Timer(GRACE, _exit, (why,))
            timer.daemon = True
            timer.start()

    def _watch(self, started: list[subprocess.Popen]) -> None:
        while not self._is_over:
            if codes := [code for process in started if (code := process.poll())]:
                # At once: Lightning, which looks every five seconds, kills this rank without a word.
                _tell(f"another rank ended with exit code {codes[0]}, and this one will")
                time.sleep(3)  # most often it is told, by the lost connection, and fails by itself
                if not self._is_over:
                    os._exit(1)
            time.sleep(0.5)


def wait_for_ranks(trainer: Any, seconds: float = 60) -> int:
    """Wait until the ranks that this one has started are through: some may still write.

    Args:
        trainer: The one of the run.
        seconds: How long to wait.

    Returns:
        The exit code: 1 if one of them has failed, or is not through.
    """
    _wait(_started(trainer), seconds)
    return int(any(process.returncode != 0 for process in _started(trainer)))


def _started(trainer: Any) -> list[subprocess.Popen]:
    return getattr(trainer.strategy.launcher, "procs", [])


def _wait(started: list[subprocess.Popen], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for process in started:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(deadline - time.monotonic(), 0))


def _end(started: list[subprocess.Popen]) -> None:
    """Leave no rank behind; one that is stuck says where."""
    _wait(started, GRACE)
    for process in started:
        if process.poll() is None:
            process.send_signal(getattr(signal, "SIGUSR2", signal.SIGTERM))


def _exit(why: str) -> None:
    """End at once, as other threads may be stuck."""
    _tell(why)
    os._exit(1)


def _tell(why: str) -> None:
    print(f"{why}; its threads are here:", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(all_threads=True)
