"""The configuration of a run, where it is written: into the run folder, and into TensorBoard."""

import sys
from pathlib import Path

import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from lit_llm.config_files import flat
from lit_llm.training.logger import tensorboard

# Of every task, for the HParams page shows the metrics that the first of all runs names.
SCORES = ("loss", "perplexity", "bits_per_byte", "accuracy", "balanced_accuracy", "f1", "reward_accuracy")
METRICS = (*(f"{split}/{score}" for split in ("test", "val") for score in SCORES), "tokens")

WITHOUT_TENSORBOARD = (
    "sample texts, figures and hyper-parameters are written to TensorBoard alone, and lit-llm compare reads "
    "TensorBoard or CSV; to have them, put lit_llm.training.logger.RunLogger first in a list of loggers"
)


class SaveConfig(SaveConfigCallback):
    """Writes the whole configuration into the run folder, and into TensorBoard as text and as hyper-parameters."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file; without a logger there is no run folder, and nothing is written."""
        if trainer.logger is not None:
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Add to TensorBoard what the file in the run folder says."""
        logger = tensorboard(trainer)
        if stage == "fit" and logger is None:
            print(WITHOUT_TENSORBOARD, file=sys.stderr)
        if stage != "fit" or logger is None or trainer.log_dir is None:
            return
        from torch.utils.tensorboard.summary import hparams  # here, for tensorboard is slow to import

        text = Path(trainer.log_dir, self.config_filename).read_text(encoding="utf-8")  # dumping is slow
        logger.experiment.add_text("config", f"```yaml\n{text}\n```", 0)
        config = yaml.safe_load(text)
        values = dict(flat({key: config[key] for key in ("seed_everything", "model", "data")}))
        parameters = {
            key: value if isinstance(value, bool | int | float) else str(value) for key, value in values.items()
        }
        # Here, before devices divide the network among themselves.
        parameters["parameters"] = sum(parameter.numel() for parameter in pl_module.parameters())
        # By the names of the scalars: the HParams page shows their latest values, of a killed run as well.
        for summary in hparams(parameters, dict.fromkeys(METRICS, 0.0)):
            logger.experiment.file_writer.add_summary(summary)
