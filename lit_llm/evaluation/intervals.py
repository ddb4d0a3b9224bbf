"""Means over seeds with their intervals; tests of one model against another on the same items."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

REPLICATES = 10_000  # of a bootstrap
CHUNK = 2_000_000  # numbers in memory at once


@dataclass(frozen=True)
class Summary:
    """What some runs say of one number.

    Args:
        mean: Mean over the runs.
        deviation: Standard deviation of a run, with n - 1. None with a single run.
        half: Half of the 95 % interval of the mean. None with a single run.
        runs: How many.
    """

    mean: float
    deviation: float | None
    half: float | None
    runs: int


def summary(values: Iterable[float]) -> Summary:
    """Mean, standard deviation, and the 95 % interval of the mean by Student's t (1908).

    Args:
        values: At least one.
    """
    values = list(values)
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Summary(mean, None, None, 1)
    deviation = statistics.stdev(values)
    return Summary(mean, deviation, t_quantile(len(values) - 1) * deviation / math.sqrt(len(values)), len(values))


def t_quantile(freedom: int, inside: float = 0.95) -> float:
    """The t that Student's distribution stays within, in absolute value, with a given probability.

    The distribution is a finite sum for whole degrees of freedom (Abramowitz and Stegun, 1964, 26.7.3 and 26.7.4),
    inverted here by bisection of its angle.

    Args:
        freedom: Degrees of freedom, at least 1.
        inside: The probability, in (0, 1).
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # halves the angle's error down to rounding
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < inside else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """Probability that |t| is at most sqrt(freedom) * tan(angle)."""
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for number in range(odd + 1, freedom, 2):  # 2, 4, … freedom - 1; or 1, 3, … freedom - 1
        total += term
        term *= math.cos(angle) ** 2 * number / (number + 1)
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


def mcnemar(first: int, second: int) -> float:
    """Two-sided p of the exact McNemar test: whether two classifiers are right equally often on the same items.

    Of the items that only one of them has right, each would have half (McNemar, 1947,
    https://doi.org/10.1007/BF02295996). Of the tests that need one training, it is the one that Dietterich (1998,
    https://doi.org/10.1162/089976698300017197) finds to keep its error rate.

    Args:
        first: Items that the first has right and the second has wrong.
        second: The other way round.
    """
    number = first + second
    ways = (
        math.lgamma(number + 1) - math.lgamma(k + 1) - math.lgamma(number - k + 1)
        for k in range(min(first, second) + 1)
    )
    return min(1.0, 2 * math.fsum(math.exp(way - number * math.log(2)) for way in ways))  # logarithms: n may be large


def twice_the_median(values: Iterable[float]) -> float:
    """One p for several tests on the same items, which depend on each other in an unknown way.

    Twice their median holds whatever the dependence (Rüschendorf, 1982; Vovk and Wang, 2020,
    https://doi.org/10.1093/biomet/asaa027). A single one stays as it is.

    Args:
        values: The p of each test, at least one; of an even number of them, the upper of the two in the middle counts.
    """
    ordered = sorted(values)
    return ordered[0] if len(ordered) == 1 else min(1.0, 2 * ordered[len(ordered) // 2])


def holm(values: list[float]) -> list[float]:
    """The p of several tests such that all of them together keep the error rate (Holm, 1979).

    Args:
        values: The p of each test alone.
    """
    adjusted, floor = [0.0] * len(values), 0.0
    for rank, number in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        floor = max(floor, min(1.0, (len(values) - rank) * values[number]))
        adjusted[number] = floor
    return adjusted


@dataclass(frozen=True)
class Difference:
    """A group minus its baseline.

    Args:
        mean: Difference of the means over runs.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: Two-sided p of no difference, by the bootstrap.
    """

    mean: float
    low: float
    high: float
    p: float


def paired_bootstrap(ours: np.ndarray, theirs: np.ndarray, weights: np.ndarray) -> Difference:
    """The difference of two groups on the same items, by drawing items and runs anew.

    Items are drawn with replacement, the same for both, and so are the runs of each group (Efron and Tibshirani, 1993,
    chapters 13 and 16). A group of a single run says nothing about other seeds, nor does its interval. The draws are
    the same in each call.

    Args:
        ours: (runs, items) sums over an item, such as its loss or whether it is right.
        theirs: (runs, items) those of the baseline.
        weights: (items,) what a sum is over, such as its tokens.
    """
    random = np.random.default_rng(0)
    items = ours.shape[1]
    drawn = np.empty(REPLICATES)
    size = max(1, CHUNK // items)
    for start in range(0, REPLICATES, size):
        number = min(size, REPLICATES - start)
        rows = random.integers(items, size=(number, items)) + np.arange(number)[:, None] * items
        counts = np.bincount(rows.ravel(), minlength=number * items).reshape(number, items).astype(float)
        total = counts @ weights
        means = [_drawn_runs(random, number, len(group)) * (counts @ group.T) for group in (ours, theirs)]
        drawn[start : start + number] = (means[0].sum(1) - means[1].sum(1)) / total
    mean = float((ours.sum(1).mean() - theirs.sum(1).mean()) / weights.sum())
    low, high = np.quantile(drawn, [0.025, 0.975])
    # The draws themselves count one of the ways the data could have been: no p of 0 (Davison and Hinkley, 1997, 4.2).
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return Difference(mean, float(low), float(high), min(1.0, 2 * (1 + float(tail)) / (REPLICATES + 1)))


def _drawn_runs(random: np.random.Generator, number: int, runs: int) -> np.ndarray:
    """(number, runs) how much each run counts in a draw with replacement."""
    return random.multinomial(runs, np.full(runs, 1 / runs), size=number) / runs
