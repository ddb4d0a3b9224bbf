"""Decoding in fewer bits, and the product that it consists of: few rows times a matrix, as fast as memory is read."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_llm.backbone import GPT
from lit_llm.backbone.attention_kernels import CPU_MULTIPLIES_BFLOAT16
from lit_llm.backbone.layers import Embedding, Head
from lit_llm.inference.compiled_product import MAX_ROWS, CompiledProduct, can_compile

DTYPES = ("fp32", "bf16", "int8")
INT8_ROWS = 32  # up to which torch's int8 kernels are fast: many rows are multiplied in half of their time
INT8_WIDTH = 32  # torch's int8 kernels read so many numbers at once, on some CPUs beyond the end of a row
PACKED_FOR = 16  # rows: what oneDNN's own layout of weights is made for; it serves any other number nearly as well
SAMPLE = 2**27  # bytes of weights by which layouts are compared: more than the caches of a CPU hold
PART = 2**20  # numbers of a matrix that are widened at once, so that they stay in the caches of a CPU
ONEDNN_ROWS = 32  # up to which oneDNN multiplies fp32 faster than torch's own library of an x86 CPU, by up to twice
RowProduct = Callable[[Tensor, Tensor], Tensor]  # weights (out, in) and x (rows, in) to (rows, out)


def prepare(backbone: GPT, dtype: str = "fp32", compile: bool = False, rows: Collection[int] = (1,)) -> GPT:
    """Make a backbone ready for nothing but decoding: its linear layers, token table and head are replaced in place.

    Weights are stored in `dtype`, int8 with a factor for each row; on a CPU everything else is computed in fp32.

    Args:
        backbone: The network, in eval mode.
        dtype: `fp32`, `bf16` or `int8`.
        compile: Whether the product of few rows and a matrix is compiled for a CPU; takes seconds, and a C++ compiler.
        rows: How many rows the steps of decoding multiply, for each of which the fastest product of a CPU is found:
            as many as there are texts in a batch, or tokens that a draft guesses and one more. Where a layout of
            oneDNN's own is faster for more than one, weights are brought into it; a tied table is then held twice.

    Raises:
        ValueError: If the dtype is none of these.
    """
    if dtype not in DTYPES:
        raise ValueError(f"the dtype '{dtype}' is none of {', '.join(DTYPES)}")
    on_cpu = backbone.embedding.tokens.weight.device.type == "cpu"
    if not on_cpu and dtype != "fp32":
        backbone.bfloat16()
    if not on_cpu and dtype != "int8":
        return backbone
    table = Product(backbone.embedding.tokens.weight, None, dtype)
    products = [table]
    # The table first: what it was can then be freed before the next copy is made.
    head: Any = backbone.head
    is_plain = type(backbone.embedding) is Embedding and type(head) is Head  # others may use the table in their way
    if is_plain:
        backbone.embedding.tokens = Table(table)  # type: ignore[assignment]
    for module in list(backbone.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                products.append(Product(child.weight, child.bias, dtype))
                setattr(module, name, products[-1])
    if is_plain:
        product = table if head.linear is None else head.linear  # a `Product` by now
        backbone.head = DecodingHead(product, head.softcap)
    if on_cpu:
        weights = [each.weight for each in products]
        compiles = compile and can_compile()
        fastest = {count: fastest_product(weights, count, compiles) for count in set(rows)}
        for each in products:
            each.fastest = fastest
        pays = packing_pays(weights[1:], fastest)
        del weights  # of which each goes as its packed form comes
        if pays:
            for each in products[1:]:
                each.pack()
            if is_plain and head.linear is None:  # a copy: in the table itself ids are looked up
                product = Product(table.weight, None, dtype)
                product.pack()
                backbone.head = DecodingHead(product, head.softcap)
    return backbone


class Product(nn.Module):
    """A linear layer whose weights are stored in fewer bits.

    Args:
        weight: (out, in) of the layer.
        bias: (out,) of the layer, or None.
        dtype: `fp32`, `bf16` or `int8`: rounded to 255 steps up to the largest of a row, and a factor for it.
        fastest: What multiplies so many rows fastest, where that has been found.
    """

    weight: Tensor  # (out, in)
    scale: Tensor | None  # (out,)
    bias: Tensor | None  # (out,)

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dtype: str, fastest: Mapping[int, RowProduct] | None = None
    ) -> None:
        super().__init__()
        scale = None
        weight, bias = weight.detach(), None if bias is None else bias.detach()
        if dtype == "bf16":
            weight = weight.bfloat16()
        elif dtype == "int8":
            least, most = weight.aminmax(dim=1)
            largest = torch.maximum(most, -least).float()  # (out,); unlike abs() without a copy of the weights
            scale = (largest / 127).clamp(min=torch.finfo(torch.float32).tiny)
            weight = (weight / scale[:, None]).round_().to(torch.int8)
        self.register_buffer("weight", weight)  # no parameter: those are compiled anew for each of their shapes
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self.fastest = fastest or {}

    def pack(self) -> None:
        """Bring the weights into oneDNN's own layout, by which it multiplies any number of rows."""
        self.weight, self.fastest = _packed(self.weight), {}

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., in) to (..., out)."""
        rows = x.numel() // x.shape[-1]
        product = self.fastest.get(rows, multiply)
        y = product(self.weight, x.reshape(rows, -1)).view(*x.shape[:-1], -1)
        if self.scale is not None:
            y = y * self.scale.to(y.dtype)
        return y if self.bias is None else y + self.bias


def multiply(weight: Tensor, x: Tensor) -> Tensor:
    """The product of weights (out, in) and any number of rows (rows, in), by what suits device, dtype and rows."""
    if weight.is_mkldnn:
        return _by_onednn(weight, x)
    if x.device.type == "cpu" and weight.dtype == torch.int8:
        return _by_int8(weight, x)
    if weight.dtype == torch.bfloat16 and CPU_MULTIPLIES_BFLOAT16:
        return _by_torch(weight, x)
    weight = weight.to(x.dtype)
    few = x.device.type == "cpu" and x.dtype == torch.float32 and len(x) <= ONEDNN_ROWS
    return _by_onednn(weight, x) if few and torch.backends.mkldnn.is_available() else F.linear(x, weight)


def fastest_product(weights: Sequence[Tensor], rows: int, compile: bool = False) -> RowProduct:
    """What multiplies so many rows fastest on this CPU: which it is differs by its vectors and by how it reads memory.

    Args:
        weights: All matrices, as stored: read one after the other, as decoding does, they come from memory. One kernel
            may be as fast as another at the largest of them, and slower at all others.
        rows: Of the other factor.
        compile: Whether a compiled product is tried.
    """
    products: list[RowProduct] = [multiply]
    if rows == 1 and weights[0].dtype != torch.int8:
        products.append(_by_torch)
    if rows > 1:
        products.append(_by_parts)
    if compile and rows <= MAX_ROWS:
        products.append(CompiledProduct())
    if len(products) == 1:
        return multiply
    times = _seconds([(product, weights) for product in products], rows)
    return products[times.index(min(times))]


def packing_pays(weights: Sequence[Tensor], fastest: Mapping[int, RowProduct]) -> bool:
    """Whether oneDNN multiplies these weights faster in a layout of its own.

    Small ones stay as they are; and so do those of single rows, which gain next to nothing, while a comparison takes
    memory for both layouts of a sample.

    Args:
        weights: Matrices, as stored.
        fastest: What multiplies so many rows fastest in the layout at hand.
    """
    multiplied = {torch.float32, torch.bfloat16} if CPU_MULTIPLIES_BFLOAT16 else {torch.float32}
    can = torch.backends.mkldnn.is_available() and {weight.dtype for weight in weights} <= multiplied
    if not can or max(fastest, default=1) == 1:
        return False
    sizes = accumulate(weight.nbytes for weight in weights)
    count = next((number for number, size in enumerate(sizes, start=1) if size >= SAMPLE), None)
    if count is None:
        return False
    plain, packed = weights[:count], [_packed(weight) for weight in weights[:count]]
    times = [_seconds([(product, plain), (_by_onednn, packed)], rows) for rows, product in fastest.items()]
    return sum(after for _, after in times) < sum(before for before, _ in times)


def _packed(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR)


def _seconds(rivals: Sequence[tuple[RowProduct, Sequence[Tensor]]], rows: int, repeats: int = 8) -> list[float]:
    """Of the best pass of each product over its weights; by turns, as the speed of memory comes and goes."""
    times: list[list[float]] = [[] for _ in rivals]
    with torch.inference_mode():
        for _ in range(repeats):
            for (product, weights), taken in zip(rivals, times, strict=True):
                start = time.perf_counter()
                for weight in weights:
                    product(weight, torch.zeros(rows, weight.shape[1]))
                taken.append(time.perf_counter() - start)
    return list(map(min, times))


def _by_torch(weight: Tensor, x: Tensor) -> Tensor:
    return F.linear(x.to(weight.dtype), weight).to(x.dtype)


def _by_onednn(weight: Tensor, x: Tensor) -> Tensor:
    # On some CPUs torch's own product of one row in fp32 reads the weights by one thread.
    return torch.ops.mkldnn._linear_pointwise(x.to(weight.dtype), weight, None, "none", [], "").to(x.dtype)


def _by_int8(weight: Tensor, x: Tensor) -> Tensor:
    if weight.shape[1] % INT8_WIDTH or len(x) > INT8_ROWS:
        return _by_parts(weight, x)
    ones = torch.ones(len(weight), dtype=torch.bfloat16)  # the factors of the rows are multiplied in fp32
    return torch._weight_int8pack_mm(x.bfloat16(), weight, ones).to(x.dtype)


def _by_parts(weight: Tensor, x: Tensor) -> Tensor:
    """Weights times rows, in which order a CPU multiplies few rows fastest, in parts that are widened first."""
    dtype = torch.bfloat16 if weight.dtype != torch.float32 and CPU_MULTIPLIES_BFLOAT16 else x.dtype
    columns = x.to(dtype).T  # (in, rows)
    y = x.new_empty(len(weight), len(x), dtype=dtype)
    for part, out in zip(*(t.split(max(PART // weight.shape[1], 1)) for t in (weight, y)), strict=True):
        torch.mm(part.to(dtype), columns, out=out)
    return y.T.to(x.dtype).contiguous()


class Table(nn.Module):
    """The token table, stored as a `Product`, as the embedding looks it up."""

    def __init__(self, product: Product) -> None:
        super().__init__()
        self.product = product

    @property
    def weight(self) -> Tensor:
        """(V, C) as stored; the head has a product of its own."""
        return self.product.weight

    def forward(self, idx: Tensor) -> Tensor:
        """Maps (B, T) to (B, T, C)."""
        x = F.embedding(idx, self.product.weight)
        x = x.float() if idx.device.type == "cpu" else x.bfloat16()
        return x if self.product.scale is None else x * self.product.scale[idx][..., None].to(x.dtype)


class DecodingHead(nn.Module):
    """The output layer by a `Product`.

    Args:
        product: Maps (..., C) to (..., V).
        softcap: Bound of the logits. None: no bound.
    """

    def __init__(self, product: nn.Module, softcap: float | None) -> None:
        super().__init__()
        self.product, self.softcap = product, softcap

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """Maps (B, T, C) to (B, T, V)."""
        logits = self.product(hidden)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)
