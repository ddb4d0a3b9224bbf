"""Losses that torch lacks: such as multiply by the output matrix themselves. Everything here knows torch alone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lit_llm.batch import IGNORE_INDEX

OfChunk = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]  # logits, targets, V; losses, gradient
CHUNK_SIZES = {"cpu": 512}  # targets; other devices: 8192


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
    """Cross-entropy for large vocabularies: the logits of some targets at a time, never all of them.

    The gradient is made along with the loss, chunk by chunk, so that no logits wait for the backward pass (the idea of
    Liger Kernel, Hsu et al., 2024, https://arxiv.org/abs/2410.10989). Loss and gradients are those of
    `torch.nn.CrossEntropyLoss` to rounding. Torch's own `linear_cross_entropy` (2.13) does the same in fp32, in more
    memory; under autocast it multiplies in fp32, and with smoothed labels it holds all logits.

    Args:
        chunk_size: Targets of a chunk: (chunk_size, V) logits are held at once, in fp32 unless compiled. Smaller saves
            memory, larger keeps a GPU busy. None: 512 on a CPU, 8192 on a GPU.
        label_smoothing: Share of each target that is spread over the vocabulary, in [0, 1].

    Raises:
        ValueError: If `chunk_size` is below 1, or `label_smoothing` outside [0, 1].
    """

    def __init__(self, chunk_size: int | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size {chunk_size} cannot be: a chunk has at least 1 target")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing {label_smoothing} is no share of a target; it lies in [0, 1]")
        self.chunk_size, self.label_smoothing = chunk_size, label_smoothing
        self.of_chunk = _losses_and_gradients

    def forward(self, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """Maps (N, C) hidden states, (V, C) output matrix, (N,) targets to the sum over targets that are not -100."""
        chunk_size = self.chunk_size or CHUNK_SIZES.get(hidden.device.type, 8192)
        of_chunk = partial(self.of_chunk, label_smoothing=self.label_smoothing)
        return _ChunkedCrossEntropy.apply(hidden, weight, targets, chunk_size, of_chunk)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Make one kernel of what happens to the logits of a chunk; the products remain those of the libraries."""
        self.of_chunk = torch.compile(_losses_and_gradients, *args, **kwargs)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Products in the dtype of autocast, everything else in fp32."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk_size: int, of_chunk: OfChunk
    ) -> Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        x, matrix = hidden.to(dtype), _padded(weight.to(dtype))
        wide = torch.promote_types(dtype, torch.float32)
        total = x.new_zeros((), dtype=wide)
        d_hidden = torch.empty_like(x)
        d_matrix = torch.zeros_like(matrix, dtype=wide) if ctx.needs_input_grad[1] else None
        chunks = (x.split(chunk_size), targets.split(chunk_size), d_hidden.split(chunk_size))
        for x_chunk, target, d_chunk in zip(*chunks, strict=True):
            losses, d_logits = of_chunk(x_chunk @ matrix.T, target, len(weight))
            total += losses.sum()
            torch.mm(d_logits, matrix, out=d_chunk)
            if d_matrix is not None and dtype == wide:
                d_matrix.addmm_(d_logits.T, x_chunk)
            elif d_matrix is not None:
                d_matrix += d_logits.T @ x_chunk
        d_weight = None if d_matrix is None else d_matrix[: len(weight)]
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


def _padded(matrix: Tensor) -> Tensor:
    """The (V, C) matrix; on a GPU with rows of 0 up to a multiple of 64, for it has no fast products of odd sizes."""
    missing = 0 if matrix.device.type == "cpu" else -len(matrix) % 64
    return F.pad(matrix, (0, 0, 0, missing)) if missing else matrix


def _losses_and_gradients(
    logits: Tensor, targets: Tensor, vocab_size: int, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Cross-entropy (n, 1) of each row of (n, V or more) logits, and its gradient by them: in their memory, if fp32.

    What lies behind `vocab_size` has no part in it, and a gradient of 0.
    """
    kept = (targets != IGNORE_INDEX)[:, None]  # (n, 1)
    index = targets.clamp(min=0)[:, None]
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.shape[-1] > vocab_size:
        scores[:, vocab_size:] = -torch.inf
    log_p = torch.log_softmax(scores, dim=-1, out=scores)  # where they lie
    of_target = log_p.gather(1, index)
    expected = (1 - label_smoothing) * of_target
    uniform = label_smoothing / vocab_size
    if label_smoothing:
        expected += label_smoothing * log_p[:, :vocab_size].mean(dim=-1, keepdim=True)
    losses = torch.where(kept, -expected, 0)
    # Softmax minus what the targets say; at the target, where the two are close, in fp32 until they are subtracted.
    at_target = of_target.exp() + (label_smoothing - 1 - uniform)
    gradients = log_p.exp_()
    if label_smoothing:
        gradients[:, :vocab_size] -= uniform
    gradients = gradients.masked_fill_(~kept, 0).to(logits.dtype)
    return losses, gradients.scatter_(1, index, at_target.masked_fill_(~kept, 0).to(logits.dtype))
