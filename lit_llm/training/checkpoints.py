"""Which checkpoints a run keeps, beside the best one of Lightning's ModelCheckpoint."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn


class LastCheckpoint(Checkpoint):
    """Keeps `checkpoints/last.ckpt` in the run folder: written at each validation, and when the training ends.

    Lightning's `save_last` writes only together with a new best, so that what was learnt after it would be lost.

    Args:
        every_n_train_steps: Optimizer steps between further ones. None: none between two validations.

    Raises:
        ValueError: If `every_n_train_steps` is below 1.
    """

    def __init__(self, every_n_train_steps: int | None = None) -> None:
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise ValueError(f"every_n_train_steps {every_n_train_steps} cannot be: it is at least 1, or null")
        self.every_n_train_steps = every_n_train_steps
        self._saved_step: int | None = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save every n steps."""
        if self.every_n_train_steps is not None and trainer.global_step % self.every_n_train_steps == 0:
            self._save(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Save, in the middle of a training."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._save(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Save the end."""
        self._save(trainer)

    def _save(self, trainer: Any) -> None:
        if trainer.fast_dev_run or trainer.global_step in (0, self._saved_step):
            return
        trainer.save_checkpoint(Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints" / "last.ckpt")
        self._saved_step = trainer.global_step
