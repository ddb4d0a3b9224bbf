"""What becomes of freed memory between the steps of a run on a CPU."""

from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from lit_llm.training.heap import APART, KEEP, give_back, tune_heap


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
