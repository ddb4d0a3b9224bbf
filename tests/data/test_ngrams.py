"""The reference lines against a slow computation in plain Python."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_llm.data import ngrams
from lit_llm.data.ngrams import ngram_losses

V = 5
IDS = st.lists(st.integers(0, V - 1), min_size=2, max_size=30)


def slow(train: list[int], val: list[int]) -> dict[str, float]:
    counts, pairs, firsts = Counter(train), Counter(pairwise(train)), Counter(train[:-1])

    def unigram(b: int) -> float:
        return (counts[b] + 1) / (len(train) + V)

    def bigram(m: float) -> float:
        steps = list(pairwise(val))
        return sum(-math.log((pairs[a, b] + m * unigram(b)) / (firsts[a] + m)) for a, b in steps) / len(steps)

    return {
        "unigram_loss": sum(-math.log(unigram(b)) for b in val[1:]) / (len(val) - 1),
        "bigram_loss": min(map(bigram, (0.1, 1, 10, 100, 1000))),
    }


@given(IDS, IDS)
def test_equals_the_slow_computation(train: list[int], val: list[int]) -> None:
    """Also for pairs and ids that training has never seen."""
    assert ngram_losses(np.array(train), np.array(val), V) == pytest.approx(slow(train, val), rel=1e-12)


def test_ids_of_a_token_file_do_not_overflow() -> None:
    """uint16 and uint32 ids, of a vocabulary whose square needs 64 bits."""
    ids = np.array([69_999, 0, 69_999, 69_998] * 3)
    expected = ngram_losses(ids, ids, 70_000)
    assert ngram_losses(ids.astype(np.uint32), ids.astype(np.uint32), 70_000) == expected
    small = np.array([65_535, 0, 65_535, 65_534] * 3)
    assert ngram_losses(small.astype(np.uint16), small.astype(np.uint16), 1 << 16) == ngram_losses(
        small, small, 1 << 16
    )


def test_bigrams_win_where_one_token_decides_the_next() -> None:
    ids = np.arange(4000) % V
    losses = ngram_losses(ids, ids, V)
    assert losses["unigram_loss"] == pytest.approx(math.log(V), abs=1e-3)
    assert losses["bigram_loss"] < 0.01


def test_the_head_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work and memory are bounded: what lies behind the head changes nothing."""
    monkeypatch.setattr(ngrams, "TRAIN_TOKENS", 11)
    monkeypatch.setattr(ngrams, "VAL_TOKENS", 7)
    train, val = np.arange(40) % 3, np.arange(40) % 4
    assert ngram_losses(train, val, V) == ngram_losses(train[:11], val[:7], V) != ngram_losses(train[:10], val[:7], V)


@pytest.mark.parametrize(("train", "val"), [([], [1, 2]), ([1], [1, 2]), ([1, 2], []), ([1, 2], [1])])
def test_nothing_to_score(train: list[int], val: list[int]) -> None:
    assert ngram_losses(np.array(train), np.array(val), V) == {"unigram_loss": None, "bigram_loss": None}
