"""Rows of sources with weights: how often each comes, in which epoch, on which rank, and how a loader goes on."""

from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_llm.batch import Batch
from lit_llm.data.loader import Rows
from lit_llm.data.texts import Texts
from lit_llm.data.tokenizer import Bytes
from lit_llm.data.weighted import Mix, text_train_loader, train_loader
from lit_llm.data.windows import Windows

B, SEED = 3, 5
SIZES, WEIGHTS = (7, 10, 4), (2.0, 0.3, 1.5)  # 14, 3 and 6 places in an epoch
TIMES = 7 * [2.0] + 10 * [0.3] + 4 * [1.5]


def rows() -> Windows:
    """Windows of one token, which is the number of the row."""
    return Windows(np.arange(sum(SIZES) + 1, dtype=np.uint16), 1, 1, 1 << 16)


def mix() -> Mix:
    return Mix(SIZES, WEIGHTS, SEED)


def read(batches: Any) -> list[int]:
    return [int(row) for batch in batches for row in batch.idx[:, 0]]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0.05, 3.5)), min_size=1, max_size=4), st.integers(1, 25))
def test_rows_come_as_often_as_their_weights_say(sources: list[tuple[int, float]], epochs: int) -> None:
    """In each epoch floor(w) times or once more, and no row ever more than once more often than its neighbours."""
    sizes, weights = zip(*sources, strict=True)
    found = Mix(sizes, weights, SEED)
    counts = np.zeros(sum(sizes), int)
    for epoch in range(epochs):
        of_epoch = np.bincount(found.rows(np.arange(len(found)), epoch), minlength=len(counts))
        counts += of_epoch
        first = 0
        for size, weight in sources:
            here, total = of_epoch[first : first + size], counts[first : first + size]
            assert not size or here.sum() == pytest.approx(max(weight * size, 1), abs=0.5001)
            assert set(here.tolist()) <= {int(weight), int(weight) + 1}
            assert not size or total.max() - total.min() <= 1
            first += size


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("world", [1, 2])
def test_all_ranks_together_read_each_row_by_its_weight(world: int, workers: int) -> None:
    """But for the ragged rest of an epoch; ten epochs, in which the places of 0.3 and 1.5 go around."""
    loaders = [train_loader(rows(), mix(), B, SEED, rank, world, workers) for rank in range(world)]
    counts: Counter[int] = Counter()
    for _ in range(10):
        of_epoch = Counter(row for loader in loaders for row in read(loader))
        assert of_epoch.total() == 23 // (B * world) * B * world
        assert all(of_epoch[row] <= int(TIMES[row]) + 1 for row in of_epoch)
        counts += of_epoch
    left_out = 10 * 23 - counts.total()
    wanted = [10 * times for times in TIMES]
    missing = [times - counts[row] for row, times in enumerate(wanted)]
    assert sum(missing) == left_out
    assert max(missing) <= 10
    assert min(missing) >= -1


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_loader_goes_on_in_the_middle_of_an_epoch(epoch: int) -> None:
    """With the rows of that epoch, which differ from those of others; a state that was asked for early is no other."""
    whole = train_loader(rows(), mix(), B, SEED)
    epochs = [read(whole) for _ in range(4)]
    assert len({frozenset(Counter(one).items()) for one in epochs}) == 4
    first = train_loader(rows(), mix(), B, SEED)
    for _ in range(epoch):
        read(first)
    begun = read(islice(first, 4))
    state = first.state_dict()
    second = train_loader(rows(), mix(), B, SEED)
    assert second.state_dict()["digest"] == state["digest"]
    second.load_state_dict(state)
    assert begun + read(second) == epochs[epoch]
    assert read(second) == epochs[epoch + 1]


def test_another_mix_is_refused() -> None:
    """It would read other rows from there on."""
    state = train_loader(rows(), mix(), B, SEED).state_dict()
    other = train_loader(rows(), Mix(SIZES, (2.0, 0.3, 1.0), SEED), B, SEED)
    with pytest.raises(ValueError, match="another number of training windows"):
        other.load_state_dict(state)


def test_texts_of_similar_length_share_a_batch() -> None:
    """Also those of a source of which each epoch reads a part only: little more padding than if all were read."""
    names = ["ab" * (1 + number % 40) for number in range(400)]
    texts = Texts(names, np.zeros(400, int), np.arange(400), Bytes(), 100)
    loader = text_train_loader(texts, Mix((200, 200), (0.5, 2.0), SEED), 4, SEED)
    for _ in range(2):
        batches = list(loader)
        counts = Counter(row for batch in batches for row in batch.rows.tolist())
        assert sum(counts[row] for row in range(200)) == 100
        assert all(counts[row] == 2 for row in range(200, 400))
        lengths = [batch.lengths for batch in batches]
        assert sum(int(one.max() - one.min()) for one in lengths) / len(lengths) < 8  # 43 in a random order


def test_batches_are_those_of_the_rows() -> None:
    """What is gathered is what the rows themselves give."""

    class Numbers(Rows):
        unit, too_few = "numbers", ""

        def __len__(self) -> int:
            return 4

        def __getitems__(self, indices: Any) -> Batch:
            return rows().__getitems__(indices)

    found = list(train_loader(Numbers(), Mix((4,), (3.0,), SEED), 12, SEED))
    assert Counter(read(found)) == {0: 3, 1: 3, 2: 3, 3: 3}
