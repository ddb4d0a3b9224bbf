"""What becomes of freed memory between the steps of a run on a CPU."""

import ctypes
import sys
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

# glibc's malloc.h: what its knobs are called, and values at which they leave the heap to itself.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
KEEP = {MMAP_MAX: 0, TRIM_THRESHOLD: -1}
# Where its own, moving thresholds come to rest in a process that frees large blocks; set once, they move no more.
GIVE_BACK = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 * 2**20, TRIM_THRESHOLD: 64 * 2**20}


def keep_freed_memory(keeps: bool = True) -> bool:
    """Let this process keep memory that it frees, or give it back as usual; False where no glibc is there to ask."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt"):
        return False
    changed = [library.mallopt(knob, value) for knob, value in (KEEP if keeps else GIVE_BACK).items()]
    if not keeps:
        library.malloc_trim(0)
    return all(changed)


class KeepFreedMemory(Callback):
    """On a CPU, keeps the memory of one training step for the next instead of returning it to the system in between.

    A step frees and allocates the same tensors again. Left alone, glibc returns those of more than some megabytes to
    the system, which then has to clear each page anew: a tenth to two fifths of a step. What a run needs at its peak
    hardly changes; after it, the process gives its memory back as before. Nothing happens on a GPU, whose memory torch
    keeps anyway, or with another C library.
    """

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Begin to keep."""
        if stage == "fit" and trainer.strategy.root_device.type == "cpu" and keep_freed_memory():
            rank_zero_info("memory that a step frees is kept for the next one")

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Give back what is free."""
        if stage == "fit" and trainer.strategy.root_device.type == "cpu":
            keep_freed_memory(False)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Give back after a failure too."""
        self.teardown(trainer, pl_module, "fit")
