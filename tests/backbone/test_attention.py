"""Attention against the slow textbook version, and what it refuses."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lit_llm.backbone import attention_by_blocks, attention_kernels
from lit_llm.backbone.attention_kernels import attend
from lit_llm.backbone.context import Context, positions_in_documents
from lit_llm.backbone.layers import CausalSelfAttention
from lit_llm.backbone.rotary import Rotary

B, T, H, C = 3, 7, 4, 24
DOCUMENTS = torch.tensor([[0, 0, 0, 0, 0, 0, 0], [3, 3, 1, 1, 1, 3, 3], [4, 5, 5, 5, 5, 5, 6]])
EPS = 1e-5


def reference(
    attention: CausalSelfAttention,
    x: Tensor,
    documents: Tensor,
    n_kv_head: int = H,
    head_dim: int = C // H,
    window: int = T,
    scale: float | None = None,
    softcap: float | None = None,
    qk_norm: Any = None,
    rotary: Any = None,
    **_: Any,
) -> Tensor:
    """One query after the other, one key after the other; rotation as a product of complex numbers."""
    D, G = head_dim, n_kv_head
    weight, bias = attention.qkv.weight, attention.qkv.bias
    rows = []
    for b in range(len(x)):
        first: dict[int, int] = {}  # the step at which the document of each step begins
        for i in range(T):
            first[i] = first[i - 1] if i and documents[b, i] == documents[b, i - 1] else i

        def head(number: int, i: int, norm: Any = None, turn: bool = False, b: int = b, first: Any = first) -> Tensor:
            part = slice(number * D, (number + 1) * D)
            y = weight[part] @ x[b, i] + (0 if bias is None else bias[part])
            if norm is not None:
                y = y / (y.square().mean() + EPS).sqrt() * norm.weight
            if turn:
                angles = [(i - first[i]) * 10_000 ** (-2 * c / D) for c in range(D // 2)]
                turned = torch.complex(*y.chunk(2)) * torch.tensor([complex(math.cos(a), math.sin(a)) for a in angles])
                y = torch.cat((turned.real, turned.imag))
            return y

        for i in range(T):
            heads = []
            for h in range(H):
                g = h // (H // G)
                q = head(h, i, attention.q_norm, rotary is not None)
                keys = range(max(first[i], i - window + 1), i + 1)
                scores = torch.stack([q @ head(H + g, j, attention.k_norm, rotary is not None) for j in keys])
                scores = scores * (D**-0.5 if scale is None else scale)
                scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
                weights = scores.exp() / scores.exp().sum()
                heads.append(sum(w * head(H + G + g, j) for w, j in zip(weights, keys, strict=True)))
            rows.append(attention.proj(torch.cat(heads)))
    return torch.stack(rows).view(x.shape)


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "no biases": {"qkv_bias": False, "out_bias": False},
    "grouped queries": {"n_kv_head": 2},
    "one key-value head": {"n_kv_head": 1, "head_dim": 10},
    "window": {"window": 3},
    "window of one": {"window": 1},
    "scale": {"scale": 0.7},
    "soft cap": {"softcap": 0.5},
    "query-key norm": {"qk_norm": partial(nn.RMSNorm, eps=EPS)},
    "rotary": {"rotary": Rotary},
    "all": {
        "n_kv_head": 2,
        "head_dim": 10,
        "window": 3,
        "scale": 0.3,
        "softcap": 2.0,
        "qk_norm": partial(nn.RMSNorm, eps=EPS),
        "rotary": Rotary,
    },
}


def build(**settings: Any) -> tuple[CausalSelfAttention, Tensor]:
    torch.manual_seed(0)
    attention = CausalSelfAttention(C, H, **settings)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.4)
    return attention, torch.randn(B, T, C)


@pytest.fixture(params=["by blocks", "plain products", "fused kernel"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel that a CPU chooses for T tokens, here in more than one block, and those for other cases."""
    monkeypatch.setattr(attention_by_blocks, "BLOCK", 3)
    lengths = dict.fromkeys((torch.float32, torch.bfloat16), T) if request.param == "by blocks" else {}
    monkeypatch.setattr(attention_kernels, "BY_BLOCKS", lengths)
    monkeypatch.setattr(attention_kernels, "SHORT", T if request.param == "plain products" else T - 1)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("documents", [None, DOCUMENTS], ids=["whole rows", "documents"])
