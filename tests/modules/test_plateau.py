"""Schedules: those that follow a value are stepped at validations, all others after each optimizer step."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from averaging_runs import equal, fit, last
from lightning import Callback
from lightning.pytorch.cli import ReduceLROnPlateau
from python_runs import tiny_module
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, CyclicLR, OneCycleLR, StepLR

PLATEAU = {"factor": 0.5, "patience": 0, "threshold": 0.05}
UNITS = {
    "steps": {"max_steps": 22, "val_check_interval": 3, "check_val_every_n_epoch": None},
    "epochs": {"max_steps": -1, "max_epochs": 4},
}


class Rates(Callback):
    """Keeps the rate of each step, and what each validation of the training scores."""

    def __init__(self) -> None:
        self.rates, self.scores = dict[int, float](), dict[int, torch.Tensor]()

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        self.rates[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        self.scores[trainer.global_step] = trainer.callback_metrics["val/loss"].clone()


def of_plateau(monitor: str = "val/loss") -> Any:
    return tiny_module(lr_scheduler=partial(ReduceLROnPlateau, monitor=monitor, **PLATEAU))


@pytest.mark.parametrize("unit", UNITS)
def test_a_plateau_is_looked_for_at_each_validation(unit: str, tmp_path: Path) -> None:
    """As torch's own schedule does, stepped by hand."""
    rates = Rates()
    fit(tmp_path / "run", rates, module=of_plateau(), **UNITS[unit])
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1e-3)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **PLATEAU)
    for step, rate in rates.rates.items():
        if step in rates.scores:
            schedule.step(rates.scores[step])
        assert rate == optimizer.param_groups[0]["lr"]
    assert len(set(rates.rates.values())) > 1  # else nothing would be seen


@pytest.mark.parametrize("unit", UNITS)
def test_a_plateau_goes_on_where_it_stood(unit: str, tmp_path: Path) -> None:
    fit(tmp_path / "whole", module=of_plateau(), **UNITS[unit])
    for number, cut in enumerate([4, 13, 20, None]):
        fit(tmp_path / "parts", module=of_plateau(), resumed=number > 0, cut=cut, **UNITS[unit])
    assert equal(last(tmp_path / "whole"), last(tmp_path / "parts"))


def test_a_value_that_is_not_logged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"monitor must be a logged value \(.*val/loss.*\), got 'val/los'"):
        fit(tmp_path / "run", module=of_plateau("val/los"), **UNITS["steps"])
    with pytest.raises(ValueError, match=r"lightning.pytorch.cli.ReduceLROnPlateau"):
        fit(tmp_path / "run", module=tiny_module(lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau))


OTHERS = {
    "StepLR": partial(StepLR, step_size=3, gamma=0.5),
    "OneCycleLR": partial(OneCycleLR, max_lr=0.01, total_steps=16),
    "CosineAnnealingWarmRestarts": partial(CosineAnnealingWarmRestarts, T_0=4),
    "CyclicLR": partial(CyclicLR, base_lr=1e-4, max_lr=1e-3, step_size_up=3, cycle_momentum=False),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_schedules_step_with_the_optimizer(name: str, tmp_path: Path) -> None:
    """Not with batches or epochs; a run that is cut goes on with the same rates."""
    steps, rates = {"max_steps": 15, "accumulate_grad_batches": 2}, Rates()
    fit(tmp_path / "whole", rates, module=tiny_module(lr_scheduler=OTHERS[name]), **steps)
    optimizer = torch.optim.AdamW([torch.zeros(1)])
    schedule = OTHERS[name](optimizer)
    wanted = {}
    for step in range(15):
        wanted[step] = optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()
    assert rates.rates == wanted
    for number, cut in enumerate([5, None]):
        module = tiny_module(lr_scheduler=OTHERS[name])
        fit(tmp_path / "parts", module=module, resumed=number > 0, cut=cut, **steps)
    assert equal(last(tmp_path / "whole"), last(tmp_path / "parts"))
