"""The run folder: `logs/<name>/version_N/`, made by one run alone."""

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only


class RunLogger(TensorBoardLogger):
    """TensorBoard logs in a run folder that no other run can get, however many start at once.

    Args:
        save_dir: Folder of all runs.
        name: Name of the experiment; a folder in `save_dir`.
        version: Number of the run. None: the next free one.

    Raises:
        ValueError: If the folder cannot be made.
    """

    def __init__(self, save_dir: str = "logs", name: str = "run", version: int | None = None) -> None:
        # HParams are written with real metrics by a callback, not with Lightning's placeholder.
        super().__init__(save_dir, name=name, version=version, default_hp_metric=False)

    @property
    def version(self) -> int | str:
        """Number of the run; asking for it the first time makes the folder."""
        if self._version is None:
            self._version = self._claim() if getattr(rank_zero_only, "rank", 0) == 0 else self._newest()
        return self._version

    def save(self) -> None:
        """Flush the events. Lightning would add an hparams.yaml, which config.yaml says better."""
        self.experiment.flush()

    def _claim(self) -> int:
        number = self._newest() + 1
        while True:
            try:
                # mkdir either makes the folder or fails: of several runs, one gets each number.
                (Path(self.root_dir) / f"version_{number}").mkdir(parents=True)
                return number
            except FileExistsError:
                number += 1
            except OSError as error:
                raise ValueError(
                    f"cannot make a run folder in '{Path(self.root_dir).resolve()}' ({error.strerror}); "
                    "choose another by --trainer.logger.save_dir"
                ) from error

    def _newest(self) -> int:
        folders = Path(self.root_dir).glob("version_*")
        return max((int(p.name[8:]) for p in folders if p.name[8:].isdigit()), default=-1)
