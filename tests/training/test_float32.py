"""How fp32 matrices are multiplied: by what the machine can do, within the accuracy of fp32."""

from typing import Any

import pytest
import torch

from lit_llm.training import float32
from lit_llm.training.float32 import EXACT, matmul_precision, product_error

ZEN_5 = {"cpu_name": "AMD Ryzen", "avx512_f": True, "amx_tile": False}


@pytest.mark.parametrize(
    ("cpu", "chosen"),
    [
        (ZEN_5, "medium"),
        (ZEN_5 | {"avx512_f": False}, "highest"),  # nothing to gain
        (ZEN_5 | {"amx_tile": True}, "highest"),  # "medium" would round to bfloat16
        (ZEN_5 | {"cpu_name": "Intel Xeon"}, "highest"),  # MKL is fast on its own
        ({}, "highest"),  # a torch that cannot tell
    ],
)
def test_the_choice_follows_the_cpu(cpu: dict[str, Any], chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float32, "CPU", cpu)
    # On the machine of the test "medium" may be inexact; then a Zen 5 that were so would not get it either.
    expected = chosen if product_error("medium") <= EXACT else "highest"
    assert matmul_precision(torch.device("cpu")) == expected


def test_an_inexact_product_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float32, "CPU", ZEN_5)
    monkeypatch.setattr(float32, "EXACT", 1e-9)  # beyond fp32
    assert matmul_precision(torch.device("cpu")) == "highest"


def test_a_gpu_rounds_to_tf32_and_other_devices_not_at_all() -> None:
    assert matmul_precision(torch.device("cuda")) == "high"
    assert matmul_precision(torch.device("mps")) == "highest"


def test_choosing_leaves_no_trace() -> None:
    """Neither in the process's precision nor in its random numbers; and the error of fp32 is that of fp32."""
    state = torch.get_rng_state()
    assert 0 < product_error("highest") <= EXACT
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.equal(torch.get_rng_state(), state)
