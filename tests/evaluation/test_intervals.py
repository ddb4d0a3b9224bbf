"""Intervals and tests, against tables and enumeration."""

import itertools
import math

import numpy as np
import pytest

from lit_llm.evaluation.intervals import holm, mcnemar, paired_bootstrap, summary, t_quantile, twice_the_median


@pytest.mark.parametrize(
    ("freedom", "inside", "table"),
    [
        (1, 0.95, 12.706),
        (2, 0.95, 4.303),
        (3, 0.95, 3.182),
        (4, 0.95, 2.776),
        (9, 0.95, 2.262),
        (10, 0.99, 3.169),
        (30, 0.9, 1.697),
        (120, 0.95, 1.980),
        (5_000, 0.95, 1.960),  # near the normal distribution
    ],
)
def test_t_quantiles_are_those_of_the_tables(freedom, inside, table) -> None:
    assert t_quantile(freedom, inside) == pytest.approx(table, abs=5e-4)  # tables have three digits


def test_summary() -> None:
    """Mean, deviation with n - 1, and half of the interval; a single run has no interval."""
    made = summary([1.0, 2.0, 4.0])
    assert made.mean == pytest.approx(7 / 3)
    assert made.deviation == pytest.approx(math.sqrt(7 / 3))
    assert made.half == pytest.approx(4.30265 * math.sqrt(7 / 3) / math.sqrt(3), rel=1e-5)
    alone = summary([2.5])
    assert (alone.mean, alone.deviation, alone.half, alone.runs) == (2.5, None, None, 1)


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Of 2000 samples of three, 95 % have the true mean inside; three standard errors are 1.5 %."""
    draws = np.random.default_rng(0).normal(size=(2000, 3))
    inside = sum(abs(made.mean) <= (made.half or 0) for made in map(summary, draws.tolist()))
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("first", "second", "p"), [(5, 15, 0.0414), (15, 5, 0.0414), (0, 0, 1), (7, 7, 1), (0, 6, 2 / 64)]
)
def test_mcnemar_known_values(first, second, p) -> None:
    assert mcnemar(first, second) == pytest.approx(p, abs=5e-5)


def test_mcnemar_is_the_share_of_outcomes_as_unequal() -> None:
    """Counted over all ways in which seven items could fall."""
    for first in range(8):
        far = abs(first - 3.5)
        ways = sum(abs(sum(way) - 3.5) >= far for way in itertools.product((0, 1), repeat=7))
        assert mcnemar(first, 7 - first) == pytest.approx(ways / 2**7)


def test_mcnemar_of_many_items() -> None:
    assert 0 <= mcnemar(40_000, 60_000) < 1e-300


def test_holm() -> None:
    """The example of 0.01, 0.04, 0.03 by hand; order kept, never above 1, never below its own."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_twice_the_median() -> None:
    assert twice_the_median([0.03]) == 0.03
    assert twice_the_median([0.01, 0.02, 0.9]) == pytest.approx(0.04)
    assert twice_the_median([0.01, 0.3]) == 0.6  # the upper of the two, to be on the safe side
    assert twice_the_median([0.7, 0.8, 0.9]) == 1


def test_the_bootstrap_knows_the_interval_of_a_mean() -> None:
    """Of 400 items with a normal difference, that of theory, ± 1.96 s / 20; within 5 % of its width."""
    draws = np.random.default_rng(1).normal(0.3, 1.0, size=400)
    theirs = np.random.default_rng(2).normal(size=400)
    made = paired_bootstrap((theirs + draws)[None], theirs[None], np.ones(400))
    half = 1.96 * draws.std() / 20
    assert made.mean == pytest.approx(draws.mean())
    assert (made.low, made.high) == pytest.approx((draws.mean() - half, draws.mean() + half), abs=0.05 * 2 * half)
    assert made.p < 0.001


def test_the_bootstrap_weighs_items_by_their_tokens() -> None:
    """The difference of sums over the sum of tokens; without any difference p is 1."""
    ours, theirs, tokens = np.array([[2.0, 9.0]]), np.array([[1.0, 3.0]]), np.array([1.0, 6.0])
    assert paired_bootstrap(ours, theirs, tokens).mean == pytest.approx(1.0)  # (11 - 4) / 7
    same = paired_bootstrap(theirs, theirs, tokens)
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_seeds_widen_the_interval() -> None:
    """Two runs that differ on every item say less than two that agree, at the same mean."""
    base = np.random.default_rng(3).normal(size=(1, 50))
    agree, differ = np.concatenate([base + 1, base + 1]), np.concatenate([base, base + 2])
    narrow, wide = (paired_bootstrap(ours, base, np.ones(50)) for ours in (agree, differ))
    assert narrow.mean == pytest.approx(wide.mean)
    assert wide.high - wide.low > narrow.high - narrow.low + 1


def test_p_of_no_difference_is_small_as_seldom_as_it_should() -> None:
    """Of 100 comparisons without a difference, about 5 % fall below 0.05: at most 12 %, three standard errors above."""
    random = np.random.default_rng(4)
    values = [paired_bootstrap(*random.normal(size=(2, 1, 40)), np.ones(40)).p for _ in range(100)]
    assert 0.01 <= np.mean(np.array(values) < 0.05) <= 0.12
