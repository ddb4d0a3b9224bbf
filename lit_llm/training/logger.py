"""The run folder: `logs/<name>/version_N/`, made by one run alone."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning import Trainer
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lit_llm.training.checkpoint_io import unwritable

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter  # slow to import


class _ForgivingWriter:
    """TensorBoard's event file; a full disk, or a folder that somebody removes, costs the rest of it, but not the run.

    Args:
        writer: What writes the file.
    """

    def __init__(self, writer: Any) -> None:
        self._writer, self._is_lost = writer, False

    def add_event(self, *args: Any, **kwargs: Any) -> None:
        """Hand an event to the thread that writes."""
        self._try(self._writer.add_event, *args, **kwargs)

    def flush(self) -> None:
        """Wait for the file."""
        self._try(self._writer.flush)

    def close(self) -> None:
        """Write the rest."""
        self._try(self._writer.close)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def _try(self, write: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        if self._is_lost:
            return
        try:
            write(*args, **kwargs)
        except OSError as error:
            self._is_lost = True
            reason = error.strerror or error
            print(f"warning: the events of the run cannot be written ({reason}); it goes on without", file=sys.stderr)


class RunLogger(TensorBoardLogger):
    """TensorBoard logs in a run folder that no other run can get, however many start at once.

    Args:
        save_dir: Folder of all runs.
        name: Name of the experiment; a folder in `save_dir`.
        version: Number of the run. None: the next free one.

    Raises:
        ValueError: If the folder cannot be made, or is that of another run.
    """

    def __init__(self, save_dir: str = "logs", name: str = "run", version: int | None = None) -> None:
        # HParams are written with real metrics by a callback, not with Lightning's placeholder.
        super().__init__(Path(save_dir).expanduser(), name=name, default_hp_metric=False)
        self._wanted = version
        if why := unwritable(self._runs):
            raise self._refusal(why)

    @property
    @rank_zero_experiment
    def experiment(self) -> "SummaryWriter":
        """TensorBoard's writer, on the first rank."""
        made = super().experiment
        inner = made.file_writer  # None once it is closed
        if inner is not None and not isinstance(inner.event_writer, _ForgivingWriter):
            inner.event_writer = _ForgivingWriter(inner.event_writer)
        return made

    @property
    def version(self) -> int | str:
        """Number of the run; asking for it the first time makes the folder, on the first rank."""
        if self._version is None:
            self._version = self._make() if getattr(rank_zero_only, "rank", 0) == 0 else self._newest()
        return self._version

    def save(self) -> None:
        """Flush the events. Lightning would add an hparams.yaml, which config.yaml says better."""
        self.experiment.flush()

    @property
    def _runs(self) -> Path:
        return Path(self.root_dir).absolute()

    def _make(self) -> int:
        number = self._newest() + 1 if self._wanted is None else self._wanted
        while True:
            try:
                # mkdir either makes the folder or fails: of several runs, one gets each number.
                (self._runs / f"version_{number}").mkdir(parents=True)
                return number
            except FileExistsError as error:
                if self._wanted is not None:
                    raise ValueError(
                        f"the run folder '{self._runs / f'version_{number}'}' is taken; leave "
                        "--trainer.logger.version out, and the run gets the next free number"
                    ) from error
                number += 1
            except OSError as error:
                raise self._refusal(str(error.strerror)) from error

    def _refusal(self, why: str) -> ValueError:
        return ValueError(
            f"cannot make a run folder in '{self._runs}' ({why}); choose another by --trainer.logger.save_dir"
        )

    def _newest(self) -> int:
        numbers = [folder.name.removeprefix("version_") for folder in self._runs.glob("version_*")]
        return max((int(number) for number in numbers if number.isdecimal()), default=-1)


class RunTrainer(Trainer):
    """Lightning's Trainer, with a folder for each run whatever logs it."""

    @property
    def log_dir(self) -> str | None:
        """The run folder: that of the checkpoints, where Lightning has one for all runs of a logger.

        All processes ask for it together.
        """
        logger = self.logger
        if logger is None or isinstance(logger, TensorBoardLogger | CSVLogger):
            return super().log_dir
        _ = logger.experiment  # type: ignore[attr-defined] # before it is made, some have no version
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
        folder = Path(logger.save_dir or self.default_root_dir, str(logger.name), version)
        return self.strategy.broadcast(str(folder))


def tensorboard(trainer: Any) -> TensorBoardLogger | None:
    """The first of a run's loggers that takes texts and pictures; None if there is none."""
    return next((logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)


def events_in(folder: Path) -> RunLogger:
    """A logger of events for the run folder of another one.

    Args:
        folder: The run folder.
    """
    logger = RunLogger(str(folder), "")
    logger._version = ""  # no folder of its own
    return logger
