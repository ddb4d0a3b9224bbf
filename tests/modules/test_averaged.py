"""An exponential moving average of the weights: what holds it, and that a cut changes nothing."""

import random

import pytest
import torch
from averaging_runs import Raw, ema, equal, fit, last
from cli_runs import same
from python_runs import tiny_module



def averages(raw: Raw, decay: float, start: int = 0, every: int = 1) -> dict[int, dict]:
    """The average after each step, by hand."""
    found, average = {}, {}
    for step, weights in raw.steps.items():
        if step - 1 >= start and (step - 1) % every == 0:
            average = {n: decay * average[n] + (1 - decay) * w for n, w in weights.items()} if average else weights
        found[step] = average
    return found


WAYS = {
    "each step": {},
    "every third step from the fifth on": {"update_every_n_steps": 3, "update_starting_at_step": 5},
    "after each epoch from the second on": {"update_every_n_steps": 0, "update_starting_at_epoch": 1},
    "each step and each epoch": {"update_starting_at_epoch": 0},
}
UNITS = {
    "steps": {"max_steps": 21, "val_check_interval": 5, "check_val_every_n_epoch": None},
    "epochs": {"max_steps": -1, "max_epochs": 4},
}


@pytest.mark.parametrize("way", list(WAYS)[:2])
def test_the_average_is_that_of_a_loop_by_hand(way, tmp_path) -> None:
    """Validations have it from its first update on, and the raw weights before; the end has it; the steps never do."""
    settings = {"start": 5, "every": 3} if "third" in way else {}
    raw = fit(tmp_path / "run", ema(**WAYS[way]), **UNITS["steps"])
    plain = fit(tmp_path / "plain", **UNITS["steps"])
    assert all(same(raw.steps[step], plain.steps[step]) for step in range(1, 22))
    wanted = averages(raw, 0.8, **settings)
    assert list(raw.validated) == [5, 10, 15, 20]
    for step, seen in raw.validated.items():
        assert same(seen, wanted[step] or raw.steps[step])
    found = last(tmp_path / "run")
    assert same(found["state_dict"], wanted[21])
    assert same(found["current_model_state"], raw.steps[21])
    assert same(raw.ended, wanted[21])


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_is_cut_anywhere_equals_one_that_is_not(way, unit, tmp_path) -> None:
    """Three cuts at random places, one of them before the average begins."""
    fit(tmp_path / "whole", ema(**WAYS[way]), **UNITS[unit])
    choose = random.Random(f"{way} {unit}")
    cuts = [choose.randrange(1, 5), *sorted(choose.sample(range(5, 21), 2))]
    for number, cut in enumerate([*cuts, None]):
        fit(tmp_path / "parts", ema(**WAYS[way]), resumed=number > 0, cut=cut, **UNITS[unit])
    assert equal(last(tmp_path / "whole"), last(tmp_path / "parts")), cuts
