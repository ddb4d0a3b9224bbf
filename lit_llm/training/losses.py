"""Losses that torch lacks: such as multiply by the output matrix themselves. Everything here knows torch alone."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lit_llm.batch import IGNORE_INDEX


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Maps (B, T, V) logits and (B, T) targets to the (B, T) cross-entropy of each in nats; 0 where there is none."""
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    return losses.view_as(targets)


class HeadLoss(nn.Module):
    """A loss that contains the output layer: called with hidden states and the output matrix instead of logits."""

    def forward(self, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """Maps (N, C) hidden states, (V, C) output matrix, (N,) targets to the sum over targets that are not -100."""
        raise NotImplementedError


class LinearCrossEntropy(HeadLoss):
    """Cross-entropy for large vocabularies: the logits of a few targets at a time, never all of them.

    The gradient is made along with the loss, chunk by chunk, so that no logits wait for the backward pass (the idea of
    Liger Kernel, Hsu et al., 2024, https://arxiv.org/abs/2410.10989). Loss and gradients are those of
    `torch.nn.CrossEntropyLoss` to rounding. Torch's own `linear_cross_entropy` (2.13) does the same in fp32, in more
    memory; under autocast it multiplies in fp32, and with smoothed labels it holds all logits.

    Args:
        chunk_size: Targets of a chunk: (chunk_size, V) logits in fp32 are held at once. Smaller saves memory, larger
            keeps a GPU busy.
        label_smoothing: Share of each target that is spread over the vocabulary, in [0, 1].

    Raises:
        ValueError: If `chunk_size` is below 1, or `label_smoothing` outside [0, 1].
    """

    def __init__(self, chunk_size: int = 512, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if chunk_size < 1:
            raise ValueError(f"chunk_size {chunk_size} cannot be: a chunk has at least 1 target")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing {label_smoothing} is no share of a target; it lies in [0, 1]")
        self.chunk_size, self.label_smoothing = chunk_size, label_smoothing

    def forward(self, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """Maps (N, C) hidden states, (V, C) output matrix, (N,) targets to the sum over targets that are not -100."""
        return _ChunkedCrossEntropy.apply(hidden, weight, targets, self.chunk_size, self.label_smoothing)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Products in the dtype of autocast, everything else in fp32."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk_size: int, label_smoothing: float
    ) -> Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        x, matrix = hidden.to(dtype), weight.to(dtype)
        wide = torch.promote_types(dtype, torch.float32)
        total = x.new_zeros((), dtype=wide)
        d_hidden = torch.empty_like(x)
        d_weight = torch.zeros_like(matrix, dtype=wide) if ctx.needs_input_grad[1] else None
        chunks = (range(0, len(x), chunk_size), x.split(chunk_size), targets.split(chunk_size))
        for start, x_chunk, target in zip(*chunks, strict=True):
            losses, d_logits = _losses_and_gradients((x_chunk @ matrix.T).to(wide), target, label_smoothing)
            total += losses.sum()
            d_logits = d_logits.to(dtype)
            d_hidden[start : start + chunk_size] = d_logits @ matrix
            if d_weight is not None and dtype == wide:
                d_weight.addmm_(d_logits.T, x_chunk)
            elif d_weight is not None:
                d_weight += d_logits.T @ x_chunk
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_total: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        # The matrix's gradient is as large as the matrix, so it is scaled in place; autograd notices a second pass.
        d_weight = None if d_weight is None else d_weight.mul_(d_total).to(ctx.dtypes[1])
        return (d_hidden * d_total).to(ctx.dtypes[0]), d_weight, None, None, None


def _losses_and_gradients(logits: Tensor, targets: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each row of (n, V) logits, and its gradient by them, which takes their place in memory."""
    kept = (targets != IGNORE_INDEX)[:, None]  # (n, 1)
    index = targets.clamp(min=0)[:, None]
    normalizer = logits.logsumexp(dim=-1, keepdim=True)
    expected = (1 - label_smoothing) * logits.gather(1, index)
    if label_smoothing:
        expected += label_smoothing * logits.mean(dim=-1, keepdim=True)
    losses = torch.where(kept, normalizer - expected, 0)  # (n, 1)
    gradients = logits.sub_(normalizer).exp_()  # softmax, minus what the targets say:
    gradients.scatter_add_(1, index, torch.full_like(normalizer, label_smoothing - 1))
    if label_smoothing:
        gradients -= label_smoothing / logits.shape[-1]
    return losses, gradients.masked_fill_(~kept, 0)
