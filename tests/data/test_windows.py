"""Windows over a token file, and their targets."""

from collections import Counter
from traceback import clear_frames
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_llm.batch import IGNORE_INDEX, Batch, PackedBatch
from lit_llm.data.loader import Loader
from lit_llm.data.windows import Windows

T, V, BORDER = 7, 97, 96


def windows(length: int = 40, **settings: Any) -> Windows:
    """Over ids that tell their position, by default."""
    tokens = settings.pop("tokens", np.arange(length, dtype=np.uint16))
    settings = {"block_size": T, "stride": T, "vocab_size": 1 << 16, **settings}
    return Windows(tokens, **settings)


def firsts(batches: Any) -> list[list[int]]:
    """The first id of each row of each batch: where its window starts."""
    return [batch.idx[:, 0].tolist() for batch in batches]


# Windows.


@pytest.mark.parametrize("stride", [1, 3, T, 10])
def test_targets_follow_their_inputs(stride: int) -> None:
    served = windows(stride=stride)
    batch = served.__getitems__([2, 0])
    assert batch.idx.tolist() == [list(range(2 * stride, 2 * stride + T)), list(range(T))]
    assert torch.equal(batch.targets, batch.idx + 1)
    assert batch.idx.dtype == batch.targets.dtype == torch.int64
    assert isinstance(batch, Batch)


@given(st.integers(1, 12), st.integers(1, 15), st.integers(1, 60))
def test_there_are_as_many_windows_as_fit(block_size: int, stride: int, length: int) -> None:
    """Each whole, with its next token; one more would go past the end."""
    expected = len([start for start in range(0, length, stride) if start + block_size + 1 <= length])
    if not expected:
        with pytest.raises(ValueError, match=f"the text has {length} tokens, too few for one window of {block_size}"):
            windows(length, block_size=block_size, stride=stride)
        return
    served = windows(length, block_size=block_size, stride=stride)
    assert len(served) == expected
    assert served.__getitems__([expected - 1]).targets.max() < length


@pytest.mark.parametrize("length", [0, 1, T])
def test_a_text_shorter_than_a_window(length: int) -> None:
    """D13: refused with the sizes; T + 1 tokens are enough."""
    with pytest.raises(ValueError, match=f"the text has {length} tokens, too few for one window of {T} and its next"):
        windows(length)
    assert len(windows(T + 1)) == 1


@given(st.integers(2, 60), st.integers(1, 12), st.integers(1, 4), st.integers(1, 3))
def test_to_the_end_scores_each_token_once(length: int, block_size: int, batch_size: int, world_size: int) -> None:
    """Over all batches and all ranks, which get as many batches; every token but the first has a prediction."""
    served = windows(length, block_size=block_size, stride=block_size, to_the_end=True)
    loaders = [Loader(served, batch_size, rank, world_size) for rank in range(world_size)]
    batches = [list(loader) for loader in loaders]
    assert {len(found) for found in batches} == {len(loaders[0])}
    scored: Counter[int] = Counter()
    for batch in [batch for found in batches for batch in found]:
        scored.update(batch.targets[batch.targets != IGNORE_INDEX].tolist())
        both = batch.targets != IGNORE_INDEX
        assert torch.equal(batch.idx[both] + 1, batch.targets[both])
    assert scored == Counter(range(1, length))


@pytest.mark.parametrize("length", [0, 1])
def test_nothing_to_score(length: int) -> None:
    with pytest.raises(ValueError, match=f"the text has {length} tokens, too few for a token and its next one"):
        windows(length, to_the_end=True)


def test_documents_end_with_the_border() -> None:
    """The end-of-text token belongs to what it ends; ids change right after it."""
    tokens = np.array([5, BORDER, 3, 4, BORDER, BORDER, 9, 8, 7], dtype=np.uint16)
    batch = windows(tokens=tokens, block_size=8, stride=1, vocab_size=V, border=BORDER).__getitems__([0])
    assert isinstance(batch, PackedBatch)
    assert batch.documents.tolist() == [[0, 0, 1, 1, 1, 2, 3, 3]]
    assert batch.targets.tolist() == [tokens[1:].tolist()]


def test_an_id_beyond_the_vocabulary() -> None:
    """D3: named with its position, before any embedding is asked for it; one below is fine."""
    tokens = np.full(40, V - 1, dtype=np.uint16)
    windows(tokens=tokens, vocab_size=V).__getitems__([0, 1])
    tokens[11] = V
    with pytest.raises(ValueError, match=f"holds the id {V} at position 11, beyond the vocabulary of {V}; delete"):
        windows(tokens=tokens, vocab_size=V).__getitems__([0, 1])
    tokens[T] = V  # as a target alone
    with pytest.raises(ValueError, match=f"position {T}"):
        windows(tokens=tokens, vocab_size=V).__getitems__([0])


def test_an_error_in_a_worker_names_the_row() -> None:
    """D20: the position comes through from another process, with the traceback of that process."""
    tokens = np.zeros(40, dtype=np.uint16)
    tokens[11] = V
    with pytest.raises(ValueError, match=r"(?s)Original Traceback.*__getitems__.*position 11") as caught:
        list(Loader(windows(tokens=tokens, vocab_size=V), 2, num_workers=1))
    clear_frames(caught.tb)  # else torch waits 5 s for the worker, when the garbage collector finds it
