"""Whole texts in batches: padding, lengths, order by length, and a loader that goes on exactly."""

import random
from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from lit_llm.batch import IGNORE_INDEX, TextBatch
from lit_llm.data.loader import Loader
from lit_llm.data.texts import TextLoader, Texts, TextTrainLoader
from lit_llm.data.tokenizer import Bytes, Characters

T = 11  # block_size
CHOOSE = random.Random(0)
LENGTHS = [CHOOSE.randint(1, T) for _ in range(47)]


def texts(lengths: list[int] = LENGTHS, tokenizer: Any = None) -> Texts:
    """Of lengths as said; row 100 + i holds text i, of class i % 3."""
    some = ["abcdefghijklmnopq"[:length] for length in lengths]
    count = np.arange(len(lengths))
    return Texts(some, count % 3, 100 + count, tokenizer or Bytes(), T)


class Quiet(Bytes):
    """Begins every text with a token of its own, and has nothing to say of an 'a'."""

    vocab_size = 258
    begin_of_text = 257

    def encode(self, text: str) -> np.ndarray:
        return super().encode(text.replace("a", ""))


def train(batch_size: int = 4, rank: int = 0, world_size: int = 1, seed: int = 5) -> TextTrainLoader:
    return TextTrainLoader(texts(), batch_size, seed, rank, world_size)


def rows(batches: Any) -> list[list[int]]:
    return [batch.rows.tolist() for batch in batches]


# Batches.


def test_a_batch_is_padded_on_the_right_to_its_longest() -> None:
    batch = texts([3, 5, 2]).__getitems__([2, 0])
    assert isinstance(batch, TextBatch)
    assert batch.idx.tolist() == [[97, 98, 256], [97, 98, 99]]
    assert batch.lengths.tolist() == [2, 3]
    assert batch.targets.tolist() == [2, 0]
    assert batch.rows.tolist() == [102, 100]
    assert {tensor.dtype for tensor in batch} == {torch.int64}


def test_a_text_is_cut_off_at_its_end() -> None:
    """And counted; one that just fits is not."""
    served = texts([T - 1, T, T + 1, T + 6])
    assert served.truncated == 2
    assert served.lengths.tolist() == [T - 1, T, T, T]
    assert bytes(served.__getitems__([3]).idx[0].tolist()) == b"abcdefghijk"


def test_a_text_begins_as_the_tokenizer_wants_it() -> None:
    """Which counts as a token of the text."""
    served = texts([1, 3, T + 1], Quiet())
    assert served.__getitems__([0, 1]).idx.tolist() == [[257, 256, 256], [257, 98, 99]]
    assert served.truncated == 1  # T + 1 characters, of which one is silent, and the beginning
    assert served.lengths.tolist() == [1, 3, T]


def test_no_text_is_without_a_token() -> None:
    """Where there is neither an end of text nor a beginning, its padding is id 0."""
    fitted = Characters()
    fitted.fit(["abc"])
    served = Texts(["", "cb"], np.array([0, 1]), np.array([0, 1]), fitted, T)
    batch = served.__getitems__([0, 1])
    assert batch.lengths.tolist() == [1, 2]
    assert batch.idx.tolist() == [[0, 0], [2, 1]]


def test_a_text_that_cannot_be_encoded_is_named() -> None:
    """By the number of its row in the source, from 1."""
    fitted = Characters()
    fitted.fit(["abc"])
    with pytest.raises(ValueError, match=r"^text 8: the character 'z' is not among the 3"):
        Texts(["ab", "az"], np.array([0, 1]), np.array([4, 7]), fitted, T)


def test_the_text_past_the_end_is_of_no_class() -> None:
    batch = texts([3, 5]).__getitems__([2])
    assert (batch.targets.tolist(), batch.rows.tolist(), batch.lengths.tolist()) == ([IGNORE_INDEX], [-1], [1])


# Order.


