"""The parts of a block: attention, MLPs, a norm; and the two ends of the network: embedding and head.

Each part is an ordinary `nn.Module` that GPT receives as a factory; torch's own classes fit as they are
(`torch.nn.LayerNorm`, `torch.nn.RMSNorm`, `torch.nn.GELU`).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lit_llm.backbone.attention_kernels import attend
from lit_llm.backbone.context import Context as Context
from lit_llm.backbone.rotary import Rotary

NormFactory = Callable[[int], nn.Module]  # width
ActivationFactory = Callable[[], nn.Module]
RotaryFactory = Callable[[int], Rotary]  # head_dim


def again_if(applies: bool, function: Callable[..., Tensor], *args: Any) -> Tensor:
    """The function of its arguments; if it applies, the backward pass keeps those alone and computes the rest again."""
    if not applies or not torch.is_grad_enabled():
        return function(*args)
    return checkpoint(function, *args, use_reentrant=False)


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention, with as many key-value heads as asked for.

    Vaswani et al., 2017 (https://arxiv.org/abs/1706.03762); grouped queries: Ainslie et al., 2023
    (https://arxiv.org/abs/2305.13245); query-key norm: Henry et al., 2020 (https://arxiv.org/abs/2010.04245).

    Args:
        n_embd: Width C of the residual stream.
        n_head: Query heads H.
        n_kv_head: Key-value heads; a divisor of n_head. None: n_head.
        head_dim: Channels D of a head. None: n_embd / n_head.
        qkv_bias: Whether queries, keys and values have a bias.
        out_bias: Whether the output projection has a bias.
        qk_norm: Norm of queries and keys, per head, over head_dim. None: no norm.
        rotary: Rotary positions, applied to queries and keys. None: none.
        window: How many tokens a query sees, itself included. None: all before it.
        scale: Factor of the scores. None: 1 / sqrt(head_dim).
        softcap: Bound of the scores through softcap * tanh(scores / softcap). None: no bound.
        dropout: Probability with which an attention weight is dropped in training.

    Raises:
        ValueError: If n_embd is not divisible by n_head and head_dim is not given, or n_head not by n_kv_head;
            if head_dim or window is below 1, or dropout outside [0, 1].
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        n_kv_head: int | None = None,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        out_bias: bool = True,
        qk_norm: NormFactory | None = None,
        rotary: RotaryFactory | None = None,
        window: int | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        n_kv_head = n_head if n_kv_head is None else n_kv_head
        if head_dim is None and n_embd % n_head:
            raise ValueError(f"n_embd {n_embd} is not divisible by n_head {n_head}; change one of them or set head_dim")
        if n_kv_head < 1 or n_head % n_kv_head:
            raise ValueError(f"n_head {n_head} is not divisible by n_kv_head {n_kv_head}; choose a divisor")
        if head_dim is not None and head_dim < 1:
            raise ValueError(f"head_dim {head_dim} cannot be: a head has at least 1 channel")
        if window is not None and window < 1:
            raise ValueError(f"window {window} sees nothing; it counts the tokens a query sees, itself included")
        self.head_dim = n_embd // n_head if head_dim is None else head_dim
        self.n_channels = n_head * self.head_dim  # of all heads, which may be more or fewer than n_embd
        self.sizes = [n_head * self.head_dim, n_kv_head * self.head_dim, n_kv_head * self.head_dim]
        self.qkv = nn.Linear(n_embd, sum(self.sizes), bias=qkv_bias)
        self.proj = nn.Linear(self.sizes[0], n_embd, bias=out_bias)
        self.q_norm = qk_norm(self.head_dim) if qk_norm else None
        self.k_norm = qk_norm(self.head_dim) if qk_norm else None
        self.rotary = rotary(self.head_dim) if rotary else None
        self.window, self.softcap, self.dropout = window, softcap, nn.Dropout(dropout)
        self.scale = self.head_dim**-0.5 if scale is None else scale

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """Maps (B, T, C) to (B, T, C)."""
        context = context or Context()
        B, T, _ = x.shape
        q, k, v = (
            part.view(B, T, -1, self.head_dim).transpose(1, 2)  # (B, heads, T, D)
            for part in self.qkv(x).split(self.sizes, dim=-1)
        )
        if self.q_norm is not None and self.k_norm is not None:
            # In the dtype of x: autocast makes q and k bfloat16, and an fp32 RMSNorm of bfloat16 has no fused kernel.
            q, k = self.normed(q.to(x.dtype), self.q_norm), self.normed(k.to(x.dtype), self.k_norm)
            q, k = q.to(v.dtype), k.to(v.dtype)
        rotation, mask = self.tables(context, T, x.device)
        if self.rotary is not None:
            q, k = self.rotary(q, *rotation), self.rotary(k, *rotation)
        k, v = context.remember(self, k, v, self.window)
        y = attend(q, k, v, mask, self.scale, self.softcap, self.dropout.p if self.training else 0.0)
        return self.proj(y.transpose(1, 2).reshape(B, T, -1))

    def normed(self, x: Tensor, norm: nn.Module) -> Tensor:
        """Maps queries or keys (B, H, T, D) to (B, H, T, D)."""
        return norm(x)

    def tables(self, context: Context, length: int, device: torch.device) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """The rotation (nothing without rotary positions) and the mask of a forward pass, made once for all layers."""
        rotation = () if self.rotary is None else context.rotation(self.rotary, length, device)
        return rotation, context.mask(length, self.window, device)


class WideNormAttention(CausalSelfAttention):
    """Attention whose query-key norm spans all heads at once (OLMo 2, https://arxiv.org/abs/2501.00656).

    Args:
        n_embd: Width C of the residual stream.
        n_head: Query heads H.
        qk_norm: Norm of queries and keys, over the channels of all of their heads.
        **kwargs: The other arguments of CausalSelfAttention.
    """

    def __init__(self, n_embd: int, n_head: int, qk_norm: NormFactory = nn.RMSNorm, **kwargs: Any) -> None:
        super().__init__(n_embd, n_head, qk_norm=None, **kwargs)
        self.q_norm, self.k_norm = qk_norm(self.sizes[0]), qk_norm(self.sizes[1])

    def normed(self, x: Tensor, norm: nn.Module) -> Tensor:
        """Maps queries or keys (B, H, T, D) to (B, H, T, D)."""
        return norm(x.transpose(1, 2).flatten(2)).view_as(x.transpose(1, 2)).transpose(1, 2)


# Both MLPs call their own usual choice None: a config that names another class keeps the arguments of the class before
# wherever they fit, its defaults as well, and GPT-2's GELU and biases are not meant for Llama's MLP.
class MLP(nn.Module):
    """Two linear layers with an activation between them (GPT-2).

    Args:
        n_embd: Width C of the residual stream.
        hidden: Width between the two layers. None: 4 * n_embd.
        activation: The activation between them. None: `torch.nn.GELU`.
        bias: Whether the layers have biases. None: yes.
    """

    def __init__(
        self,
        n_embd: int,
        hidden: int | None = None,
        activation: ActivationFactory | None = None,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        hidden = 4 * n_embd if hidden is None else hidden
        bias = True if bias is None else bias
        self.fc = nn.Linear(n_embd, hidden, bias=bias)
        self.activation = (activation or nn.GELU)()
        self.proj = nn.Linear(hidden, n_embd, bias=bias)
        self.recomputes = False

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, T, C) to (B, T, C)."""
        return again_if(self.recomputes, self.project, self.fc(x))

    def project(self, hidden: Tensor) -> Tensor:
        """Maps what goes into the activation to (B, T, C)."""
        return self.proj(self.activation(hidden))


class GatedMLP(nn.Module):
    """Gated MLP: activation(gate) * up (Shazeer, 2020, https://arxiv.org/abs/2002.05202); SwiGLU with SiLU.

    Args:
        n_embd: Width C of the residual stream.
        hidden: Width of the gate. None: 8/3 * n_embd rounded up to a multiple of 32, as many weights as MLP's default.
        activation: The activation of the gate. None: `torch.nn.SiLU`.
        bias: Whether the layers have biases. None: no.
    """

    def __init__(
        self,
        n_embd: int,
        hidden: int | None = None,
        activation: ActivationFactory | None = None,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        hidden = -(-8 * n_embd // 96) * 32 if hidden is None else hidden
        bias = False if bias is None else bias
        self.fc = nn.Linear(n_embd, 2 * hidden, bias=bias)  # gate and up in one matrix product
        self.activation = (activation or nn.SiLU)()
        self.proj = nn.Linear(hidden, n_embd, bias=bias)
        self.recomputes = False

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, T, C) to (B, T, C)."""
        return again_if(self.recomputes, self.project, self.fc(x))

    def project(self, hidden: Tensor) -> Tensor:
        """Maps gate and up, beside each other, to (B, T, C)."""
        gate, up = hidden.chunk(2, dim=-1)
        return self.proj(self.activation(gate) * up)


class UnitOffsetRMSNorm(nn.RMSNorm):
    """RMSNorm that multiplies by 1 + weight, so that weight decay pulls towards the identity (Gemma).

    Args:
        n_embd: Width of the last axis.
        eps: Added to the mean square.
    """

    def __init__(self, n_embd: int, eps: float = 1e-6) -> None:
        super().__init__(n_embd, eps=eps)

    def reset_parameters(self) -> None:
        """Start at the identity."""
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., C) to (..., C)."""
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(wide), self.normalized_shape, 1 + self.weight.to(wide), self.eps).type_as(x)


class Embedding(nn.Module):
    """Token embedding, plus learned positions (GPT-2) unless positions live inside attention.

    Args:
        vocab_size: Rows of the token table.
        block_size: Rows of the position table.
        n_embd: Width C.
        positions: Whether there is a table of learned positions.
        scale: Factor of the token embedding (Gemma: sqrt(n_embd)).
        dropout: Probability with which a channel is dropped in training.
    """

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        n_embd: int,
        positions: bool = True,
        scale: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, n_embd)
        self.positions = nn.Embedding(block_size, n_embd) if positions else None
        self.scale, self.dropout = scale, nn.Dropout(dropout)

    def forward(self, idx: Tensor, positions: Tensor | None = None) -> Tensor:
        """Maps (B, T) to (B, T, C). positions: (B, T); None counts from 0."""
        x = self.tokens(idx)
        if self.scale != 1.0:
            # In the embedding's dtype, as Gemma was trained: in bfloat16 the rounded factor is part of the model.
            x = x * x.new_full((), self.scale)
        if self.positions is not None:
            T, rows = idx.shape[1], self.positions.num_embeddings
            if rows < T:
                raise ValueError(f"{T} tokens do not fit the {rows} learned positions (block_size); shorten the input")
            x = x + (self.positions.weight[:T] if positions is None else self.positions(positions))
        return self.dropout(x)


class Head(nn.Module):
    """The output layer: scores over the vocabulary, by the token table itself (tied) or by a matrix of its own.

    Tied: Press and Wolf, 2017 (https://arxiv.org/abs/1608.05859).

    Args:
        vocab_size: Rows of the output.
        n_embd: Width C.
        tied: Whether the token table is the output matrix.
        softcap: Bound of the logits through softcap * tanh(logits / softcap) (Gemma 2). None: no bound.
        bias: Whether a matrix of its own has a bias (Phi).

    Raises:
        ValueError: If a tied head shall have a bias.
    """

    def __init__(
        self, vocab_size: int, n_embd: int, tied: bool = True, softcap: float | None = None, bias: bool = False
    ) -> None:
        super().__init__()
        if tied and bias:
            raise ValueError("a tied head has no bias; set tied to false")
        self.linear = None if tied else nn.Linear(n_embd, vocab_size, bias=bias)
        self.softcap = softcap

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """Maps (B, T, C) to (B, T, V). table: the token embedding's (V, C)."""
        logits = F.linear(hidden, table) if self.linear is None else self.linear(hidden)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)
