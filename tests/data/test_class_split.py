"""The split of labelled texts: each class in its share, repetitions on one side, a function of texts and seed."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_llm.data.class_split import leaked, normalised, split_rows, split_texts, undersampled

SHARES = {"test": 0.2, "val": 0.1}


def some(counts: list[int], repeat: int = 1) -> tuple[list[str], np.ndarray]:
    """Different texts of each class, each of them so many times."""
    texts = [f"{'abcdefgh'[target]} {'x' * number}" for target, n in enumerate(counts) for number in range(n)]
    return texts * repeat, np.repeat(np.arange(len(counts)), counts)[None].repeat(repeat, 0).ravel()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Call 0900 123 NOW", "call  0911 999\tnow ", True),
        ("\u0663 wins", "5 wins", True),  # an Arabic digit
        ("call 12", "call 123", False),
        ("call now", "call, now", False),
    ],
)
def test_what_makes_two_texts_one(one: str, other: str, same: bool) -> None:
    assert (normalised(one) == normalised(other)) is same


@pytest.mark.parametrize("counts", [[50, 70], [200, 10, 30], [11, 12, 13, 14]])
def test_each_class_is_divided_by_the_same_shares(counts: list[int]) -> None:
    """To within one text of different ones."""
    texts, targets = some(counts)
    splits = split_texts(texts, targets, SHARES, seed=1)
    for target, count in enumerate(counts):
        for split, share in SHARES.items():
            assert abs(np.count_nonzero(splits[targets == target] == split) - share * count) <= 1


def test_a_class_of_few_texts_trains_first() -> None:
    """Then it validates, then it tests, as far as it goes."""
    texts, targets = some([1, 2, 3])
    splits = split_texts(texts, targets, SHARES, seed=0)
    found = [sorted(splits[targets == target].tolist()) for target in range(3)]
    assert found == [["train"], ["train", "val"], ["test", "train", "val"]]


@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 2)), min_size=1), st.integers(0, 9))
def test_repetitions_stay_on_one_side(rows: list[tuple[str, int]], seed: int) -> None:
    """Whatever their labels, and in whatever way they are written."""
    texts = [text.upper() if number % 2 else f" {text}" for number, (text, _) in enumerate(rows)]
    splits = split_texts(texts, np.array([target for _, target in rows]), SHARES, seed)
    sides = defaultdict(set)
    for text, split in zip(texts, splits, strict=True):
        sides[normalised(text)].add(split)
    assert all(len(found) == 1 for found in sides.values())
    assert leaked([normalised(text) for text in texts], splits, "test") == 0


def test_the_split_is_a_function_of_texts_and_seed() -> None:
    """The order of the rows, generators and what is asked before leave no trace."""
    texts, targets = some([40, 20])
    whole = split_texts(texts, targets, SHARES, seed=3)
    order = np.random.default_rng(0).permutation(60)
    np.random.seed(1)
    assert split_texts([texts[i] for i in order], targets[order], SHARES, seed=3).tolist() == whole[order].tolist()
    assert split_texts(texts, targets, SHARES, seed=4).tolist() != whole.tolist()


def test_texts_stay_where_they_are_when_others_come() -> None:
    """But for those at the edge of a share."""
    texts, targets = some([200, 100])
    before = split_texts(texts[:-3], targets[:-3], SHARES, seed=3)
    assert np.count_nonzero(split_texts(texts, targets, SHARES, seed=3)[:-3] != before) <= 3


@pytest.mark.parametrize("shares", [{"test": 0.0, "val": 0.0}, {"test": 0.0, "val": 0.3}])
def test_nothing_is_held_out_unasked(shares: dict[str, float]) -> None:
    splits = split_texts(*some([20, 10]), shares, seed=0)
    assert set(splits) == {"train"} | {split for split, share in shares.items() if share}


def test_a_split_by_rows_leaks() -> None:
    """What the report compares with: of texts that all come four times, most of a test are trained on."""
    texts, targets = some([30, 20], repeat=4)
    drawn = split_rows(200, SHARES, seed=0)
    assert [np.count_nonzero(drawn == split) for split in ("train", "val", "test")] == [140, 20, 40]
    # Each is trained on unless all three others are held out: 1 - 0.3³ of 40, give or take two standard deviations.
    assert abs(leaked(texts, drawn, "test") - 40 * (1 - 0.3**3)) < 4
    assert leaked(texts, split_texts(texts, targets, SHARES, seed=0), "test") == 0


def test_undersampling() -> None:
    """As many of each as of the rarest, a function of the seed, in order; all of the rarest stay."""
    targets = np.array([0] * 9 + [2] * 4 + [0] * 5 + [1] * 7)
    kept = undersampled(targets, seed=0)
    assert np.bincount(targets[kept]).tolist() == [4, 4, 4]
    assert kept.tolist() == sorted(set(kept.tolist())) == undersampled(targets, seed=0).tolist()
    assert undersampled(targets, seed=1).tolist() != kept.tolist()
