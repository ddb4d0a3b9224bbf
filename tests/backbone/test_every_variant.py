"""What holds for every choice of parts: causality, packed documents, precision, gradients, the meta device."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_llm.backbone import GPT, attention_kernels
from lit_llm.backbone.blocks import ParallelBlock, PostNormBlock, SandwichBlock
from lit_llm.backbone.context import Context
from lit_llm.backbone.experts import Experts
from lit_llm.backbone.layers import (
    CausalSelfAttention,
    Embedding,
    GatedMLP,
    Head,
    UnitOffsetRMSNorm,
    WideNormAttention,
)
from lit_llm.backbone.rotary import LinearRotary, Llama3Rotary, Rotary

B, T, H, C, V, LAYERS, BLOCK_SIZE = 2, 7, 4, 24, 97, 3, 11


def attention(**settings: Any) -> dict[str, Any]:
    return {"attention": partial(CausalSelfAttention, **settings)}


NO_TABLE = {"embedding": partial(Embedding, positions=False)}
LLAMA = {
    "norm": nn.RMSNorm,
    "mlp": GatedMLP,
    "head": partial(Head, tied=False),
    **NO_TABLE,
    **attention(n_kv_head=2, qkv_bias=False, out_bias=False, rotary=Rotary),
}
GEMMA = {
    "norm": UnitOffsetRMSNorm,
    "mlp": GatedMLP,
    "block": SandwichBlock,
    "embedding": partial(Embedding, positions=False, scale=C**0.5),
    "head": partial(Head, softcap=30.0),
    **attention(n_kv_head=1, head_dim=10, rotary=Rotary, softcap=5.0, window=3, scale=0.2),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped queries": attention(n_kv_head=2),
    "one key-value head": attention(n_kv_head=1),
    "free head_dim": attention(head_dim=10),
    "window": attention(window=3),
    "soft cap": attention(softcap=5.0),
    "query-key norm": attention(qk_norm=nn.RMSNorm),
    "rotary": {**NO_TABLE, **attention(rotary=Rotary)},
    "part rotary": {**NO_TABLE, **attention(rotary=partial(Rotary, fraction=0.34))},
    "linear rotary": {**NO_TABLE, **attention(rotary=partial(LinearRotary, factor=2.0))},
    "llama 3 rotary": {**NO_TABLE, **attention(rotary=partial(Llama3Rotary, original_block_size=16))},
    "post-norm": {"block": PostNormBlock},
    "sandwich": {"block": SandwichBlock},
    "parallel": {"block": ParallelBlock},
    "parallel, one norm": {"block": partial(ParallelBlock, shared_norm=True)},
    "padded vocabulary": {"vocab_multiple": 64},
    "wide query-key norm": {"attention": partial(WideNormAttention, n_kv_head=2)},
    "head with a bias": {"head": partial(Head, tied=False, bias=True)},
    "alternating": {"pattern": "LG", "local_attention": partial(CausalSelfAttention, window=3)},
    "experts": {"mlp": partial(Experts, hidden=20, n_expert=3)},
    "some experts": {
        "mlp_pattern": "ME",
        "experts": partial(Experts, hidden=20, n_expert=3, renormalize=False, shared_hidden=14),
    },
    "llama": LLAMA,
    "gemma": GEMMA,
}
every_variant = pytest.mark.parametrize("parts", VARIANTS.values(), ids=VARIANTS)


def build(parts: dict[str, Any]) -> GPT:
    """Weights large enough for attention to be far from uniform, and nothing at its neutral value."""
    torch.manual_seed(0)
    backbone = GPT(V, BLOCK_SIZE, LAYERS, H, C, **parts).eval()
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.3)
    return backbone


def ids(*shape: int) -> Tensor:
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(1))


@every_variant
def test_a_token_changes_no_logit_before_it(parts: dict[str, Any]) -> None:
    backbone, idx = build(parts), ids(B, T)
    before = backbone(idx)
    # Experts multiply the tokens that they get, which are now one more or less, so that sums take another order.
    tolerance = 1e-5 if any(isinstance(part, Experts) for part in backbone.modules()) else 0.0
    assert before.shape == (B, T, V)
    for t in range(T):
        changed = idx.clone()
        changed[:, t] = (changed[:, t] + 1) % V
        after = backbone(changed)
        assert torch.allclose(after[:, :t], before[:, :t], rtol=0, atol=tolerance)
        assert not torch.isclose(after[:, t], before[:, t]).all()


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@every_variant
def test_packed_documents_equal_documents_alone(
    parts: dict[str, Any], dtype: torch.dtype, near: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits and gradients; an id may come back later in a row, for a third document.

    In fp64 alone those of query and key norms, sums that nearly cancel: what fp32 leaves of them differs by CPU.
    """
    monkeypatch.setattr(attention_kernels, "BY_BLOCKS", {dtype: T})
    monkeypatch.setattr(attention_kernels, "SHORT", 0)
    backbone, idx = build(parts).to(dtype), ids(B, T)
    compared = [
        parameter
        for name, parameter in backbone.named_parameters()
        if dtype == torch.float64 or not name.endswith(("q_norm.weight", "k_norm.weight"))
    ]
    documents = torch.tensor([[5, 5, 9, 9, 9, 5, 5], [1, 2, 2, 2, 2, 2, 3]])
    lengths = [[2, 3, 2], [1, 5, 1]]
    weights = torch.randn(B, T, V, dtype=dtype)  # of a made-up loss

    packed = backbone(idx, Context(documents))
    packed_gradients = torch.autograd.grad((packed * weights).sum(), compared)
    rows = [[backbone(part[None])[0] for part in row.split(n)] for row, n in zip(idx, lengths, strict=True)]
    alone = torch.stack([torch.cat(row) for row in rows])
    alone_gradients = torch.autograd.grad((alone * weights).sum(), compared)

    def close(a: Tensor, b: Tensor) -> bool:
        return bool((a - b).abs().max() <= near * b.abs().max())  # another order of the sums

    assert close(packed, alone)
    assert all(map(close, packed_gradients, alone_gradients))
    without_borders = backbone(idx)
    assert close(without_borders[0, :2], alone[0, :2])
    assert not close(without_borders[0, 2:], alone[0, 2:])