@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (4, 1), (4, 2), (3, 5), (47, 1)])
def test_ranks_share_an_epoch(batch_size: int, world_size: int) -> None:
    """Disjoint, together all but the ragged rest, and as many batches for each."""
    ranks = [rows(train(batch_size, rank, world_size)) for rank in range(world_size)]
    together = batch_size * world_size
    assert {len(batches) for batches in ranks} == {47 // together}
    assert all(len(batch) == batch_size for batches in ranks for batch in batches)
    seen = [row for batches in ranks for batch in batches for row in batch]
    assert len(seen) == len(set(seen)) == 47 // together * together


@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (4, 1), (4, 3), (5, 4), (60, 1), (30, 2)])
def test_each_text_is_evaluated_once(batch_size: int, world_size: int) -> None:
    """On as many batches for each rank; what fills them up is of no class."""
    ranks = [list(TextLoader(texts(), batch_size, rank, world_size)) for rank in range(world_size)]
    assert {len(batches) for batches in ranks} == {-(-47 // (batch_size * world_size))}
    seen = Counter(row for batches in ranks for batch in batches for row in batch.rows.tolist())
    seen.pop(-1, None)
    assert seen == Counter(range(100, 147))


def test_a_step_holds_the_same_texts_on_any_number_of_ranks() -> None:
    alone = [sorted(batch) for batch in rows(train(12))]
    shared = zip(*(rows(train(3, rank, 4)) for rank in range(4)), strict=True)
    assert [sorted(row for batch in step for row in batch) for step in shared] == alone


def test_texts_of_a_batch_are_of_similar_length() -> None:
    """Sorted, 47 texts of 1 to 11 tokens in batches of four differ by one or two; in a row, by seven on average."""
    for served in (train(), TextLoader(texts(), 4)):
        spread = [int(batch.lengths.max() - batch.lengths.min()) for batch in served]
        assert sum(spread) / len(spread) < 1.5
        lengths = [int(batch.lengths.max()) for batch in served]
        assert lengths != sorted(lengths)  # batches are not
    assert sum(int(b.lengths.max() - b.lengths.min()) for b in Loader(texts(), 4)) / 12 > 5


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    """Of no global generator; and the rest that is left out is another one in each epoch, long texts and short."""
    torch.manual_seed(1)
    orders = [rows(served) for seed in (5, 6) for served in [train(seed=seed)] for _ in range(3)]
    torch.manual_seed(2)
    assert rows(train()) == orders[0]
    assert all(one != two for i, one in enumerate(orders) for two in orders[:i])
    left_out = [set(range(100, 147)) - {row for batch in order for row in batch} for order in orders]
    assert len({frozenset(some) for some in left_out}) == 6


# Going on.


@pytest.mark.parametrize("stop", [0, 1, 5, 10, 11, 12, 22, 25])
def test_a_loader_goes_on_exactly(stop: int) -> None:
    """K17: within an epoch of eleven batches and at its border."""
    whole = [batch for served in [train()] for _ in range(3) for batch in rows(served)]
    first = train()
    before = rows(islice((batch for _ in range(3) for batch in first), stop))
    second = train()
    second.load_state_dict(first.state_dict())
    assert before == whole[:stop]
    assert rows(second) == whole[stop : (stop // 11 + 1) * 11]


@pytest.mark.parametrize(("batch_size", "world_size"), [(4, 3), (12, 1), (4, 2), (2, 1), (5, 1), (20, 2)])
def test_others_may_go_on(batch_size: int, world_size: int) -> None:
    """With any number of texts a step: each text of the epoch once but for the ragged rest, also if it changes twice.

    With as many as before the batches are those of the run that was not stopped.
    """
    first, together = train(12), batch_size * world_size
    whole = [sorted(batch) for batch in rows(train(12))]
    seen = [row for batch in rows(islice(first, 1)) for row in batch]
    middle = train(1)
    middle.load_state_dict(first.state_dict())
    if together != 12:
        seen += [row for batch in rows(islice(middle, 5)) for row in batch]
    ranks = []
    for rank in range(world_size):
        other = train(batch_size, rank, world_size)
        other.load_state_dict(middle.state_dict())
        ranks.append(rows(other))
        assert (other.epoch, other.done, other.left) == (1, 0, 47 // together)
        assert rows(other) == second_epoch(batch_size, rank, world_size)
    steps = [sorted(row for batch in step for row in batch if row >= 0) for step in zip(*ranks, strict=True)]
    if together == 12:
        assert steps == whole[1:]
    left = 36 - len(seen)
    assert [len(step) for step in steps] == [together] * (left // together) or [len(step) for step in steps] == [left]
    everything = sorted(seen + [row for step in steps for row in step])
    assert len(everything) == len(set(everything)) == 36 - left % together * (left > together)
    assert set(everything) <= {row for batch in whole for row in batch}


def second_epoch(*place: int) -> list[list[int]]:
    served = train(*place)
    served.set_epoch(1)
    return rows(served)


def test_other_texts_are_refused() -> None:
    state = train().state_dict() | {"of_rows": 46}
    with pytest.raises(
        ValueError, match=r"with another number of training texts \(46, here 47\): texts would come twice"
    ):
        train().load_state_dict(state)


def test_too_few_texts_for_a_batch() -> None:
    with pytest.raises(
        ValueError, match=r"gives 47 texts, not one batch of 48 on each of 1 devices; lower --data\.batch"
    ):
        train(48)
