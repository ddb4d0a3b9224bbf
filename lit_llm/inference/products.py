"""Decoding in fewer bits, and the product that it consists of: one row times a matrix, as fast as memory is read."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_llm.backbone import GPT
from lit_llm.backbone.attention_kernels import CPU_MULTIPLIES_BFLOAT16
from lit_llm.backbone.layers import Embedding, Head

DTYPES = ("fp32", "bf16", "int8")
INT8_WIDTH = 32  # torch's int8 kernels read so many numbers at once, on some CPUs beyond the end of a row
SHAPES = 256  # of matrices for which a product may be compiled; torch would stop at 8
FEW_ROWS = 32  # up to which oneDNN multiplies fp32 faster than torch's own library of an x86 CPU, by up to twice
RowProduct = Callable[[Tensor, Tensor], Tensor]  # (out, in) weights and (in,) to (out,)


def prepare(backbone: GPT, dtype: str = "fp32", compile: bool = False) -> GPT:
    """Make a backbone ready for nothing but decoding: its linear layers, token table and head are replaced in place.

    Weights are stored in `dtype`, int8 with a factor for each row; on a CPU everything else is computed in fp32.

    Args:
        backbone: The network, in eval mode.
        dtype: `fp32`, `bf16` or `int8`.
        compile: Whether the product of one row and a matrix is compiled for a CPU; takes seconds, and a C++ compiler.

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
        row_product = fastest_row_product([each.weight for each in products], compile)
        for each in products:
            each.row_product = row_product
    return backbone


class Product(nn.Module):
    """A linear layer whose weights are stored in fewer bits.

    Args:
        weight: (out, in) of the layer.
        bias: (out,) of the layer, or None.
        dtype: `fp32`, `bf16` or `int8`: rounded to 255 steps up to the largest of a row, and a factor for it.
        row_product: What multiplies a single row. None: what multiplies several.
    """

    weight: Tensor  # (out, in)
    scale: Tensor | None  # (out,)
    bias: Tensor | None  # (out,)

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: str, row_product: RowProduct | None = None) -> None:
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
        self.row_product = row_product

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., in) to (..., out)."""
        y = multiply(x, self.weight, self.row_product)
        if self.scale is not None:
            y = y * self.scale.to(y.dtype)
        return y if self.bias is None else y + self.bias


def multiply(x: Tensor, weight: Tensor, row_product: RowProduct | None = None) -> Tensor:
    """The product of x (..., in) and weight (out, in): the one place that picks a kernel, by device, dtype and rows."""
    rows = x.numel() // x.shape[-1]
    if row_product is not None and rows == 1:
        return row_product(weight, x.reshape(-1)).view(*x.shape[:-1], -1)
    if x.device.type == "cpu" and weight.dtype == torch.int8:
        return _by_int8(weight, x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)
    if weight.dtype == torch.bfloat16 and CPU_MULTIPLIES_BFLOAT16:
        return F.linear(x.bfloat16(), weight).to(x.dtype)
    weight = weight.to(x.dtype)
    if (
        x.device.type == "cpu"
        and rows <= FEW_ROWS
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
    ):
        return _by_onednn(weight, x.reshape(rows, -1)).view(*x.shape[:-1], -1)
    return F.linear(x, weight)


def fastest_row_product(weights: Sequence[Tensor], compile: bool = False) -> RowProduct:
    """What multiplies a single row fastest on this CPU: which it is differs by its vectors and by how it reads memory.

    Args:
        weights: All matrices, as stored: read one after the other, as decoding does, they come from memory. One kernel
            may be as fast as another at the largest of them, and slower at all others.
        compile: Whether a compiled product may be tried: `(W * x).sum(-1)` in one pass.
    """
    kind = weights[0].dtype
    products: list[RowProduct] = [_by_int8] if kind == torch.int8 else [_by_torch]
    if kind == torch.float32 and torch.backends.mkldnn.is_available():
        products.append(_by_onednn)

    def seconds(product: RowProduct) -> float:
        return _seconds(lambda: [product(weight, torch.zeros(weight.shape[1])) for weight in weights])

    if not compile:  # and so without the seconds that it takes to import a compiler
        return min(products, key=seconds)
    with torch._dynamo.config.patch(recompile_limit=SHAPES):
        if (compiled := compiled_row_product(kind)) is not None:
            products.append(compiled)
        return min(products, key=seconds)


def _seconds(run: Callable[[], object], repeats: int = 8) -> float:
    """Of the fastest of some runs."""
    times = []
    with torch.inference_mode():
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    return min(times)


def _by_torch(weight: Tensor, x: Tensor) -> Tensor:
    return F.linear(x.to(weight.dtype), weight).to(x.dtype)


def _by_onednn(weight: Tensor, x: Tensor) -> Tensor:
    """x: (in,) or (rows, in). On some CPUs torch's own product of one row in fp32 reads the weights by one thread."""
    y = torch.ops.mkldnn._linear_pointwise(x.view(-1, x.shape[-1]), weight, None, "none", [], "")
    return y.view(*x.shape[:-1], -1)


def _by_int8(weight: Tensor, x: Tensor) -> Tensor:
    """x: (in,) or (rows, in)."""
    if weight.shape[1] % INT8_WIDTH:
        return F.linear(x, weight.to(x.dtype))
    ones = torch.ones(len(weight), dtype=torch.bfloat16)  # the factors of the rows are multiplied in fp32
    return (
        torch._weight_int8pack_mm(x.view(-1, x.shape[-1]).bfloat16(), weight, ones).to(x.dtype).view(*x.shape[:-1], -1)
    )


def compiled_row_product(dtype: torch.dtype) -> RowProduct | None:
    """(W * x).sum(-1), compiled for each shape of a matrix anew. None, with a notice, where it cannot be."""
    # One product for all shapes would be up to 1.5 times as slow.
    product = torch.compile(lambda weight, x: (weight.float() * x).sum(-1), dynamic=False)
    try:
        with torch.inference_mode():
            product(torch.zeros(5, 24, dtype=dtype), torch.zeros(24))
    except Exception as error:  # no C++ compiler, or one that fails: nothing that decoding needs
        reason = str(error).strip().split("\n")[0]
        print(f"notice: decoding goes on without compiled products, which failed: {reason}", file=sys.stderr)
        return None
    return product


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
