"""What all modules share: the backbone, its optimizer, and what goes into a checkpoint."""

import math
import warnings
from typing import Any

import lightning as L
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn
from torch.optim import AdamW

from lit_llm.backbone import GPT
from lit_llm.training.optim import parameter_groups


class BaseModule(L.LightningModule):
    """A system around one backbone.

    Args:
        backbone: The network.
        optimizer: Called with named parameter groups; weight decay reaches matrices and embeddings only.
        lr_scheduler: Called with the optimizer; stepped after each optimizer step. None: constant rates.
    """

    def __init__(
        self,
        backbone: GPT,
        optimizer: OptimizerCallable = AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        with warnings.catch_warnings():
            # Lightning's advice for a backbone made in Python, to ignore it, breaks load_from_checkpoint.
            warnings.filterwarnings("ignore", message="Attribute 'backbone' is an instance")
            self.save_hyperparameters(logger=False)
        if isinstance(self.hparams.get("backbone"), nn.Module):
            # Built in Python, not from a config: objects do not belong into a checkpoint that is to load safely, so
            # load_from_checkpoint wants them again.
            self._set_hparams({k: v for k, v in self.hparams.items() if isinstance(v, int | float | str | None)})
        self.backbone, self.optimizer, self.lr_scheduler = backbone, optimizer, lr_scheduler

    def setup(self, stage: str) -> None:
        """Refuse data that the backbone cannot read.

        Raises:
            ValueError: If the data has more ids or longer inputs than the backbone.
        """
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            return
        if data.vocab_size > self.backbone.vocab_size:
            raise ValueError(
                f"the tokenizer has {data.vocab_size} ids and the backbone embeds "
                f"{self.backbone.vocab_size}; use the tokenizer that the backbone was made for"
            )
        if data.block_size > self.backbone.block_size:
            raise ValueError(
                f"--data.block_size {data.block_size} is beyond the backbone's block_size "
                f"{self.backbone.block_size}; lower it"
            )

    def configure_optimizers(self) -> Any:
        """The optimizer over named groups, and its schedule by optimizer steps."""
        optimizer = self.optimizer(parameter_groups(self.backbone))
        for group in optimizer.param_groups:
            if not (math.isfinite(group["lr"]) and group["lr"] > 0):
                raise ValueError(f"the learning rate {group['lr']} cannot be: it is a positive number")
        if self.lr_scheduler is None:
            return {"optimizer": optimizer}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the tokenizer beside the weights: a checkpoint alone is enough to use the model."""
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:
            checkpoint["tokenizer"] = data.tokenizer_state()

    @property
    def logs_now(self) -> bool:
        """Whether this step's values reach the logger; `self.log` on every step would cost more than the loop."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return (self.global_step + 1) % every == 0
