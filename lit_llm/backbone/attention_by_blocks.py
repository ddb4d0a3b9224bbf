"""Attention for CPUs: plain products, a block of queries at a time, and scores that no backward pass has to keep."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 128  # queries: of the scores above the diagonal, only those within a block are computed in vain


class AttentionByBlocks(torch.autograd.Function):
    """Causal attention of q over k and v, all (B, H, T, D) of one dtype, under a mask: (T, T), (B, 1, T, T) or none.

    As in FlashAttention (Dao et al., 2022, https://arxiv.org/abs/2205.14135), the backward pass computes the scores
    again, so that memory grows with T; unlike there, a block has all its keys at once, and a library multiplies.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        """Maps q, k, v to (B, H, T, D), which lies in memory as (B, T, H, D)."""
        heads, (T, D) = q.shape[:2], q.shape[2:]
        q, k, v = (x.reshape(-1, T, D) for x in (q * scale, k, v))
        out = v.new_empty(heads[0], T, heads[1], D).transpose(1, 2)  # the layer joins the heads without a copy
        for rows, keys in _blocks(T):
            weights = _weights(q[:, rows], k[:, keys], heads, mask, rows)
            out[:, :, rows] = (weights @ v[:, keys]).unflatten(0, heads)
        ctx.save_for_backward(q, k, v, mask)
        ctx.heads, ctx.scale = heads, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients by q, k and v."""
        q, k, v, mask = ctx.saved_tensors
        d_out = d_out.reshape(q.shape)
        d_q = torch.empty_like(q)
        wide = torch.promote_types(v.dtype, torch.float32)
        d_k, d_v = (torch.zeros_like(x, dtype=wide) for x in (k, v))  # sums over blocks
        for rows, keys in _blocks(q.shape[1]):
            weights = _weights(q[:, rows], k[:, keys], ctx.heads, mask, rows)
            d_v[:, keys] += weights.transpose(1, 2) @ d_out[:, rows]
            d_scores = (d_out[:, rows] @ v[:, keys].transpose(1, 2)).mul_(weights)
            d_scores.addcmul_(weights, d_scores.sum(dim=-1, keepdim=True), value=-1)  # of the softmax
            d_q[:, rows] = d_scores @ k[:, keys]
            d_k[:, keys] += d_scores.transpose(1, 2) @ q[:, rows]
        d_q, d_k, d_v = (d.to(q.dtype).unflatten(0, ctx.heads) for d in (d_q.mul_(ctx.scale), d_k, d_v))
        return d_q, d_k, d_v, None, None


def _blocks(length: int) -> list[tuple[slice, slice]]:
    """Queries of each block, and the keys that they may see."""
    return [(slice(start, start + BLOCK), slice(start + BLOCK)) for start in range(0, length, BLOCK)]


def _weights(q: Tensor, k: Tensor, heads: torch.Size, mask: Tensor | None, rows: slice) -> Tensor:
    """Softmax of the scores of queries (B H, rows, D) by keys (B H, S, D), S the end of the rows."""
    scores = q @ k.transpose(1, 2)
    never = torch.finfo(scores.dtype).min  # finite: a query that may see nothing gets the mean of all, and not NaN
    if mask is None:
        above = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).triu(1)
        scores[:, :, rows].masked_fill_(above, never)
    else:
        scores.unflatten(0, heads).masked_fill_(~mask[..., rows, : rows.stop], never)
    return torch.softmax(scores, dim=-1, out=scores)  # where they lie: half the memory, one pass less
