"""A product compiled for decoding: the weights are read once, and widened in registers, for all rows."""

import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from lit_llm.backbone.attention_kernels import CPU

MAX_ROWS = 16  # beyond which other products are as fast
# Rows whose sums are kept at once in the registers of a CPU. x86 has 16 of them before AVX-512, and 32 with it, as ARM
# has: with fewer, reading the weights twice takes two thirds of the time.
SUMS = 8 if CPU.get("architecture") == "x86_64" and not CPU.get("avx512_f") else 16
# To multiply and add in one step, as torch's compiler does not by default, saves a tenth of a product of 16 rows.
SETTINGS = {"cpp.max_horizontal_fusion_size": SUMS, "cpp.enable_floating_point_contract_flag": "fast"}


def product(weight: Tensor, x: Tensor) -> Tensor:
    """Maps weights (out, in) and x (rows, in) to (rows, out); in the loops that follow from it, rows come innermost."""
    wide = weight.float()
    return torch.stack([(wide * row).sum(-1) for row in x.unbind()])


class CompiledProduct:
    """`product`, compiled anew for each dtype and shape of its factors.

    Without the guards of `torch.compile`, which cost as much as a small product takes.
    """

    def __init__(self) -> None:
        self._compiled: dict[tuple[torch.dtype, torch.Size, int], Callable[[Tensor, Tensor], Tensor]] = {}

    def __call__(self, weight: Tensor, x: Tensor) -> Tensor:
        """Maps weights (out, in) of any dtype, and x (rows, in) in fp32, to (rows, out)."""
        weight, x = weight.contiguous(), x.contiguous()  # as they are already, but for rare ones
        kind = weight.dtype, weight.shape, len(x)
        if kind not in self._compiled:
            graph = make_fx(product, tracing_mode="fake")(weight, x)
            with torch._inductor.config.patch(SETTINGS):
                self._compiled[kind] = torch._inductor.standalone_compile(
                    graph, [weight, x], dynamic_shapes="from_example_inputs"
                )
        return self._compiled[kind](weight, x)


def can_compile() -> bool:
    """Whether there is a compiler for this CPU; where there is none, a notice says why."""
    try:
        with torch.inference_mode():
            CompiledProduct()(torch.zeros(5, 24), torch.zeros(1, 24))
    except Exception as error:  # no C++ compiler, or one that fails: nothing that decoding needs
        reason = str(error).strip().split("\n")[0]
        print(f"notice: decoding goes on without compiled products, which failed: {reason}", file=sys.stderr)
        return False
    return True
