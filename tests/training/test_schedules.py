"""Schedules of the learning rate: their shape, their end, and what a restore keeps."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from lit_llm.training.optim import WarmupCosine, WarmupStableDecay


def rates(make: Callable[[SGD], LambdaLR], steps: int) -> list[float]:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, found = make(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_warmup_cosine() -> None:
    """Up in equal parts, the peak right after them, the half way in the middle of the decay, the floor to the end."""
    found = rates(lambda o: WarmupCosine(o, warmup_steps=3, max_steps=13, floor=0.2), 16)
    assert found[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert found[8] == pytest.approx((2.0 + 0.4) / 2)
    assert found[13:] == pytest.approx([0.4, 0.4, 0.4])
    assert found[3:14] == sorted(found[3:14], reverse=True)
    assert found[3] - found[4] < (found[8] - found[9]) / 2  # flat at the top, steep in the middle: a cosine
    assert rates(lambda o: WarmupCosine(o, 0, 10), 1) == [2.0]


def test_warmup_stable_decay() -> None:
    """Up in equal parts, the peak until the decay, down in equal parts, the floor to the end."""
    found = rates(lambda o: WarmupStableDecay(o, warmup_steps=3, max_steps=13, decay_steps=4, floor=0.2), 16)
    assert found == pytest.approx([0.5, 1.0, 1.5, *[2.0] * 7, 1.6, 1.2, 0.8, 0.4, 0.4, 0.4])
    longer = rates(lambda o: WarmupStableDecay(o, 3, 4, 113), 100)
    assert longer[:9] == pytest.approx(found[:9])  # only the decay knows where the run ends


def test_a_schedule_follows_the_run_and_keeps_its_own_settings_over_a_restore() -> None:
    """Without an end it stays at the peak; the module sets the end; a state brings the step and nothing else."""
    assert rates(lambda o: WarmupCosine(o, 2), 9)[2:] == [2.0] * 7
    assert rates(lambda o: WarmupStableDecay(o, 2, 3), 9)[2:] == [2.0] * 7
    made = [WarmupCosine(SGD([nn.Parameter(torch.zeros(1))], lr=2.0), 2, floor=0.2) for _ in range(2)]
    for schedule, end in zip(made, (6, 12), strict=True):
        schedule.end = end
    for _ in range(6):
        made[0].optimizer.step()
        made[0].step()
    assert made[0].get_last_lr() == pytest.approx([0.4])
    made[1].load_state_dict(copy.deepcopy(made[0].state_dict()))
    made[1].optimizer.step()
    made[1].step()
    assert made[1].get_last_lr() == pytest.approx([0.4 + 1.6 * 0.5])  # step 7 of 2 to 12: the middle of the cosine


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: WarmupCosine(o, 11, 10), "warmup_steps 11 do not fit into max_steps 10"),
        (lambda o: WarmupCosine(o, -1, 10), "warmup_steps -1 "),
        (lambda o: WarmupCosine(o, 1, 10, floor=1.5), r"floor 1\.5 "),
        (lambda o: WarmupCosine(o, 1, 10, floor=-0.1), r"floor -0\.1 "),
        (lambda o: WarmupStableDecay(o, 3, 8, 10), "warmup_steps 3 and decay_steps 8 do not fit into max_steps 10"),
        (lambda o: WarmupStableDecay(o, 3, -1, 10), "decay_steps -1 "),
        (lambda o: WarmupStableDecay(o, 3, 2, 10, floor=2.0), r"floor 2\.0 "),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused(make: Callable[[SGD], LambdaLR], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rates(make, 1)
