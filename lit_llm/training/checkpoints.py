"""Which checkpoints a run keeps: the best one and the last one."""

from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from lit_llm.training.signals import Signals


class BestCheckpoint(ModelCheckpoint):
    """Keeps `checkpoints/best.ckpt` in the run folder: that of the best validation, also of the runs it goes on from.

    Args:
        monitor: The logged value that says which is best.
        mode: Whether the least (`min`) or the greatest (`max`) value is best.
    """

    def __init__(self, monitor: str = "val/loss", mode: str = "min") -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode,
            enable_version_counter=False,
            # Of an epoch: at the end of its validation, before LastCheckpoint, which holds the score.
            save_on_train_epoch_end=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there; Lightning's own forgets the score to beat where the folder is another one."""
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})


class LastCheckpoint(Checkpoint):
    """Keeps `checkpoints/last.ckpt` in the run folder: written at each validation, at signals, and at the end.

    Lightning's `save_last` writes only together with a new best, so that what was learnt after it would be lost.
    Gradients in the middle of an accumulation are in no checkpoint: one that falls there waits for the optimizer step.
    A signal waits as well, and for the end of a validation: SIGTERM, SIGINT (Ctrl-C, unless given twice) and SIGHUP
    then stop the run, SIGUSR1 lets it go on, or hands a SLURM job back to the queue.

    Args:
        every_n_train_steps: Optimizer steps between further ones. None: none between two validations.

    Raises:
        ValueError: If `every_n_train_steps` is below 1.
    """

    def __init__(self, every_n_train_steps: int | None = None) -> None:
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise ValueError(f"every_n_train_steps {every_n_train_steps} cannot be: it is at least 1, or null")
        self.every_n_train_steps = every_n_train_steps
        self.saved: Path | None = None  # the file, once it is written
        self._saved_step: int | None = None
        self._last_step, self._has_stepped, self._is_due, self._is_ending = 0, True, False, False
        self._signals, self._signal = Signals(), 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to count, where a resumed run goes on, and to listen; see at once whether files can be written."""
        self._last_step, self._signal = trainer.global_step, 0
        self._signals.listen()
        folder = self._path(trainer).parent
        if trainer.is_global_zero and not trainer.fast_dev_run:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                TemporaryFile(dir=folder).close()
            except OSError as error:
                raise ValueError(f"no checkpoint can be written to '{folder}' ({error.strerror or error})") from error

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save every n steps, what a validation has left to save, and when a signal asks for it."""
        step = trainer.global_step
        self._has_stepped, self._last_step = step > self._last_step, step
        if not self._has_stepped:
            return
        self._signal = self._signals.noted(trainer)
        if self._signal or self._is_due or (self.every_n_train_steps and step % self.every_n_train_steps == 0):
            self._save(trainer)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Obey the signal of the step before, whose values have now been logged."""
        self._obey(trainer)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Obey the signal of the step before, whose values have now been logged."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._obey(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Save, in the middle of a training."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._is_due = True
            if self._has_stepped:
                self._save(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Save the end, once more where callbacks that average the weights have changed them since the last step."""
        self._is_ending = True
        if getattr(pl_module, "averaging", None) is not None:
            self._saved_step = None
        self._save(trainer)
        self._is_ending = False
        self._obey(trainer)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Say of a run that has ended where a longer one goes on."""
        if self._is_ending:
            loop = checkpoint["loops"]["fit_loop"]
            _leave_open(loop["epoch_progress"], loop["epoch_loop.batch_progress"])
            checkpoint["epoch"] = loop["epoch_progress"]["current"]["completed"]

    def _obey(self, trainer: Any) -> None:
        if self._signal:
            number, self._signal = self._signal, 0
            self._signals.obey(number, trainer)

    def _path(self, trainer: Any) -> Path:
        return Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints" / "last.ckpt"

    def _save(self, trainer: Any) -> None:
        self._is_due = False
        if trainer.fast_dev_run or trainer.global_step in (0, self._saved_step):
            return
        path = self._path(trainer)
        trainer.save_checkpoint(path, weights_only=False)  # with all that a resumed run needs
        self.saved, self._saved_step = path, trainer.global_step


def epochs_taken(checkpoint: dict[str, Any]) -> int:
    """How many whole epochs the run of a checkpoint has taken, also of one that was written at the end of an epoch."""
    if (loop := checkpoint.get("loops", {}).get("fit_loop")) is None:
        return 0
    counts, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]
    return int(counts["ready"] if batches["is_last_batch"] else counts["processed"])


def _leave_open(epochs: dict[str, Any], batches: dict[str, Any]) -> None:
    """Mend Lightning's counts at the end of a run by steps, in the state that goes into a checkpoint (lightning 2.6).

    They have the epoch in which it ends as a whole one, so that what is left of it would be of the next; and after a
    whole one they still have its batches, to which those of the next would be added.
    """
    if batches["is_last_batch"]:
        batches["is_last_batch"] = False
        batches["current"] = dict.fromkeys(batches["current"], 0)
        return
    for counts in (epochs["total"], epochs["current"]):
        counts["processed"] -= 1
        counts["completed"] -= 1
