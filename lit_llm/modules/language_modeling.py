"""Next-token training."""

import math
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import AdamW
from torchmetrics import MeanMetric

from lit_llm.backbone import GPT
from lit_llm.backbone.context import Context
from lit_llm.batch import IGNORE_INDEX, Batch, PackedBatch
from lit_llm.modules.base import BaseModule
from lit_llm.training.losses import HeadLoss


class LanguageModeling(BaseModule):
    """Trains a backbone to predict the next token.

    Args:
        backbone: The network.
        loss: Loss of (N, V) logits against (N,) targets, summed over the targets that are not -100; one of torch's is
            told to sum. A `HeadLoss` (lit_llm.training.losses) is called with hidden states and the output matrix.
        optimizer: Called with named parameter groups; weight decay reaches matrices and embeddings only.
        lr_scheduler: Called with the optimizer; stepped after each optimizer step. None: constant rates.
        compile: Whether `torch.compile` makes kernels of the blocks: minutes at the start for faster steps on a GPU.
        activation_checkpointing: Whether a block keeps nothing but its input for the backward pass and computes the
            rest again there (Chen et al., 2016, https://arxiv.org/abs/1604.06174): a third more time, less memory.
        init_from: Weights to start from: a model of the Hugging Face hub (`openai-community/gpt2`), a folder of one, or
            a checkpoint of any task. On the command line architecture and tokenizer come from there as well. A run
            that goes on (--ckpt_path) reads nothing there. None: random weights.

    Raises:
        ValueError: If the loss is a `HeadLoss` and the backbone's head does more than multiply.
    """

    def __init__(
        self,
        backbone: GPT,
        loss: Callable[[], nn.Module] = nn.CrossEntropyLoss,
        optimizer: OptimizerCallable = AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        compile: bool = False,
        activation_checkpointing: bool = False,
        init_from: str | None = None,
    ) -> None:
        super().__init__(backbone, optimizer, lr_scheduler, compile, activation_checkpointing, init_from)
        made: Any = loss()
        if hasattr(made, "reduction"):
            made.reduction = "sum"  # the mean is over all targets of an optimizer step, of which a batch is a part
        if isinstance(made, HeadLoss):
            backbone.output_matrix()  # which not every head has
        self.loss = made
        # Of the held-out tokens, each with the same weight. NaN shows, instead of being left out.
        self.mean_loss = MeanMetric(nan_strategy="disable")

    def forward(self, batch: Batch | PackedBatch) -> Tensor:
        """Maps a batch to its (B, T, V) logits."""
        return self.backbone(batch.idx, _context(batch))

    def training_step(self, batch: Batch | PackedBatch, batch_idx: int) -> Tensor:
        """What a batch adds to the mean loss of its optimizer step."""
        total = self.total_loss(batch)
        return self.share_of_step(total, (batch.targets != IGNORE_INDEX).sum(), batch_idx)

    def total_loss(self, batch: Batch | PackedBatch) -> Tensor:
        """The training loss, summed over the targets of a batch."""
        targets = batch.targets.flatten()
        if isinstance(self.loss, HeadLoss):
            hidden = self.backbone.hidden_states(batch.idx, _context(batch)).flatten(0, 1)
            return self.loss(hidden, self.backbone.output_matrix(), targets)
        return self.loss(self(batch).flatten(0, 1), targets)

    def validation_step(self, batch: Batch | PackedBatch, batch_idx: int) -> None:
        """Add a batch to the mean loss."""
        losses = self._token_losses(batch)  # (B, T)
        # Chosen, not weighted: torchmetrics 1.9 drops the weights where it lets NaN through.
        self.mean_loss.update(losses[batch.targets != IGNORE_INDEX])

    def on_validation_epoch_end(self) -> None:
        """Log the mean loss of the validation text, and what follows from it."""
        self._log_mean_loss("val")

    def test_step(self, batch: Batch | PackedBatch, batch_idx: int) -> None:
        """Add a batch to the mean loss."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the mean loss of the test text, and what follows from it."""
        self._log_mean_loss("test")

    def predict_step(self, batch: Batch | PackedBatch, batch_idx: int) -> Tensor:
        """(B, T) log-probability of each target; 0 where a target carries no loss."""
        return -self._token_losses(batch)

    def _token_losses(self, batch: Batch | PackedBatch) -> Tensor:
        logits = self(batch)
        losses = F.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten(), reduction="none")
        return losses.view_as(batch.targets)  # nats, whatever the training loss is

    def _log_mean_loss(self, split: str) -> None:
        loss = self.mean_loss.compute()
        self.mean_loss.reset()
        values = {f"{split}/loss": loss, f"{split}/perplexity": loss.exp()}
        data = getattr(self.trainer, "datamodule", None)
        if data is not None and (bytes_per_token := data.bytes_per_token(split)):
            values[f"{split}/bits_per_byte"] = loss / math.log(2) / bytes_per_token
        self.log_dict(values, prog_bar=True, sync_dist=True)  # equal on all ranks already; Lightning cannot know


def _context(batch: Batch | PackedBatch) -> Context | None:
    return Context(batch.documents) if isinstance(batch, PackedBatch) else None
