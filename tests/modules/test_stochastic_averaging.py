"""Stochastic weight averaging: what the end holds, and that a cut changes nothing."""

from functools import partial

import pytest
import torch
from averaging_runs import equal, fit, last
from cli_runs import same
from lightning.pytorch.callbacks import StochasticWeightAveraging
from python_runs import tiny_module

from lit_llm.training.optim import WarmupCosine

BATCHES = 6  # of an epoch
EPOCHS = {"max_steps": -1, "max_epochs": 5}


def swa(start: int | float = 2) -> StochasticWeightAveraging:
    return StochasticWeightAveraging(0.02, swa_epoch_start=start, annealing_epochs=2)


def scheduled():
    return tiny_module(lr_scheduler=partial(WarmupCosine, warmup_steps=3, max_steps=30))


def test_the_end_holds_the_mean_of_the_beginnings_of_epochs(tmp_path) -> None:
    """So does the last checkpoint, though the validation at the same step has written one of the raw weights."""
    raw = fit(tmp_path / "run", swa(), **EPOCHS)
    starts = [raw.steps[epoch * BATCHES] for epoch in range(1, 5)]
    found = last(tmp_path / "run")
    for name, value in found["state_dict"].items():
        torch.testing.assert_close(value, torch.stack([each[name] for each in starts]).mean(0), rtol=1e-6, atol=1e-7)
    assert same(found["state_dict"], raw.ended)
    assert same(found["current_model_state"], raw.steps[5 * BATCHES])
    assert list(raw.validated) == [BATCHES * epoch for epoch in range(1, 6)]
    assert all(same(seen, raw.steps[step]) for step, seen in raw.validated.items())


@pytest.mark.parametrize("cuts", [(3,), (BATCHES,), (9, 2 * BATCHES, 29)])
def test_a_run_that_is_cut_equals_one_that_is_not(cuts, tmp_path) -> None:
    """Before the average begins, within an epoch and between two, with the rates that replace the schedule."""
    fit(tmp_path / "whole", swa(), module=scheduled(), **EPOCHS)
    for number, cut in enumerate([*cuts, None]):
        fit(tmp_path / "parts", swa(), module=scheduled(), resumed=number > 0, cut=cut, **EPOCHS)
    assert equal(last(tmp_path / "whole"), last(tmp_path / "parts"))


def test_an_average_that_nobody_has_does_not_replace_the_weights(tmp_path) -> None:
    """Lightning puts the initial weights into the module where a run by steps ends before the average begins."""
    for settings in ({"max_steps": 9}, {"max_steps": 9, "max_epochs": 5}):
        with pytest.warns(UserWarning, match="before StochasticWeightAveraging had its average"):
            raw = fit(tmp_path / "run", swa(4), **settings)
        assert same(raw.ended, raw.steps[9])
        assert same(last(tmp_path / "run")["state_dict"], raw.steps[9])


def test_what_would_undo_the_training_is_refused(tmp_path) -> None:
    """A single epoch, of which the average is the initial weights; an average that begins elsewhere than before."""
    with pytest.raises(ValueError, match="it must be at least 2"):
        fit(tmp_path / "run", swa(), max_steps=-1, max_epochs=1)
    fit(tmp_path / "run", swa(0.5), max_steps=-1, max_epochs=4)
    with pytest.raises(ValueError, match="swa_epoch_start must be 2 in a run that goes on"):
        fit(tmp_path / "run", swa(0.5), resumed=True, max_steps=-1, max_epochs=6)
