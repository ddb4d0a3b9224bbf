"""The configuration of a run, where it is written: into the run folder, and into TensorBoard."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger


class SaveConfig(SaveConfigCallback):
    """Writes the whole configuration into the run folder, and into TensorBoard as text and as hyper-parameters."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file; without a logger there is no run folder, and nothing is written."""
        if trainer.logger is not None:
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Add to TensorBoard what the file in the run folder says."""
        if stage != "fit" or not isinstance(trainer.logger, TensorBoardLogger):
            return
        from torch.utils.tensorboard.summary import hparams  # here, for tensorboard is slow to import

        text = Path(trainer.logger.log_dir, self.config_filename).read_text(encoding="utf-8")  # dumping is slow
        trainer.logger.experiment.add_text("config", f"```yaml\n{text}\n```", 0)
        config = yaml.safe_load(text)
        values = dict(flat({key: config[key] for key in ("seed_everything", "model", "data")}))
        parameters = {
            key: value if isinstance(value, bool | int | float) else str(value) for key, value in values.items()
        }
        # By the names of the scalars: the HParams page shows their latest values, of a killed run as well.
        metrics = dict.fromkeys(("val/loss", "val/perplexity", "val/bits_per_byte", "tokens"), 0.0)
        for summary in hparams(parameters, metrics):
            trainer.logger.experiment.file_writer.add_summary(summary)


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """What is set below a nested mapping, each value with the dotted name of its option; plain lists stay whole."""
    if isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, inner in value.items():
            own = key in ("init_args", "class_path")  # levels of the file that the command line leaves out
            yield from flat(inner, name if own else f"{name}.{key}" if name else str(key))
    elif value is not None:
        yield name, value
