"""Which kernel computes attention: chosen by device, dtype and shape, in one place."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_llm.backbone.attention_by_blocks import AttentionByBlocks

CPU: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # what torch knows of it; older ones: nothing
CPU_MULTIPLIES_BFLOAT16 = any(CPU.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))  # Intel, AMD, ARM

# MKL, by which a CPU's fused kernel multiplies fp32, is at its best on Intel's: there that kernel is the fastest at 64
# and at 256 tokens, by 1.2 to 2.4 times, and as fast as any at 512.
INTEL = str(CPU.get("cpu_name", "")).startswith("Intel")
# Tokens up to which products by blocks of queries beat a CPU's fused kernel: by 1.5 to 2 times at 256, and by more at
# small heads, where oneDNN multiplies (`float32_matmul_precision: medium`) or in bfloat16.
BY_BLOCKS = {torch.float32: 0 if INTEL else 512, torch.bfloat16: 2048}
# Queries, if more than one, up to which a CPU stores all scores, T / D of a query's size. Where blocks apply, half as
# many: at 64 it is 1.3 to 1.7 times as fast.
SHORT = 0 if INTEL else 128
# Numbers among the keys of a cache from which on they come from memory, where products of whole heads read them in two
# thirds to three quarters of the time of a CPU's fused kernel.
FROM_MEMORY = 2**18


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float | None, dropout: float
) -> Tensor:
    """Causal attention of q (B, H, T, D) over k and v (B, G, S, D), G dividing H; the one place that picks a kernel.

    S is T, or more behind a cache; without a mask then T is 1, and the query sees all keys. Where S is T, no query sees
    a key behind its own. The soft cap (Gemma 2, https://arxiv.org/abs/2408.00118) needs the scores themselves, which no
    fused kernel shows.
    """
    if q.device.type == "cpu" and v.dtype == torch.bfloat16 and not CPU_MULTIPLIES_BFLOAT16:
        with torch.autocast("cpu", enabled=False):  # products of fp32 are 3 to 5 times as fast as emulated ones
            return attend(q.float(), k.float(), v.float(), mask, scale, softcap, dropout).to(v.dtype)
    causal, groups = mask is None and q.shape[-2] > 1, q.shape[1] // k.shape[1]
    if groups > 1 and q.shape[-2] == 1:
        # Heads that share keys become queries of one head, so that no step of decoding copies a cache.
        q = q.view(q.shape[0], k.shape[1], groups, q.shape[-1])
        return _attend(q, k, v, mask, causal, scale, softcap, dropout).reshape(q.shape[0], -1, 1, v.shape[-1])
    return _attend(q, k, v, mask, causal, scale, softcap, dropout)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    on_cpu, T = q.device.type == "cpu", q.shape[-2]
    has_row_of_each = causal or (mask is not None and mask.shape[-2] == T > 1)  # and not one for all heads of a group
    by_blocks = on_cpu and has_row_of_each and k.shape[-2] == T and softcap is None and not dropout
    by_blocks = by_blocks and BY_BLOCKS.get(v.dtype, 0) >= T
    explicit = softcap is not None or (on_cpu and 1 < T <= (SHORT // 2 if by_blocks else SHORT))
    # Flash alone takes fewer key-value heads, but neither a mask nor fp32. Asked for those, torch falls back in silence
    # to a kernel that stores (B, H, T, T); with repeated heads it finds another fused one.
    flash = not by_blocks and not explicit and mask is None and v.dtype in (torch.float16, torch.bfloat16)
    groups = q.shape[1] // k.shape[1]
    if groups > 1 and not flash:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    is_cached = not causal and k.shape[-2] > T and softcap is None and not dropout
    if on_cpu and is_cached and v.dtype == torch.float32 and k.numel() >= FROM_MEMORY:
        return _attend_over_cache(q, k, v, mask, scale)
    if explicit:
        return _attend_by_scores(q, k, v, mask, causal, scale, softcap, dropout)
    if by_blocks:
        with torch.autocast("cpu", enabled=False):  # all is in the dtype of v
            return AttentionByBlocks.apply(q.to(v.dtype), k.to(v.dtype), v, mask, scale)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=flash
    )


def _attend_by_scores(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    """The same for q (B, H, T, D), k and v (B, H, S, D) by two products and a softmax between; stores (B, H, T, S)."""
    (B, H, T, _), S = q.shape, k.shape[2]
    never = torch.finfo(q.dtype).min  # finite: a query that may see nothing gets the mean of all, and not NaN
    if mask is not None:
        bias = q.new_zeros(mask.shape).masked_fill_(~mask, never)  # (T, T) or (B, 1, T, S)
    else:
        bias = q.new_full((T, T), never).triu(1) if causal else q.new_zeros(1, 1)
    if softcap is None:
        # Scale and mask inside the product: a pass over the scores less for each of them, and for its gradient.
        bias = bias.expand(B, H, T, S).flatten(0, 1)
        scores = torch.baddbmm(bias, q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=scale).view(B, H, T, S)
    else:
        scores = softcap * torch.tanh((q @ k.transpose(-2, -1)).float() * (scale / softcap)) + bias
    weights = scores.softmax(dim=-1, dtype=torch.promote_types(v.dtype, torch.float32)).to(v.dtype)
    return F.dropout(weights, dropout) @ v


def _attend_over_cache(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The same for a few queries (B, H, T, D) over many keys and values (B, H, S, D)."""
    scores = (k @ (q * scale).transpose(-2, -1)).transpose(-2, -1)  # keys first: they are read as they lie in memory
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)  # finite, as above
    return scores.softmax(dim=-1) @ v
