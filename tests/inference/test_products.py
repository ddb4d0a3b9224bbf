"""Weights in fewer bits, and the product of a single row: as near as the bits allow; greedy text stays the same."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from lit_llm.backbone import GPT
from lit_llm.backbone.layers import CausalSelfAttention, Embedding, GatedMLP, Head
from lit_llm.backbone.rotary import Rotary
from lit_llm.inference.generate import generate
from lit_llm.inference.products import Product, fastest_row_product, prepare
from lit_llm.inference.sampling import Sampling

V, BLOCK_SIZE, PROMPT = 97, 23, [5, 1, 90, 7]
LLAMA = {
    "norm": nn.RMSNorm,
    "mlp": GatedMLP,
    "attention": partial(CausalSelfAttention, n_kv_head=2, qkv_bias=False, rotary=Rotary),
    "embedding": partial(Embedding, positions=False, scale=3.0),
    "head": partial(Head, tied=False, softcap=20.0),
}
# Of the spread of the logits: fp32 in another order; 8 bits of a bfloat16; 127 steps up to the largest of a row.
NEAR = {"fp32": 1e-5, "bf16": 0.02, "int8": 0.05}

every_dtype = pytest.mark.parametrize("dtype", NEAR)
every_kind = pytest.mark.parametrize("parts", [{}, LLAMA], ids=["gpt2", "llama"])


def backbone(parts: dict[str, Any]) -> GPT:
    torch.manual_seed(0)
    made = GPT(V, BLOCK_SIZE, 2, 4, 24, **parts).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


@every_kind
@every_dtype
@torch.inference_mode()
def test_logits_are_near(parts: dict[str, Any], dtype: str) -> None:
    """Of several rows, and of a single one, which takes another product."""
    plain = backbone(parts)
    ready = prepare(copy.deepcopy(plain), dtype)
    for T in (7, 1):
        idx = torch.randint(V, (1, T), generator=torch.Generator().manual_seed(T))
        wanted, got = plain(idx), ready(idx)
        assert got.dtype == torch.float32
        assert (got - wanted).std() < NEAR[dtype] * wanted.std()
        assert dtype == "fp32" or not torch.equal(got, wanted)


@every_kind
def test_greedy_text_stays_the_same_in_fp32(parts: dict[str, Any]) -> None:
    plain = backbone(parts)
    ready = prepare(copy.deepcopy(plain))
    texts = [[int(new.ids) for new in generate(one, [PROMPT], 15, Sampling(0.0))] for one in (plain, ready)]
    assert texts[0] == texts[1]


@every_kind
@pytest.mark.parametrize(("dtype", "size"), [("fp32", 4), ("bf16", 2), ("int8", 1)])
def test_matrices_take_the_memory_of_their_bits(parts: dict[str, Any], dtype: str, size: int) -> None:
    """The token table as well, once where it is tied."""
    plain = backbone(parts)
    matrices = sum(p.numel() for name, p in plain.named_parameters() if p.ndim > 1 and "positions" not in name)
    stored = {
        tensor.data_ptr(): tensor.nbytes
        for name, tensor in prepare(plain, dtype).state_dict().items()
        if tensor.ndim > 1 and "positions" not in name
    }
    assert sum(stored.values()) == size * matrices


@every_dtype
@pytest.mark.parametrize("width", [24, 64, 172])
@torch.inference_mode()
def test_a_product_of_any_width(dtype: str, width: int) -> None:
    """As near as the bits allow, whether or not the width is one that kernels read at once."""
    drawn = torch.Generator().manual_seed(width)
    weight = torch.randn(31, width, generator=drawn)
    for rows in (1, 7, 40):
        x = torch.randn(rows, width, generator=drawn)
        y = Product(weight, None, dtype, fastest_row_product([Product(weight, None, dtype).weight]))(x)
        assert (y - x @ weight.T).std() < NEAR[dtype] * (x @ weight.T).std()


def test_a_dtype_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="the dtype 'fp8' is none of fp32, bf16, int8"):
        prepare(backbone({}), "fp8")


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_without_a_compiler_decoding_goes_on(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """With a notice, and a product that needs none."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    torch._dynamo.reset()
    with torch._inductor.config.patch(force_disable_caches=True):
        product = fastest_row_product([torch.randn(31, 24)], compile=True)
    assert capsys.readouterr().err.startswith("notice: decoding goes on without compiled products, which failed: ")
    weight, x = torch.randn(31, 24), torch.randn(24)
    torch.testing.assert_close(product(weight, x), weight @ x)
