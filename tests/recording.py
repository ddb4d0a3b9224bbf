"""What tests of data modules share: a module that remembers what it was fed, and a checkpoint after the last batch."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import nn


class Recorder(LightningModule):
    """Remembers what it was fed, and learns nothing.

    Args:
        field: What of each batch.
    """

    def __init__(self, field: str) -> None:
        super().__init__()
        self.field, self.fed = field, list[list]()
        self.weight = nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any) -> torch.Tensor:
        self.fed.append(getattr(batch, self.field).tolist())
        return self.weight.sum()

    def validation_step(self, batch: Any) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class SaveAtTheEnd(Callback):
    """After the last batch, where Lightning's own callback saves."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == trainer.max_steps:
            trainer.save_checkpoint("last.ckpt")
