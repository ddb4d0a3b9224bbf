"""Packing: full windows, nothing split, and the losses and gradients of unpacked examples."""

from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_llm.backbone import GPT
from lit_llm.backbone.layers import CausalSelfAttention, Embedding
from lit_llm.backbone.rotary import Rotary
from lit_llm.batch import IGNORE_INDEX, Batch, PackedBatch
from lit_llm.data.loader import Loader, TrainLoader
from lit_llm.data.packing import Examples, PackedWindows, PaddedExamples, pack
from lit_llm.modules import LanguageModeling

T, V = 13, 97


def examples(count: int = 11, longest: int = T + 1, seed: int = 0) -> Examples:
    """Random ones; of each, the second half carries loss."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(1, V, rng.integers(2, longest + 1)) for _ in range(count)]
    return Examples.join(ids, [np.arange(len(one)) >= len(one) // 2 for one in ids])


def rows_of(batch: PackedBatch) -> list[tuple]:
    """What each document of a batch holds."""
    found = []
    for idx, targets, documents in zip(*(part.numpy() for part in batch), strict=True):
        for document in range(1, documents.max() + 1):
            here = documents == document
            assert np.diff(np.flatnonzero(here)).max(initial=1) == 1  # in one piece
            found.append((tuple(idx[here]), tuple(targets[here])))
    return found


def test_an_example_predicts_what_follows_where_it_carries_loss() -> None:
    ids, targets = Examples.join([np.array([5, 6, 7, 8])], [np.array([True, False, True, True])]).example(0)
    assert (ids.tolist(), targets.tolist()) == ([5, 6, 7], [IGNORE_INDEX, 7, 8])
    assert examples(0).lengths.tolist() == []


def test_what_is_learnt_is_what_is_a_target() -> None:
    served = examples()
    targets = np.concatenate([served.example(number)[1] for number in range(len(served))])
    assert served.learnt().tolist() == targets[targets != IGNORE_INDEX].tolist()
    some = served.subset(np.array([3, 1]))
    assert [some.example(i)[0].tolist() for i in range(2)] == [served.example(i)[0].tolist() for i in (3, 1)]


@settings(max_examples=60)
@given(lengths=st.lists(st.integers(1, 31), max_size=60), seed=st.integers(0, 5))
def test_every_example_is_in_one_window(lengths: list[int], seed: int) -> None:
    """None is split, no window is too full, and at most one is less than half full."""
    sizes = np.array(lengths, dtype=np.int64)
    windows = pack(sizes, 31, seed)
    assert sorted(number for window in windows for number in window) == list(range(len(lengths)))
    filled = [sum(lengths[number] for number in window) for window in windows]
    assert all(0 < room <= 31 for room in filled)
    assert sum(2 * room <= 31 for room in filled) <= 1


def test_windows_are_nearly_full() -> None:
    """Of lengths as Alpaca's, 98 places in 100 and more; by the same seed the same, by another one others."""
    lengths = np.random.default_rng(0).lognormal(4.5, 0.5, 5000).astype(np.int64).clip(1, 512)
    windows = pack(lengths, 512, seed=1)
    assert lengths.sum() / (512 * len(windows)) > 0.98
    assert windows == pack(lengths, 512, seed=1) != pack(lengths, 512, seed=2)


def test_what_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="an example of 32 tokens does not fit into a window of 31"):
        pack(np.array([3, 32]), 31, seed=0)


def test_a_packed_batch_holds_whole_examples() -> None:
    served = examples()
    windows = PackedWindows(served, T, seed=0, filler=96)
    batches = list(Loader(windows, batch_size=2))
    assert {batch.idx.shape for batch in batches} <= {(2, T), (1, T)}
    wanted = [tuple(tuple(part.tolist()) for part in served.example(number)) for number in range(len(served))]
    assert Counter(row for batch in batches for row in rows_of(batch)) == Counter(wanted)
    for batch in batches:
        empty = batch.documents == 0
        assert (batch.idx[empty] == 96).all()
        assert (batch.targets[empty] == IGNORE_INDEX).all()
    assert windows.efficiency == served.lengths.sum() / (len(windows) * T)


def test_a_padded_batch_is_as_long_as_its_longest_example() -> None:
    served = examples()
    (batch,) = Loader(PaddedExamples(served, filler=96), batch_size=len(served))
    assert batch.idx.shape == (len(served), served.lengths.max())
    assert PaddedExamples(served, block_size=20).__getitems__([0]).idx.shape == (1, 20)
    for row, number in enumerate(range(len(served))):
        ids, targets = served.example(number)
        assert batch.idx[row].tolist() == ids.tolist() + [96] * (batch.idx.shape[1] - len(ids))
        assert batch.targets[row].tolist() == targets.tolist() + [IGNORE_INDEX] * (batch.idx.shape[1] - len(ids))


@pytest.mark.parametrize("kind", [PackedWindows, PaddedExamples])
def test_a_rank_with_nothing_left_learns_nothing(kind: Any) -> None:
    served = kind(examples(1), T, 0)
    batch = next(iter(Loader(served, 1, rank=1, world_size=2)))
    assert (batch.targets == IGNORE_INDEX).all()


def test_the_order_is_that_of_the_loader() -> None:
    """Another one in each epoch, and exact where a run goes on."""
    windows = PackedWindows(examples(60), T, seed=0)
    loader = TrainLoader(windows, 2, seed=3)
    first, second = ([batch.idx.tolist() for batch in loader] for _ in range(2))
    assert first != second
    again = TrainLoader(windows, 2, seed=3)
    stream = iter(again)
    next(stream)
    resumed = TrainLoader(windows, 2, seed=3)
    resumed.load_state_dict(again.state_dict())
    assert [batch.idx.tolist() for batch in resumed] == first[1:]


@pytest.mark.parametrize("rotary", [False, True])
def test_losses_and_gradients_are_those_of_unpacked_examples(rotary: bool) -> None:
    """In double precision to 12 digits; with learnt positions and with rotary ones."""
    torch.manual_seed(0)
    parts: dict[str, Any] = {}
    if rotary:
        parts = {
            "attention": partial(CausalSelfAttention, rotary=Rotary),
            "embedding": partial(Embedding, positions=False),
        }
    module = LanguageModeling(GPT(V, T, n_layer=2, n_head=4, n_embd=24, **parts)).double()
    served = examples()
    (packed,) = Loader(PackedWindows(served, T, seed=0), batch_size=len(served))
    (padded,) = Loader(PaddedExamples(served), batch_size=len(served))
    alone = [
        Batch(*(torch.from_numpy(part.astype(np.int64))[None] for part in served.example(i)))
        for i in range(len(served))
    ]
    assert packed.idx.shape[0] < padded.idx.shape[0]
    results = []
    for batches in ([packed], [padded], alone):
        module.zero_grad()
        total = sum(module.total_loss(batch) for batch in batches)
        total.backward()  # type: ignore[union-attr]
        results.append([total.detach(), *(parameter.grad.clone() for parameter in module.parameters())])  # type: ignore[union-attr]
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
