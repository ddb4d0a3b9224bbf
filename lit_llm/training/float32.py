"""How exactly matrices of fp32 are multiplied: a property of the machine, found without timing anything."""

from typing import Literal

import torch

from lit_llm.backbone.attention_kernels import CPU

Precision = Literal["highest", "high", "medium"]

EXACT = 1e-5  # relative error: that of fp32 is 4e-7 here, that of TF32 3e-4, of bfloat16 3e-3


def matmul_precision(device: torch.device) -> Precision:
    """The value for `torch.set_float32_matmul_precision` that is fastest at an accuracy that training bears.

    On a GPU `high`: TF32, ten bits of mantissa (https://arxiv.org/abs/1710.03740 trains with as many). On AMD's CPUs
    `medium`, as long as that stays exact: MKL keeps them on AVX2, and this setting leads to oneDNN and AVX-512, twice
    as fast; with AMX, the same setting would round to bfloat16. What decides is what the machine can do, never a
    timing: a resumed run multiplies as the run before it did.
    """
    if device.type == "cuda":
        return "high"
    is_amd = str(CPU.get("cpu_name", "")).startswith("AMD")
    gains = device.type == "cpu" and is_amd and CPU.get("avx512_f") and not CPU.get("amx_tile")
    return "medium" if gains and product_error("medium") <= EXACT else "highest"


def product_error(precision: Precision) -> float:
    """Relative error of a CPU's fp32 product at that precision, measured against fp64."""
    generator = torch.Generator().manual_seed(0)  # its own: the numbers of the run stay as they are
    a, b = torch.randn(16, 256, generator=generator), torch.randn(256, 16, generator=generator)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        product = a @ b
    finally:
        torch.set_float32_matmul_precision(before)
    exact = (a.double()[:, :, None] * b.double()).sum(1)  # no product of fp64, whose library would stay in memory
    return float((product - exact).norm() / exact.norm())