@every_variant
def test_every_parameter_gets_a_gradient(parts: dict[str, Any]) -> None:
    backbone = build(parts)
    backbone(ids(B, T)).logsumexp(-1).sum().backward()
    assert not [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]


@every_variant
def test_bfloat16_stays_near_fp32(parts: dict[str, Any]) -> None:
    """As weights and by autocast (no warning of a slow kernel either); 8 bits, so a few percent of the spread."""
    backbone, idx = build(parts), ids(B, T)
    exact = backbone(idx)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = backbone(idx)
    cast = backbone.bfloat16()(idx)
    assert mixed.dtype == cast.dtype == torch.bfloat16
    assert (mixed - exact).std() < 0.05 * exact.std()
    assert (cast - exact).std() < 0.05 * exact.std()


@every_variant
def test_a_backbone_from_the_meta_device_needs_only_its_own_init(parts: dict[str, Any]) -> None:
    torch.manual_seed(0)
    usual = GPT(V, BLOCK_SIZE, LAYERS, H, C, **parts)
    torch.manual_seed(0)
    usual.init_weights()
    with torch.device("meta"):
        backbone = GPT(V, BLOCK_SIZE, LAYERS, H, C, **parts)
    assert backbone(torch.zeros(B, T, dtype=torch.long, device="meta")).shape == (B, T, V)
    backbone.to_empty(device="cpu")
    for parameter in backbone.parameters():
        nn.init.constant_(parameter, torch.nan)  # what lies in empty memory
    torch.manual_seed(0)
    backbone.init_weights()
    for name, weight in usual.state_dict().items():
        assert torch.equal(backbone.state_dict()[name], weight), name


@pytest.mark.parametrize("parts", [{}, GEMMA], ids=["plain", "gemma"])
def test_compiles_into_one_graph(parts: dict[str, Any]) -> None:
    """No graph break, with borders and without; the backend runs the graph as it is, so the logits are the same."""
    backbone, idx = build(parts), ids(B, T)
    documents = torch.tensor([[0, 0, 1, 1, 1, 2, 2]]).expand(B, T)
    compiled = torch.compile(backbone, fullgraph=True, backend="eager")
    assert torch.equal(compiled(idx), backbone(idx))
    assert torch.equal(compiled(idx, Context(documents)), backbone(idx, Context(documents)))