@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_equals_the_textbook(settings: dict[str, Any], documents: Tensor | None) -> None:
    attention, x = build(**settings)
    expected = reference(attention, x, torch.zeros(B, T) if documents is None else documents, **settings)
    context = None if documents is None else Context(documents)
    torch.testing.assert_close(attention(x, context), expected, rtol=1e-5, atol=1e-5)  # fp32, values near 1


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("settings", [CASES["grouped queries"], CASES["all"]], ids=["grouped queries", "all"])
def test_the_gradient_equals_the_textbooks(settings: dict[str, Any]) -> None:
    attention, x = build(**settings)
    x.requires_grad_()
    expected = reference(attention, x, DOCUMENTS, **settings).square().sum()
    loss = attention(x, Context(DOCUMENTS)).square().sum()
    inputs = [x, *attention.parameters()]
    for ours, theirs in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()  # fp32


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("in_hardware", [False, True])
@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_bfloat16_costs_no_more_than_its_precision(
    settings: dict[str, Any], in_hardware: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the CPU multiplies it or not; 8 bits, rounded a few times on the way."""
    monkeypatch.setattr(attention_kernels, "CPU_MULTIPLIES_BFLOAT16", in_hardware)
    attention, x = build(**settings)
    expected = attention(x)
    error = attention.bfloat16()(x.bfloat16()).float() - expected
    assert error.std() < 0.02 * expected.std()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_a_fused_kernel_takes_every_call(
    device: str, dtype: torch.dtype, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None falls back to the kernel that stores all scores; a GPU's fused ones want grouped heads repeated."""
    monkeypatch.setattr(attention_kernels, "BY_BLOCKS", {})
    monkeypatch.setattr(attention_kernels, "SHORT", T - 1)
    torch.manual_seed(0)
    q, k = torch.randn(B, H, T, 8).to(device, dtype), torch.randn(B, 2, T, 8).to(device, dtype)
    mask = torch.ones(T, T, dtype=torch.bool, device=device).tril() if masked else None
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):  # an error where neither can
        fused = attend(q, k, k, mask, 0.4, None, 0.0)
    with sdpa_kernel(SDPBackend.MATH):
        tolerance = 1e-5 if dtype == torch.float32 else 2e-2  # 8 bits of values near 1
        torch.testing.assert_close(fused, attend(q, k, k, mask, 0.4, None, 0.0), rtol=tolerance, atol=tolerance)


def largest_saved(length: int) -> int:
    """Elements of the largest tensor that attention keeps for its backward pass."""
    q, sizes = torch.randn(1, 2, length, 4, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: sizes.append(saved.numel()), lambda _: None):
        attend(q, q * 2, q * 3, None, 0.5, None, 0.0)
    return max(sizes)


def test_no_input_stores_its_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """(H, T, T) of them: memory grows with T, not with its square, by blocks and in the fused kernel."""
    for longest, length in ((512, 128), (512, 512), (512, 513), (0, 513)):
        monkeypatch.setattr(attention_kernels, "BY_BLOCKS", {torch.float32: longest})
        assert largest_saved(length) == 2 * length * 4


