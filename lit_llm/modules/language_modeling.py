"""Next-token training."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torchmetrics import MeanMetric

from lit_llm.backbone import GPT
from lit_llm.backbone.context import Context
from lit_llm.batch import IGNORE_INDEX, Batch, PackedBatch
from lit_llm.modules.base import BaseModule
from lit_llm.training.losses import HeadLoss, token_losses


class LanguageModeling(BaseModule):
    """Trains a backbone to predict the next token.

    Args:
        backbone: The network.
        loss: Loss of (N, V) logits against (N,) targets, summed over the targets that are not -100; one of torch's is
            told to sum. A `HeadLoss` (lit_llm.training.losses) is called with hidden states and the output matrix.
        **kwargs: Those of `BaseModule`.

    Raises:
        ValueError: If the loss is a `HeadLoss` and the backbone's head does more than multiply.
    """

    logs = (*BaseModule.logs, "val/loss", "val/perplexity", "val/bits_per_byte")

    def __init__(
        self,
        backbone: GPT,
        loss: Callable[[], nn.Module] = nn.CrossEntropyLoss,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        made: Any = loss()
        if hasattr(made, "reduction"):
            made.reduction = "sum"  # the mean is over all targets of an optimizer step, of which a batch is a part
        if isinstance(made, HeadLoss):
            backbone.output_matrix()  # which not every head has
        self.loss = made
        # Of the held-out tokens, each with the same weight. NaN shows, instead of being left out.
        self.mean_loss = MeanMetric(nan_strategy="disable")

    def compile_parts(self) -> None:
        """Compile the loss as well."""
        super().compile_parts()
        self.loss.compile()

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
        self._update(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the mean loss of the validation text, and what follows from it."""
        self._log_means("val")

    def test_step(self, batch: Batch | PackedBatch, batch_idx: int) -> dict[str, list]:
        """Add a batch to the mean loss; columns of `test_items.csv`, with a line for each row that has a target.

        Rows that bring no numbers of their own are numbered as they come in the test text, on however many devices.
        """
        losses = self._update(batch)
        tokens = (batch.targets != IGNORE_INDEX).sum(dim=1).tolist()
        data, place = getattr(self.trainer, "datamodule", None), self.trainer.distributed_sampler_kwargs
        rank, ranks = (place["rank"], place["num_replicas"]) if place else (0, 1)
        first = (batch_idx * ranks + rank) * (len(tokens) if data is None else data.batch_size)
        rows = getattr(batch, "rows", None)
        numbers = range(first, first + len(tokens)) if rows is None else rows.tolist()
        kept = [row for row in zip(numbers, losses.sum(dim=1).tolist(), tokens, strict=True) if row[2]]
        return {name: [row[number] for row in kept] for number, name in enumerate(("id", "loss", "tokens"))}

    def on_test_epoch_end(self) -> None:
        """Log the mean loss of the test text, and what follows from it."""
        self._log_means("test")

    def predict_step(self, batch: Batch | PackedBatch, batch_idx: int) -> Tensor:
        """(B, T) log-probability of each target; 0 where a target carries no loss."""
        return -token_losses(self(batch), batch.targets)

    def _update(self, batch: Batch | PackedBatch) -> Tensor:
        return self._judge(self(batch), batch.targets)

    def _judge(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Add predictions to the mean loss; their (B, T) losses in nats, whatever the training loss is."""
        losses = token_losses(logits, targets)
        # Chosen, not weighted: torchmetrics 1.9 drops the weights where it lets NaN through.
        self.mean_loss.update(losses[targets != IGNORE_INDEX])
        return losses

    def _log_means(self, split: str) -> None:
        # Equal on all ranks already; Lightning cannot know.
        self.log_dict(self._means(split), prog_bar=True, sync_dist=True)

    def _means(self, split: str) -> dict[str, Tensor]:
        """What is logged of a split, by name; what was summed up begins anew."""
        loss = self.mean_loss.compute()
        self.mean_loss.reset()
        values = {f"{split}/loss": loss, f"{split}/perplexity": loss.exp()}
        data = getattr(self.trainer, "datamodule", None)
        if data is not None and (bytes_per_token := data.bytes_per_token(split)):
            values[f"{split}/bits_per_byte"] = loss / math.log(2) / bytes_per_token
        return values


def _context(batch: Batch | PackedBatch) -> Context | None:
    return Context(batch.documents) if isinstance(batch, PackedBatch) else None
