"""The configuration of a run, where it is written: into the run folder, and into TensorBoard."""

from pathlib import Path

import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger

from lit_llm.config_files import flat
from lit_llm.training.logger import events_in, tensorboard

# Of every task, for the HParams page shows the metrics that the first of all runs names.
SCORES = ("loss", "perplexity", "bits_per_byte", "accuracy", "balanced_accuracy", "f1", "reward_accuracy")
METRICS = (*(f"{split}/{score}" for split in ("test", "val") for score in SCORES), "tokens")


class SaveConfig(SaveConfigCallback):
    """Writes the whole configuration into the run folder, and into TensorBoard as text and as hyper-parameters."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file, and events beside it, for lit-llm compare; without a logger nothing is written."""
        if trainer.logger is None:
            return
        self._folder = Path(str(trainer.log_dir))  # here, where all processes ask for it
        if tensorboard(trainer) is None:
            trainer.loggers = [*trainer.loggers, events_in(self._folder)]
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell the loggers what the file in the run folder says."""
        logger = tensorboard(trainer)
        if stage != "fit" or logger is None:
            return
        from torch.utils.tensorboard.summary import hparams  # here, for tensorboard is slow to import

        text = (self._folder / self.config_filename).read_text(encoding="utf-8")  # dumping is slow
        logger.experiment.add_text("config", f"```yaml\n{text}\n```", 0)
        config = yaml.safe_load(text)
        values = dict(flat({key: config[key] for key in ("seed_everything", "model", "data")}))
        parameters = {
            key: value if isinstance(value, bool | int | float) else str(value) for key, value in values.items()
        }
        # Here, before devices divide the network among themselves.
        parameters["parameters"] = sum(parameter.numel() for parameter in pl_module.parameters())
        for other in trainer.loggers:
            if not isinstance(other, TensorBoardLogger):
                other.log_hyperparams(parameters)
        # By the names of the scalars: the HParams page shows their latest values, of a killed run as well.
        for summary in hparams(parameters, dict.fromkeys(METRICS, 0.0)):
            logger.experiment.file_writer.add_summary(summary)