def test_blocks_may_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a layer is by `--model.compile`, gradients included, in one graph."""
    monkeypatch.setattr(attention_kernels, "BY_BLOCKS", {torch.float32: T})
    monkeypatch.setattr(attention_kernels, "SHORT", 0)
    torch.manual_seed(0)
    q, k, v = (torch.randn(B, T, H, 8).transpose(1, 2).requires_grad_() for _ in range(3))  # as they lie in a layer

    def gradient(function: Any) -> Tensor:
        return torch.autograd.grad(function(q, k, v, None, 0.4, None, 0.0).square().sum(), q)[0]

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradient(compiled), gradient(attend), rtol=1e-5, atol=1e-5)


def test_autocast_does_not_undo_the_choice_of_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a CPU emulates bfloat16, its products are those of fp32, rounded once at the end."""
    monkeypatch.setattr(attention_kernels, "CPU_MULTIPLIES_BFLOAT16", False)
    monkeypatch.setattr(attention_kernels, "BY_BLOCKS", {torch.float32: T})
    monkeypatch.setattr(attention_kernels, "SHORT", 0)
    torch.manual_seed(0)
    for length in (T, 513):
        q = torch.randn(B, H, length, 8).bfloat16()
        expected = attend(q.float(), q.float(), q.float(), None, 0.4, None, 0.0).bfloat16()
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(attend(q, q, q, None, 0.4, None, 0.0), expected)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("softcap", [None, 50.0])
def test_dropout_acts_in_training_alone(softcap: float | None) -> None:
    attention, x = build(dropout=0.5, softcap=softcap)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))
    without = CausalSelfAttention(C, H, softcap=softcap)
    without.load_state_dict(attention.state_dict())
    assert torch.equal(attention(x), without(x))


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("softcap", [None, 50.0])
def test_dropout_keeps_the_mean(softcap: float | None) -> None:
    """Over 2,000 rows the mean of what dropout leaves is what is there without: the kept weights are scaled up."""
    torch.manual_seed(0)
    x = torch.randn(1, 1, T, 6).expand(2000, H, T, 6)
    expected = attend(x, x, x, None, 0.4, softcap, 0.0)[0]
    mean = attend(x, x, x, None, 0.4, softcap, 0.25).mean(dim=0)
    assert (mean - expected).abs().max() < 0.15  # 5 standard errors of values up to 3, 1 in 4 of them dropped


def test_positions_restart_at_each_border() -> None:
    """Whatever the integer type, and also where an id comes back."""
    expected = [[0, 1, 2, 3, 4, 5, 6], [0, 1, 0, 1, 2, 0, 1], [0, 0, 1, 2, 3, 4, 0]]
    for dtype in (torch.int64, torch.int32, torch.uint8):
        assert positions_in_documents(DOCUMENTS.to(dtype)).tolist() == expected


def test_one_context_makes_each_table_once() -> None:
    context, device = Context(DOCUMENTS), torch.device("cpu")
    assert context.mask(T, 3, device) is context.mask(T, 3, device)
    assert context.mask(T, 3, device) is not context.mask(T, None, device)
    assert context.rotation(Rotary(6), T, device) is context.rotation(Rotary(6), T, device)
    assert context.rotation(Rotary(6), T, device) is not context.rotation(Rotary(6, theta=500.0), T, device)


def test_whole_rows_need_no_mask() -> None:
    """Plain causal attention, and a window that nothing exceeds, take the kernel that never sees a mask."""
    assert Context().mask(T, None, torch.device("cpu")) is None
    assert Context().mask(T, T, torch.device("cpu")) is None
    assert Context().mask(T, T - 1, torch.device("cpu")) is not None


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"n_embd": 25}, r"n_embd 25 .* n_head 4"),
        ({"n_kv_head": 3}, r"n_head 4 .* n_kv_head 3"),
        ({"n_kv_head": 0}, r"n_head 4 .* n_kv_head 0"),
        ({"n_kv_head": 8}, r"n_head 4 .* n_kv_head 8"),
        ({"window": 0}, r"window 0"),
        ({"head_dim": 0}, r"head_dim 0"),
        ({"dropout": 1.5}, r"between 0 and 1.* 1\.5"),
    ],
)
def test_refuses_sizes_that_do_not_fit(settings: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        CausalSelfAttention(**{"n_embd": C, "n_head": H, **settings})


@pytest.mark.parametrize("length", [1, 7, 130], ids=["one query", "by scores", "fused"])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_scores_and_a_query_that_sees_nothing_stay_finite(length, softcap, dtype) -> None:
    """N5: scores of ±1e4 and beyond, and a row of the mask without a single key."""
    q, k, v = (torch.randn(2, 4, length, 8, generator=torch.Generator().manual_seed(0)) for _ in range(3))
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    mask[length // 2] = False
    y = attend(1e4 * q.to(dtype), k.to(dtype), v.to(dtype), mask, 1.0, softcap, 0.0)
    assert y.isfinite().all()
    assert y.abs().max() <= v.to(dtype).abs().max() * 1.01
