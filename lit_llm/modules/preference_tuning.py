"""Preference tuning: of two answers to one prompt, the preferred one shall be the likelier."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection

from lit_llm.backbone import GPT
from lit_llm.batch import IGNORE_INDEX, PreferenceBatch
from lit_llm.modules.base import BaseModule
from lit_llm.training.losses import token_losses
from lit_llm.training.preference_losses import DPO, Pairs, PreferenceLoss

MEANS = ("loss", "reward_accuracy", "reward_margin", "reward_chosen", "reward_rejected")


class PreferenceTuning(BaseModule):
    """Trains a backbone to prefer the chosen answers of pairs to the rejected ones.

    The reference is the model as it was when the training began. What it says of each answer is computed once, before
    the first step, and kept in the checkpoints: it takes neither memory nor time afterwards.

    Args:
        backbone: The network.
        loss: Loss of the pairs: `DPO`, `IPO`, `SimPO`, `ORPO` (lit_llm.training.preference_losses), yours.
        **kwargs: Those of `BaseModule`.
    """

    batch_kind = PreferenceBatch
    logs = (*BaseModule.logs, *(f"train/{name}" for name in MEANS[1:]), *(f"val/{name}" for name in MEANS))

    def __init__(self, backbone: GPT, loss: Callable[[], PreferenceLoss] = DPO, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.loss = loss()
        self.reference: Tensor | None = None  # (pairs, 2): log-probabilities of chosen and rejected, by row
        self.reference_of: str | None = None  # which pairs these are
        self.means = MetricCollection({name: MeanMetric(nan_strategy="disable") for name in MEANS})

    def forward(self, batch: PreferenceBatch) -> Tensor:
        """Maps a batch to the (2B,) log-probabilities of its answers, in nats; first those of the chosen ones."""
        return -token_losses(self.backbone(batch.idx), batch.targets).sum(dim=1)

    def on_fit_start(self) -> None:
        """Say what trains; ask the reference, unless a checkpoint has brought what it said.

        Raises:
            ValueError: If a checkpoint has brought what it said of other pairs.
        """
        super().on_fit_start()
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.loss.needs_reference and self.reference is None:
            self.reference = self._ask(data.pairs_dataloader(), data.num_pairs)
            self.reference_of = data.pairs_fingerprint
        self._refuse_other_pairs()

    def on_validation_start(self) -> None:
        """Refuse pairs of which the reference has not spoken."""
        self._refuse_other_pairs()

    def on_test_start(self) -> None:
        """Refuse pairs of which the reference has not spoken."""
        self._refuse_other_pairs()

    def _refuse_other_pairs(self) -> None:
        """Refuse other pairs than those of which the reference has spoken: rows would be mixed up."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.reference is not None and self.reference_of != data.pairs_fingerprint:
            raise ValueError(
                f"the checkpoint holds what the reference says of {len(self.reference):,} pairs, and the data has "
                f"{data.num_pairs:,}, which are others; use the data of that run (source, template, block_size)"
            )

    @torch.no_grad()
    def _ask(self, batches: Iterable[PreferenceBatch], num_pairs: int) -> Tensor:
        """Log-probabilities (pairs, 2) under the present weights; each rank reads its share of the pairs."""
        if self.trainer.is_global_zero:
            print(f"asking the reference model for its log-probabilities of {num_pairs:,} pairs", file=sys.stderr)
        said = torch.zeros(num_pairs, 3, device=self.device)  # chosen, rejected, and how many ranks have said it
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        for batch in batches:
            batch = move_data_to_device(batch, self.device)
            with self.trainer.precision_plugin.forward_context():
                found = self(batch).float().view(2, -1).T  # (B, 2)
            real = (batch.targets != IGNORE_INDEX).any(dim=1).view(2, -1).all(dim=0)  # (B,)
            said[batch.rows[real]] = F.pad(found[real], (0, 1), value=1.0)
        for module, mode in modes:
            module.training = mode
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(said)
        return said[:, :2] / said[:, 2:]  # ranks that share each matrix product have all said the same

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the reference said: a run that goes on no longer has it."""
        super().on_save_checkpoint(checkpoint)
        if self.reference is not None:
            checkpoint["reference"], checkpoint["reference_of"] = self.reference.cpu(), self.reference_of

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the reference of the beginning."""
        super().on_load_checkpoint(checkpoint)
        if (said := checkpoint.get("reference")) is not None:
            self.reference, self.reference_of = said.to(self.device), checkpoint.get("reference_of")

    def training_step(self, batch: PreferenceBatch, batch_idx: int) -> Tensor:
        """What a batch adds to the mean loss of its optimizer step."""
        pairs = self._pairs(batch)
        losses = self.loss(pairs)
        if self.logs_now:
            means = {name: values.mean() for name, values in self._measures(pairs).items()}
            self.log_dict({f"train/{name}": mean for name, mean in means.items()})
        return self.share_of_step(losses.sum(), torch.tensor(len(losses), device=losses.device), batch_idx)

    def validation_step(self, batch: PreferenceBatch, batch_idx: int) -> None:
        """Add a batch to the means."""
        pairs = self._pairs(batch)
        values = {"loss": self.loss(pairs), **self._measures(pairs)}
        for name, metric in self.means.items(keep_base=True):
            metric.update(values[str(name)])

    def test_step(self, batch: PreferenceBatch, batch_idx: int) -> None:
        """Add a batch to the means."""
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the means over the validation pairs."""
        self._log_means("val")

    def on_test_epoch_end(self) -> None:
        """Log the means over the test pairs."""
        self._log_means("test")

    def _log_means(self, split: str) -> None:
        for name, value in self.means.compute().items():
            # Equal on all ranks already; Lightning cannot know.
            self.log(f"{split}/{name}", value, prog_bar=name == "loss", sync_dist=True)
        self.means.reset()

    def _pairs(self, batch: PreferenceBatch) -> Pairs:
        """What is known of a batch; without the pairs that only fill it up."""
        tokens = (batch.targets != IGNORE_INDEX).sum(dim=1).view(2, -1)  # (2, B)
        real = (tokens > 0).all(dim=0)
        chosen, rejected = self(batch).view(2, -1)[:, real]
        if not self.loss.needs_reference:
            return Pairs(chosen, rejected, *tokens[:, real].unbind())
        if self.reference is None:
            raise ValueError(
                "what the reference says of these pairs is not known; give a checkpoint of the run (--ckpt_path)"
            )
        said = self.reference.to(chosen.device)[batch.rows[real]]  # (B, 2)
        return Pairs(chosen, rejected, *tokens[:, real].unbind(), *said.unbind(dim=1))

    def _measures(self, pairs: Pairs) -> dict[str, Tensor]:
        """What is logged beside the loss, for each pair."""
        chosen, rejected = (reward.detach() for reward in self.loss.rewards(pairs))
        return {
            "reward_accuracy": (chosen > rejected).to(chosen.dtype),
            "reward_margin": chosen - rejected,
            "reward_chosen": chosen,
            "reward_rejected": rejected,
        }
