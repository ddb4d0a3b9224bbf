"""Steps whose loss jumps."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from python_runs import Call, tiny_data, tiny_module, trainer
from torch import Tensor

from lit_llm.training.optim import MuonAdamW
from lit_llm.training.spikes import LossSpikes

AT, STEPS = 4, 6


def run(folder: Any, **settings: Any) -> tuple[LossSpikes, list[dict[str, Tensor]]]:
    """The callback and the weights after each step of a run whose fifth loss is ten times what it was."""
    module, spikes, weights = tiny_module(**settings.pop("module", {})), LossSpikes(**settings), []
    plain = module.total_loss
    module.total_loss = lambda batch: plain(batch) * (10 if module.global_step == AT else 1)  # type: ignore
    keep = Call("on_train_batch_end", lambda *_: weights.append({k: v.clone() for k, v in module.state_dict().items()}))
    trainer(max_steps=STEPS, callbacks=[spikes, keep]).fit(module, tiny_data(folder))
    return spikes, weights


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("module", [{}, {"optimizer": MuonAdamW}], ids=["adamw", "muon"])
def test_a_spike_is_told_of_and_left_out_if_asked_to(tmp_path, capsys, skip, module) -> None:
    """N3: one of ten times the loss; left out, it moves no weight, and the steps around it all do."""
    spikes, weights = run(tmp_path, window=3, skip=skip, module=module)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("loss spike")]
    assert len(said) == spikes.count == 1
    assert said[0].startswith(f"loss spike at step {AT + 1}: ")
    assert said[0].endswith("; the step is left out") == skip
    steps = [moved(before, after) for before, after in pairwise(weights)]
    assert steps == [number != AT for number in range(1, STEPS)] if skip else all(steps)


def test_nothing_is_a_spike_until_the_window_is_full(tmp_path) -> None:
    spikes, _ = run(tmp_path, window=AT + 1)
    assert spikes.count == 0


def test_a_resumed_run_compares_with_the_steps_before_it(tmp_path) -> None:
    spikes, _ = run(tmp_path, window=3)
    again = LossSpikes(window=3)
    again.load_state_dict(spikes.state_dict())
    assert again.state_dict() == spikes.state_dict()
    assert len(again.state_dict()["losses"]) == 3


@pytest.mark.parametrize("settings", [{"factor": 1.0}, {"factor": float("nan")}, {"window": 0}])
def test_settings_that_cannot_be(settings) -> None:
    with pytest.raises(ValueError, match=r"factor|window"):
        LossSpikes(**settings)
