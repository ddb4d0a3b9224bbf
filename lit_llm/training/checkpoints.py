"""Which checkpoints a run keeps: the best one and the last one."""

from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from lit_llm.training.loop_counts import go_on, leave_open, mend, validation_is_due
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
        self._metrics: dict[str, Any] = {}  # the last scores of the run that goes on

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to count, where a resumed run goes on, and to listen; see at once whether files can be written."""
        self._last_step, self._signal = trainer.global_step, 0
        self._go_on(trainer)
        self._signals.listen()
        folder = self.path(trainer).parent
        if trainer.is_global_zero and not trainer.fast_dev_run:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                TemporaryFile(dir=folder).close()
            except OSError as error:
                raise ValueError(f"no checkpoint can be written to '{folder}' ({error.strerror or error})") from error

    def _go_on(self, trainer: Any) -> None:
        """Know what the run before knew beside its weights: the last scores, and whether it was to stop."""
        go_on(trainer)
        trainer.callback_metrics.update(self._metrics)
        for callback in trainer.early_stopping_callbacks:
            if callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
                rank_zero_info(f"the run was stopped by EarlyStopping on {callback.monitor}; without it, it goes on")
                trainer.should_stop = True

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save every n steps, what a validation has left to save, and when a signal asks for it.

        Before a validation or the end of an epoch only for a signal: what is due otherwise is saved after it.
        """
        step = trainer.global_step
        self._has_stepped, self._last_step = step > self._last_step, step
        if not self._has_stepped:
            return
        self._signal = self._signals.noted(trainer)
        if self._signal or (self.every_n_train_steps and step % self.every_n_train_steps == 0):
            self._is_due = True
        if self._is_due and (self._signal if validation_is_due(trainer) else not trainer.is_last_batch):
            self._save(trainer)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Obey the signal of the step before, whose values have now been logged."""
        self._obey(trainer)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Obey the signal of the step before, whose values have now been logged."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._obey(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Save, in the middle of an epoch; at its end when that is over."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._is_due = True
            if self._has_stepped and not trainer.is_last_batch:
                self._save(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Save what was due at the last batch."""
        if self._is_due and self._has_stepped:
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
        """Say where the run goes on, and which scores it had last, by which callbacks decide."""
        loop = checkpoint["loops"]["fit_loop"]
        if self._is_ending:
            leave_open(loop)
            checkpoint["epoch"] = loop["epoch_progress"]["current"]["completed"]
        else:
            mend(loop, trainer)
        checkpoint["callback_metrics"] = {name: value.cpu() for name, value in trainer.callback_metrics.items()}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep the scores for the start of the training."""
        self._metrics = checkpoint.get("callback_metrics", {})

    def _obey(self, trainer: Any) -> None:
        if self._signal:
            number, self._signal = self._signal, 0
            self._signals.obey(number, trainer)

    def path(self, trainer: Any) -> Path:
        """The file of a run."""
        return Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints" / "last.ckpt"

    def _save(self, trainer: Any) -> None:
        self._is_due = False
        if trainer.fast_dev_run or trainer.global_step in (0, self._saved_step):
            return
        path = self.path(trainer)
        trainer.save_checkpoint(path, weights_only=False)  # with all that a resumed run needs
        self.saved, self._saved_step = path, trainer.global_step


def epochs_taken(checkpoint: dict[str, Any]) -> int:
    """How many whole epochs the run of a checkpoint has taken, also of one that was written at the end of an epoch."""
    if (loop := checkpoint.get("loops", {}).get("fit_loop")) is None:
        return 0
    counts, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]
    return int(counts["ready"] if batches["is_last_batch"] else counts["processed"])
