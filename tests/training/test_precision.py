"""How fp32 matrices are multiplied: as chosen, for one run alone."""

import logging
from typing import Any

import pytest
import torch
from lightning import LightningModule
from python_runs import Call, tiny_data, tiny_module, trainer

from lit_llm.training import precision
from lit_llm.training.float32 import matmul_precision
from lit_llm.training.precision import MatmulPrecision


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
