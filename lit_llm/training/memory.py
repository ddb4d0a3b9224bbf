"""What becomes of freed memory between the steps of a run on a CPU."""

import ctypes
import sys
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

# glibc's malloc.h: what its knobs are called, and values at which they leave the heap to itself.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
APART = {MMAP_THRESHOLD: 2**20, MMAP_MAX: 65536}  # a block of a megabyte lies by itself, and goes when it is freed
KEEP = {MMAP_MAX: 0, TRIM_THRESHOLD: -1}
# Where its own, moving thresholds come to rest in a process that frees large blocks; set once, they move no more.
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 * 2**20, TRIM_THRESHOLD: 64 * 2**20}


def tune_heap(knobs: dict[int, int]) -> bool:
    """Set knobs of this process's memory (APART, KEEP, USUAL); False where no glibc is there to ask."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt"):
        return False
    return all(library.mallopt(knob, value) for knob, value in knobs.items())


def give_back() -> None:
    """Let memory that is freed go as usual, beginning with what is free now."""
    if tune_heap(USUAL):
        ctypes.CDLL(None).malloc_trim(0)


class KeepFreedMemory(Callback):
    """On a CPU, keeps the memory of one training step for the next instead of returning it to the system in between.

    A step frees and allocates the same tensors again. Left alone, glibc returns those of more than some megabytes to
    the system, which then has to clear each page anew: a tenth to two fifths of a step. What a run needs at its peak
    hardly changes; after it, the process gives its memory back as before. Nothing happens on a GPU, whose memory torch
    keeps anyway, or with another C library.
    """

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Until the optimizer has stepped, put aside what stays: amid what comes and goes it would be in the way."""
        self._waits = stage == "fit" and trainer.strategy.root_device.type == "cpu" and tune_heap(APART)

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        """Begin to keep."""
        if self._waits and trainer.global_step:
            self._waits = not tune_heap(KEEP)
            rank_zero_info("memory that a step frees is kept for the next one")

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Give back what is free."""
        if stage == "fit" and trainer.strategy.root_device.type == "cpu":
            give_back()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Give back after a failure too."""
        self.teardown(trainer, pl_module, "fit")
