"""Two parts of our own: a norm without a mean or a scale, and an attention whose heads forget at different rates."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_llm.backbone.context import Context


class PNorm(nn.Module):
    """Divides by the p-norm of the channels instead of their root mean square.

    Args:
        n_embd: Width of the last axis.
        p: Order of the norm; 2 is RMSNorm without a learned scale.
        eps: Added to the norm.
    """

    def __init__(self, n_embd: int, p: float = 2.0, eps: float = 1e-5) -> None:
        super().__init__()
        self.p, self.eps = p, eps

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., C) to (..., C)."""
        norm = x.abs().pow(self.p).mean(dim=-1, keepdim=True).pow(1 / self.p)
        return x / (norm + self.eps)


class DecayingAttention(nn.Module):
    """Causal attention with a linear penalty on distance, a slope for each head (ALiBi, https://arxiv.org/abs/2108.12409).

    Args:
        n_embd: Width C of the residual stream.
        n_head: Heads H.
        steepest: Slope of the first head; each next head's is half of it.
    """

    def __init__(self, n_embd: int, n_head: int, steepest: float = 0.5) -> None:
        super().__init__()
        self.n_head = n_head
        self.qkv = nn.Linear(n_embd, 3 * n_embd, bias=False)
        self.proj = nn.Linear(n_embd, n_embd, bias=False)
        self.register_buffer("slopes", steepest * 0.5 ** torch.arange(n_head), persistent=False)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """Maps (B, T, C) to (B, T, C)."""
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        steps = torch.arange(T, device=x.device)
        distance = steps[:, None] - steps  # (T, T)
        bias = -self.slopes[:, None, None] * distance.masked_fill(distance < 0, torch.iinfo(torch.int32).max)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.proj(y.transpose(1, 2).reshape(B, T, C))
