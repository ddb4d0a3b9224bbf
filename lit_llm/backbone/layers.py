"""The parts of a block: attention, MLPs, a norm; and the two ends of the network: embedding and head.

Each part is an ordinary `nn.Module` that GPT receives as a factory; torch's own classes fit as they are
(`torch.nn.LayerNorm`, `torch.nn.RMSNorm`, `torch.nn.GELU`).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_llm.backbone.rotary import Rotary

NormFactory = Callable[[int], nn.Module]  # width
ActivationFactory = Callable[[], nn.Module]
RotaryFactory = Callable[[int], Rotary]  # head_dim


class Context:
    """What one forward pass knows beyond its tokens. One object serves all layers, so each mask is built once.

    Args:
        documents: (B, T) ids that differ between the documents packed into a row: no token attends across a border,
            and positions restart at each. None: every row is one document.
    """

    def __init__(self, documents: Tensor | None = None) -> None:
        self.documents = documents
        self.positions = None if documents is None else positions_in_documents(documents)  # (B, T)
        self._masks: dict[tuple[int, int | None], Tensor] = {}

    def mask(self, length: int, window: int | None, device: torch.device) -> Tensor | None:
        """(T, T) or (B, 1, T, T) booleans, True where a query may see a key; None where plain causal says it all."""
        if self.documents is None and (window is None or window >= length):
            return None
        if (length, window) not in self._masks:
            steps = torch.arange(length, device=device)
            distance = steps[:, None] - steps  # (T, T): query minus key
            mask = distance >= 0
            if window is not None:
                mask &= distance < window
            if self.documents is not None:
                mask = mask & (self.documents[:, None, :, None] == self.documents[:, None, None, :])  # (B, 1, T, T)
            self._masks[length, window] = mask
        return self._masks[length, window]


def positions_in_documents(documents: Tensor) -> Tensor:
    """(B, T) document ids to (B, T) positions that restart at 0 wherever the id changes along a row."""
    steps = torch.arange(documents.shape[1], device=documents.device)
    starts = torch.zeros_like(documents)
    starts[:, 1:] = steps[1:] * (documents[:, 1:] != documents[:, :-1])
    return steps - starts.cummax(dim=1).values


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float | None, dropout: float
) -> Tensor:
    """Causal attention of q (B, H, T, D) over k and v (B, G, T, D), G dividing H; the one place that picks a kernel.

    The soft cap (Gemma 2, https://arxiv.org/abs/2408.00118) needs the scores themselves, which no fused kernel shows.
    """
    if softcap is None:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scale, enable_gqa=True
        )
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = softcap * torch.tanh((q @ k.transpose(-2, -1)) * (scale / softcap))  # (B, H, T, T)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    weights = scores.float().masked_fill(~mask, -math.inf).softmax(dim=-1).to(v.dtype)
    return F.dropout(weights, dropout) @ v


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
        ValueError: If n_embd is not divisible by n_head and head_dim is not given, or n_head not by n_kv_head.
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
        if window is not None and window < 1:
            raise ValueError(f"window {window} sees nothing; it counts the tokens a query sees, itself included")
        self.head_dim = n_embd // n_head if head_dim is None else head_dim
        self.sizes = [n_head * self.head_dim, n_kv_head * self.head_dim, n_kv_head * self.head_dim]
        self.qkv = nn.Linear(n_embd, sum(self.sizes), bias=qkv_bias)
        self.proj = nn.Linear(self.sizes[0], n_embd, bias=out_bias)
        self.q_norm = qk_norm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = qk_norm(self.head_dim) if qk_norm else nn.Identity()
        self.rotary = rotary(self.head_dim) if rotary else None
        self.window, self.softcap, self.dropout = window, softcap, dropout
        self.scale = self.head_dim**-0.5 if scale is None else scale

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """Maps (B, T, C) to (B, T, C)."""
        context = context or Context()
        B, T, _ = x.shape
        q, k, v = (
            part.view(B, T, -1, self.head_dim).transpose(1, 2)  # (B, heads, T, D)
            for part in self.qkv(x).split(self.sizes, dim=-1)
        )
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary is not None:
            q, k = self.rotary(q, context.positions), self.rotary(k, context.positions)
        mask = context.mask(T, self.window, x.device)
        y = attend(q, k, v, mask, self.scale, self.softcap, self.dropout if self.training else 0.0)
        return self.proj(y.transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    """Two linear layers with an activation between them (GPT-2).

    Args:
        n_embd: Width C of the residual stream.
        hidden: Width between the two layers. None: 4 * n_embd.
        activation: The activation between them.
        bias: Whether the layers have biases.
    """

    def __init__(
        self, n_embd: int, hidden: int | None = None, activation: ActivationFactory = nn.GELU, bias: bool = True
    ) -> None:
        super().__init__()
        hidden = hidden or 4 * n_embd
        self.fc = nn.Linear(n_embd, hidden, bias=bias)
        self.activation = activation()
        self.proj = nn.Linear(hidden, n_embd, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, T, C) to (B, T, C)."""
        return self.proj(self.activation(self.fc(x)))


class GatedMLP(nn.Module):
    """Gated MLP: activation(gate) * up (Shazeer, 2020, https://arxiv.org/abs/2002.05202); SwiGLU with SiLU.

    Args:
        n_embd: Width C of the residual stream.
        hidden: Width of the gate. None: 8/3 * n_embd rounded up to a multiple of 32, as many weights as MLP's default.
        activation: The activation of the gate.
        bias: Whether the layers have biases.
    """

    def __init__(
        self, n_embd: int, hidden: int | None = None, activation: ActivationFactory = nn.SiLU, bias: bool = False
    ) -> None:
        super().__init__()
        hidden = hidden or -(-8 * n_embd // 96) * 32
        self.fc = nn.Linear(n_embd, 2 * hidden, bias=bias)  # gate and up in one matrix product
        self.activation = activation()
        self.proj = nn.Linear(hidden, n_embd, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, T, C) to (B, T, C)."""
        gate, up = self.fc(x).chunk(2, dim=-1)
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
        return F.rms_norm(x.float(), self.normalized_shape, 1 + self.weight.float(), self.eps).type_as(x)


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
            x = x * torch.tensor(self.scale, dtype=x.dtype, device=x.device)
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
    """

    def __init__(self, vocab_size: int, n_embd: int, tied: bool = True, softcap: float | None = None) -> None:
        super().__init__()
        self.linear = None if tied else nn.Linear(n_embd, vocab_size, bias=False)
        self.softcap = softcap

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """Maps (B, T, C) to (B, T, V). table: the token embedding's (V, C)."""
        logits = F.linear(hidden, table) if self.linear is None else self.linear(hidden)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)
