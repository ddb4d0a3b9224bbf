"""Optimizer steps in which each target weighs the same, however batches and devices divide them."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_
from torch.optim import Optimizer

from lit_llm.batch import Batch, as_batch
from lit_llm.modules.found_rate import FoundRate
from lit_llm.training.parallel import gradient_norm
from lit_llm.training.tensor_parallel import Split


class WeightedSteps(FoundRate):
    """What a module does between a batch's loss and the optimizer: weigh, measure, refuse, clip."""

    logs: tuple[str, ...] = ("train/loss", "train/gradient_norm")  # what a training logs: names that can be monitored

    def __init__(self) -> None:
        super().__init__()
        self._sums = torch.zeros(2)  # losses and targets of an optimizer step
        self._divisor: Tensor | None = None  # of the gradients after this backward pass
        self.splits: dict[str, Split] = {}  # how tensor parallelism has divided what, by name

    batch_kind: type = Batch  # of which a plain pair is one

    def _on_before_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Name the parts of a plain pair before anybody looks at it; the public hook would displace the data's."""
        return super()._on_before_batch_transfer(as_batch(batch, self.batch_kind), dataloader_idx)

    @torch.compiler.disable  # `self.log` cannot be compiled, should somebody compile the whole module
    def share_of_step(self, total: Tensor, count: Tensor, batch_idx: int) -> Tensor:
        """What a batch adds to the mean loss of its optimizer step, in which each target weighs the same.

        Lightning divides by the batches of a step and averages over the ranks, whatever each of them holds
        (https://github.com/Lightning-AI/pytorch-lightning/issues/20350); here both are undone. Of several batches, how
        many targets they have together is known after the last one: `on_after_backward` divides by it.

        Args:
            total: Sum of the losses of the batch, each times the weight of its target.
            count: Number of its targets, or the sum of their weights.
            batch_idx: Number of the batch in its epoch.
        """
        batches, ranks = self.trainer.accumulate_grad_batches, self.trainer.world_size
        own = torch.stack([total.detach(), count.to(total.dtype)])
        self._sums = own if batch_idx % batches == 0 else self._sums + own
        self._divisor = None
        if (batch_idx + 1) % batches and not self.trainer.is_last_batch:
            return total * (batches * ranks)
        if ranks > 1:
            torch.distributed.all_reduce(self._sums)
        if self.logs_now:
            self.log("train/loss", self.step_loss, prog_bar=True)
        if batches == 1:
            return total * (ranks / self._weight)
        self._divisor = self._weight
        return total * (batches * ranks)

    def on_after_backward(self) -> None:
        """Divide the gradients of several batches by all their targets."""
        if self._divisor is not None:
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad.div_(self._divisor)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Log the norm of the gradients, refuse what would ruin the weights, and clip: one pass for all three.

        Raises:
            FloatingPointError: If the loss or a gradient is infinite or NaN; nothing has been updated yet.
        """
        norm = self.gradient_norm()
        if self.logs_now:
            self.log("train/gradient_norm", norm)
        leaves_out = self.trainer.scaler is not None  # of float16: such a step is left out, and the scale lowered
        if not (leaves_out or torch.isfinite(norm + self._sums[0])):
            raise FloatingPointError(
                f"the loss is {self.step_loss:.4g} and the norm of the gradients {norm:.4g} at step "
                f"{self.global_step + 1}; the weights were not updated"
            )
        if gradient_clip_val and gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            clip_grads_with_norm_(self.parameters(), gradient_clip_val, norm)

    @property
    def step_loss(self) -> Tensor:
        """Mean loss over the targets of this optimizer step, on all devices; known once its gradients are."""
        return self._sums[0] / self._weight

    @property
    def _weight(self) -> Tensor:
        """What the losses of this optimizer step are divided by."""
        count = self._sums[1]
        return torch.where(count > 0, count, 1)  # none: a loss of 0, where a mean would be NaN

    @property
    def logs_now(self) -> bool:
        """Whether this step's values reach the logger; `self.log` on every step would cost more than the loop."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return (self.global_step + 1) % every == 0

    def gradient_norm(self) -> Tensor:
        """Euclidean norm of all gradients, on all devices that share the network."""
        mesh = self.device_mesh["tensor_parallel"] if self.splits and self.device_mesh is not None else None
        return gradient_norm(self.named_parameters(), self.splits, mesh)
