"""Losses of preference tuning, beside what their papers say, by hand."""

import math
from collections.abc import Callable

import pytest
import torch

from lit_llm.training.preference_losses import DPO, IPO, ORPO, Pairs, PreferenceLoss, SimPO

# Two pairs: (chosen, rejected), tokens, and what the reference says.
C, R = (-6.0, -9.0), (-8.0, -5.0)
N_C, N_R = (3, 5), (4, 2)
RC, RR = (-7.0, -8.5), (-7.5, -5.25)


def pairs() -> Pairs:
    return Pairs(*(torch.tensor(values, dtype=torch.float64) for values in (C, R, N_C, N_R, RC, RR)))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def dpo(c: float, r: float, n_c: int, n_r: int, rc: float, rr: float) -> float:
    return -math.log(sigmoid(0.3 * ((c - rc) - (r - rr))))


def smooth_dpo(*pair: float) -> float:
    margin = 0.3 * ((pair[0] - pair[4]) - (pair[1] - pair[5]))
    return -0.9 * math.log(sigmoid(margin)) - 0.1 * math.log(sigmoid(-margin))


def ipo(c: float, r: float, n_c: int, n_r: int, rc: float, rr: float) -> float:
    return ((c - rc) - (r - rr) - 1 / (2 * 0.3)) ** 2


def simpo(c: float, r: float, n_c: int, n_r: int, rc: float, rr: float) -> float:
    return -math.log(sigmoid(2.5 * (c / n_c - r / n_r) - 0.7))


def orpo(c: float, r: float, n_c: int, n_r: int, rc: float, rr: float) -> float:
    p_c, p_r = math.exp(c / n_c), math.exp(r / n_r)
    ratio = (p_c / (1 - p_c)) / (p_r / (1 - p_r))
    return -c / n_c - 0.2 * math.log(sigmoid(math.log(ratio)))


@pytest.mark.parametrize(
    ("loss", "by_hand"),
    [
        (DPO(0.3), dpo),
        (DPO(0.3, label_smoothing=0.1), smooth_dpo),
        (IPO(0.3), ipo),
        (SimPO(2.5, 0.7), simpo),
        (ORPO(0.2), orpo),
    ],
    ids=["DPO", "smoothed DPO", "IPO", "SimPO", "ORPO"],
)
def test_the_formula_of_the_paper(loss: PreferenceLoss, by_hand: Callable[..., float]) -> None:
    expected = [by_hand(*pair) for pair in zip(C, R, N_C, N_R, RC, RR, strict=True)]
    torch.testing.assert_close(loss(pairs()), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("beta", [0.05, 0.1, 3.0])
def test_a_model_that_is_its_reference_costs_ln_2(beta: float) -> None:
    """Exactly, in fp32."""
    known = Pairs(*(torch.tensor(values) for values in (C, R, N_C, N_R, C, R)))
    assert torch.equal(DPO(beta)(known), -torch.nn.functional.logsigmoid(torch.zeros(2)))
    assert DPO(beta)(known).tolist() == pytest.approx([math.log(2)] * 2, abs=1e-7)


def test_rewards_are_gains_over_the_reference() -> None:
    chosen, rejected = DPO(0.3).rewards(pairs())
    torch.testing.assert_close(chosen, torch.tensor([0.3, -0.15], dtype=torch.float64))
    torch.testing.assert_close(rejected, torch.tensor([-0.15, 0.075], dtype=torch.float64))


def test_a_sure_answer_keeps_the_odds_finite() -> None:
    """A probability that rounds to 1."""
    sure = Pairs(*(torch.tensor([value]) for value in (0.0, -50.0, 3.0, 2.0)))
    assert ORPO()(sure).isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DPO(0.0), "beta 0.0 cannot be"),
        (lambda: DPO(label_smoothing=0.5), "label_smoothing 0.5 cannot be"),
        (lambda: IPO(-1.0), "beta -1.0 cannot be"),
        (lambda: SimPO(gamma=-0.1), "gamma -0.1 cannot be"),
        (lambda: ORPO(float("nan")), "weight nan cannot be"),
    ],
)
def test_refuses_what_cannot_be(make: Callable[[], PreferenceLoss], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
