"""How fp32 matrices are multiplied: by what the machine can do, within the accuracy of fp32, for one run alone."""

import logging
from typing import Any

import pytest
import torch
from lightning import LightningModule
from python_runs import Call, tiny_data, tiny_module, trainer

from lit_llm.training import precision
from lit_llm.training.precision import EXACT, MatmulPrecision, matmul_precision, product_error

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
    monkeypatch.setattr(precision, "CPU", cpu)
    # On the machine of the test "medium" may be inexact; then a Zen 5 that were so would not get it either.
    expected = chosen if product_error("medium") <= EXACT else "highest"
    assert matmul_precision(torch.device("cpu")) == expected


def test_an_inexact_product_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "CPU", ZEN_5)
    monkeypatch.setattr(precision, "EXACT", 1e-9)  # beyond fp32
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


def fit(tmp_path: Any, *callbacks: Any, **settings: Any) -> None:
    run = trainer(max_steps=1, limit_val_batches=0, callbacks=[*callbacks], **settings)
    run.fit(tiny_module(), tiny_data(tmp_path))


@pytest.mark.parametrize("asked", ["medium", "high", None])
def test_a_run_multiplies_as_chosen_and_the_process_as_before(tmp_path, asked: Any, caplog) -> None:
    seen = []
    watch = Call("on_train_batch_start", lambda *_: seen.append(torch.get_float32_matmul_precision()))
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        fit(tmp_path, MatmulPrecision(asked), watch)
    assert seen == [asked or matmul_precision(torch.device("cpu"))]
    assert f"fp32 matrix products: '{seen[0]}'" in caplog.text
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_run_that_fails_sets_it_back(tmp_path) -> None:
    def fail(trainer: Any, module: LightningModule, *_: Any) -> None:
        raise RuntimeError(torch.get_float32_matmul_precision())

    with pytest.raises(RuntimeError, match="medium"):
        fit(tmp_path, MatmulPrecision("medium"), Call("on_train_batch_start", fail))
    assert torch.get_float32_matmul_precision() == "highest"


def test_emulated_bfloat16_is_told(tmp_path, caplog, monkeypatch: pytest.MonkeyPatch) -> None:
    for in_hardware in (True, False):
        monkeypatch.setattr(precision, "CPU_MULTIPLIES_BFLOAT16", in_hardware)
        caplog.clear()
        with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
            fit(tmp_path, MatmulPrecision(), precision="bf16-mixed")
        assert ("emulates bfloat16" in caplog.text) == (not in_hardware)


def test_refuses_other_words() -> None:
    with pytest.raises(ValueError, match="precision 'fast' is none of torch's; choose highest"):
        MatmulPrecision("fast")
