"""Weights in fewer bits, and the product of a single row: as near as the bits allow; greedy text stays the same."""

import copy
import shutil
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from lit_llm.backbone import GPT
from lit_llm.backbone.layers import CausalSelfAttention, Embedding, GatedMLP, Head
from lit_llm.backbone.rotary import Rotary
from lit_llm.inference import products
from lit_llm.inference.compiled_product import CompiledProduct, can_compile
from lit_llm.inference.generate import generate
from lit_llm.inference.products import Product, fastest_product, prepare
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

compiles = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")
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
    fastest = {1: fastest_product([Product(weight, None, dtype).weight], 1)}
    for rows in (1, 7, 40):
        x = torch.randn(rows, width, generator=drawn)
        y = Product(weight, None, dtype, fastest)(x)
        assert (y - x @ weight.T).std() < NEAR[dtype] * (x @ weight.T).std()


@every_dtype
@pytest.mark.parametrize("multiplies_bfloat16", [False, True])
@torch.inference_mode()
def test_a_product_by_parts(dtype: str, multiplies_bfloat16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which the last one is smaller; of few rows and of many."""
    monkeypatch.setattr(products, "CPU_MULTIPLIES_BFLOAT16", multiplies_bfloat16)
    monkeypatch.setattr(products, "PART", 7 * 24 + 5)
    weight = torch.randn(31, 24, generator=torch.Generator().manual_seed(0))
    for rows in (1, 3, 40):
        x = torch.randn(rows, 24, generator=torch.Generator().manual_seed(rows))
        y = Product(weight, None, dtype, {rows: products._by_parts})(x)
        assert (y.dtype, y.is_contiguous()) == (torch.float32, True)
        assert (y - x @ weight.T).std() < NEAR[dtype] * (x @ weight.T).std()
    weight, x = torch.randint(-9, 9, (31, 32)).to(torch.int8), torch.ones(33, 32)
    assert (products.multiply(weight, x) - x @ weight.float().T).abs().max() <= 1  # of up to 288, in bfloat16


@needs_onednn
@every_kind
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@torch.inference_mode()
def test_packed_weights_multiply_as_before(parts: dict[str, Any], dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of rows; all matrices of the network, the head's too; ids are looked up in a table as it was."""
    if dtype == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN has no bfloat16 on this CPU")
    monkeypatch.setattr(products, "CPU_MULTIPLIES_BFLOAT16", True)
    monkeypatch.setattr(products, "SAMPLE", 1)
    monkeypatch.setattr(
        products, "_seconds", lambda rivals, rows: [-sum(w.is_mkldnn for w in weights) for _, weights in rivals]
    )
    plain = backbone(parts)
    ready = prepare(copy.deepcopy(plain), dtype, rows={1, 2})
    packed = [part.weight.is_mkldnn for part in ready.modules() if isinstance(part, Product)]
    assert packed.count(True) == 2 * 4 + 1
    assert packed.count(False) == 1
    for rows, T in [(1, 1), (2, 1), (3, 13)]:
        idx = torch.randint(V, (rows, T), generator=torch.Generator().manual_seed(T))
        wanted, got = plain(idx), ready(idx)
        assert got.dtype == torch.float32
        assert (got - wanted).std() < NEAR[dtype] * wanted.std()


@needs_onednn
@pytest.mark.parametrize("gain", [-1, 1])
def test_weights_are_packed_where_it_pays(gain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the sum over all rows; measured by no more weights than needed; not small ones, nor those of single rows."""
    seen: list[int] = []

    def seconds(rivals: list[tuple[Any, list[torch.Tensor]]], rows: int) -> list[float]:
        seen.extend(len(weights) for _, weights in rivals)
        return [5 * rows - gain * weights[0].is_mkldnn * (rows == 2) for _, weights in rivals]

    monkeypatch.setattr(products, "_seconds", seconds)
    weights, fastest = [torch.randn(31, 24)] * 5, {1: products.multiply, 2: products.multiply}
    assert not products.packing_pays(weights, fastest)
    monkeypatch.setattr(products, "SAMPLE", 2 * 31 * 24 * 4)
    assert products.packing_pays(weights, fastest) == (gain > 0)
    assert seen == [2] * 4
    assert not products.packing_pays(weights, {1: products.multiply})
    assert seen == [2] * 4  # nothing was compared
    monkeypatch.setattr(products, "CPU_MULTIPLIES_BFLOAT16", False)
    assert not products.packing_pays([weight.bfloat16() for weight in weights], fastest)


def test_a_dtype_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="the dtype 'fp8' is none of fp32, bf16, int8"):
        prepare(backbone({}), "fp8")


@compiles
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@torch.inference_mode()
def test_a_compiled_product_of_few_rows() -> None:
    """Of each number of rows and each shape, in the precision of fp32 whatever the weights are stored in."""
    product, drawn = CompiledProduct(), torch.Generator().manual_seed(0)
    for shape, dtype in [((31, 24), torch.bfloat16), ((31, 24), torch.int8), ((7, 40), torch.bfloat16)]:
        weight = (20 * torch.randn(shape, generator=drawn)).to(dtype)
        for rows in (1, 3, 11):
            x = torch.randn(rows, shape[1], generator=drawn)
            wanted = x.double() @ weight.double().T
            for laid_out in (x, x.T.contiguous().T):
                assert (product(weight, laid_out) - wanted).std() < 1e-6 * wanted.std()


@torch.inference_mode()
def test_each_number_of_rows_has_its_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest one, found for the numbers that are asked for, of few rows among compiled ones as well."""
    tried: list[tuple[int, int]] = []  # rows and matrices

    def seconds(rivals: list[tuple[Any, list[torch.Tensor]]], rows: int) -> list[float]:
        tried.extend((rows, len(weights)) for _, weights in rivals)
        return [-float(number) for number in range(len(rivals))]

    monkeypatch.setattr(products, "can_compile", lambda: True)
    monkeypatch.setattr(products, "CompiledProduct", lambda: lambda weight, x: x @ weight.T)
    monkeypatch.setattr(products, "_seconds", seconds)
    ready = prepare(backbone({}), compile=True, rows={1, 5, 17})
    fastest = ready.embedding.tokens.product.fastest
    assert {count: tried.count((count, 2 * 4 + 1)) for count in fastest} == {1: 3, 5: 3, 17: 2}  # by all matrices
    assert len(tried) == 3 + 3 + 2
    assert fastest[17] is products._by_parts
    assert len({fastest[1], fastest[5], fastest[17], products.multiply}) == 4
    assert all(part.fastest is fastest for part in ready.modules() if isinstance(part, Product))


@compiles
def test_without_a_compiler_decoding_goes_on(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """With a notice, and a product that needs none."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    with torch._inductor.config.patch(force_disable_caches=True):
        assert not can_compile()
    assert capsys.readouterr().err.startswith("notice: decoding goes on without compiled products, which failed: ")
    monkeypatch.setattr(products, "can_compile", lambda: False)
    ready = prepare(backbone({}), "bf16", compile=True)
    assert not isinstance(ready.embedding.tokens.product.fastest[1], CompiledProduct)


@torch.inference_mode()
def test_the_fastest_product_is_that_of_its_best_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rivals take turns, so that a slow spell of the machine meets all of them."""
    clock, spells = [0.0], iter([9, 9, 2, 1])
    monkeypatch.setattr(products.time, "perf_counter", lambda: clock[0])

    def multiplied(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        clock[0] += next(spells)
        return x @ weight.T

    rivals = [(multiplied, [torch.randn(3, 5)])] * 2
    assert products._seconds(rivals, 1, repeats=2) == [2, 1]
