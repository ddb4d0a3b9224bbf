"""Which checkpoints a run keeps: the best one and the last one."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn


class BestCheckpoint(ModelCheckpoint):
    """Keeps `checkpoints/best.ckpt` in the run folder: that of the best validation, also of the runs it goes on from.

    Args:
        monitor: The logged value that says which is best.
        mode: Whether the least (`min`) or the greatest (`max`) value is best.
    """

    def __init__(self, monitor: str = "val/loss", mode: str = "min") -> None:
        super().__init__(filename="best", monitor=monitor, mode=mode, enable_version_counter=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there; Lightning's own forgets the score to beat where the folder is another one."""
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})


class LastCheckpoint(Checkpoint):
    """Keeps `checkpoints/last.ckpt` in the run folder: written at each validation, and when the training ends.

    Lightning's `save_last` writes only together with a new best, so that what was learnt after it would be lost.
    Gradients in the middle of an accumulation are in no checkpoint: one that falls there waits for the optimizer step.

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
        self._last_step, self._has_stepped, self._is_due = 0, True, False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to count, where a resumed run goes on."""
        self._last_step = trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save every n steps, and what a validation has left to save."""
        step = trainer.global_step
        self._has_stepped, self._last_step = step > self._last_step, step
        every = self.every_n_train_steps
        if self._has_stepped and (self._is_due or (every is not None and step % every == 0)):
            self._save(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Save, in the middle of a training."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._is_due = True
            if self._has_stepped:
                self._save(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Save the end."""
        self._save(trainer)

    def _save(self, trainer: Any) -> None:
        self._is_due = False
        if trainer.fast_dev_run or trainer.global_step in (0, self._saved_step):
            return
        trainer.save_checkpoint(Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints" / "last.ckpt")
        self._saved_step = trainer.global_step
