"""What the book does in its own way: how the weights start, and how the training loss is measured."""

import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from torch import nn

from lit_llm import GPT


class TorchInitGPT(GPT):
    """GPT whose parts start as torch makes them: normal(0, 1) tables, uniform(± 1/sqrt(inputs)) linear layers."""

    def init_weights(self) -> None:
        """Start anew in torch's way."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding | nn.LayerNorm):
                module.reset_parameters()


class LossWithoutDropout(Callback):
    """Logs `train/loss_without_dropout`: over the training text in eval mode, at each validation."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        batches = trainer.datamodule.train_dataloader()
        losses = [F.cross_entropy(pl_module(batch).flatten(0, 1), batch.targets.flatten()) for batch in batches]
        pl_module.log("train/loss_without_dropout", torch.stack(losses).mean())
