"""The order of rows as a function of (seed, epoch, rank), and a loader that stops and goes on."""

import random
import time
import tracemalloc
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_llm.data.loader import BatchOrder, Loader, TrainLoader, permute
from lit_llm.data.windows import Windows

T = 7


def windows(length: int = 40, **settings: Any) -> Windows:
    """Over ids that tell their position, by default."""
    tokens = settings.pop("tokens", np.arange(length, dtype=np.uint16))
    settings = {"block_size": T, "stride": T, "vocab_size": 1 << 16, **settings}
    return Windows(tokens, **settings)


def firsts(batches: Any) -> list[list[int]]:
    """The first id of each row of each batch: where its window starts."""
    return [batch.idx[:, 0].tolist() for batch in batches]


# Permutations.


@given(st.integers(1, 3000), st.integers(0, 2**64))
def test_permute_is_a_bijection(length: int, key: int) -> None:
    assert sorted(permute(np.arange(length), length, key).tolist()) == list(range(length))


@given(st.integers(1, 500), st.integers(0, 99), st.data())
def test_permute_takes_any_places(length: int, key: int, data: st.DataObject) -> None:
    """Each place goes where it goes in company of all."""
    places = data.draw(st.lists(st.integers(0, length - 1)))
    everything = permute(np.arange(length), length, key)
    assert permute(np.array(places, dtype=np.int64), length, key).tolist() == everything[places].tolist()


def test_permutations_differ_by_key() -> None:
    orders = [permute(np.arange(50), 50, key) for key in (0, 1, 2, 1 << 32, (1 << 32) + 1, 2 << 32)]
    assert len({tuple(order) for order in orders}) == len(orders)
    for one, two in pairwise(orders):
        assert (one == two).sum() < 10  # 1 expected by chance, with a standard deviation of 1


@pytest.mark.parametrize("length", [3, 5, 16, 17])
def test_permute_looks_uniform(length: int) -> None:
    """Over many keys each place goes everywhere as often: chi-square within five standard deviations of its mean.

    For random permutations it is n / (n - 1) times a chi-square of (n - 1)² degrees of freedom.
    """
    keys = 1500
    counts = np.zeros((length, length))
    for key in range(keys):
        counts[np.arange(length), permute(np.arange(length), length, key)] += 1
    chi_square = ((counts - keys / length) ** 2 / (keys / length)).sum()
    assert abs(chi_square - length * (length - 1)) < 5 * 2**0.5 * length


def test_permute_leaves_no_trace_of_the_order() -> None:
    """Neighbours end up as far apart as strangers, and nothing correlates with where it was."""
    n = 100_000
    order = permute(np.arange(n), n, key=7).astype(float)
    assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 5 / n**0.5  # 5 standard errors
    gaps = np.abs(np.diff(order))
    assert abs(gaps.mean() / n - 1 / 3) < 5 * (1 / 18 / n) ** 0.5  # of two uniform numbers: mean 1/3, variance 1/18
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 5 / n**0.5


def test_a_thousand_million_windows_start_at_once() -> None:
    """In memory that does not know how many there are."""
    next(iter(BatchOrder(11, 3, seed=5)))  # what numpy loads on first use does not count
    tracemalloc.start()
    try:
        start = time.process_time()
        batch = next(iter(BatchOrder(10**9, 32, seed=5, epoch=3, rank=1, world_size=2)))
        seconds = time.process_time() - start
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seconds < 1
    assert peak < 100_000
    assert len(set(batch)) == 32
    assert all(0 <= place < 10**9 for place in batch)
    assert max(batch) > 5 * 10**8


# Order.


def epoch_of(
    batch_size: int, world_size: int, seed: int = 3, epoch: int = 0, length: int = 53
) -> list[list[list[int]]]:
    """The windows of each batch of each rank."""
    return [list(BatchOrder(length, batch_size, seed, epoch, rank, world_size)) for rank in range(world_size)]


@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (5, 1), (5, 2), (3, 4), (53, 1)])
def test_ranks_share_an_epoch(batch_size: int, world_size: int) -> None:
    """Disjoint, together all but the ragged rest, and as many batches for each."""
    ranks = epoch_of(batch_size, world_size)
    seen = [place for batches in ranks for batch in batches for place in batch]
    assert len(seen) == len(set(seen)) == 53 // (batch_size * world_size) * batch_size * world_size
    assert {len(batches) for batches in ranks} == {53 // (batch_size * world_size)}
    assert all(len(batch) == batch_size for batches in ranks for batch in batches)
    assert set(seen) <= set(range(53))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    assert epoch_of(5, 2) == epoch_of(5, 2)
    orders = [epoch_of(5, 2, seed, epoch) for seed in (0, 1, 3) for epoch in (0, 1, 2)]
    assert all(one != two for i, one in enumerate(orders) for two in orders[:i])


@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 6), (2, 3), (3, 2)])
def test_a_step_holds_the_same_windows_on_any_number_of_ranks(batch_size: int, world_size: int) -> None:
    """Six at a time, however they are shared."""
    (alone,) = epoch_of(6, 1)
    shared = epoch_of(batch_size, world_size)
    assert [[place for batch in step for place in batch] for step in zip(*shared, strict=True)] == alone


def test_no_seed_means_in_order_to_the_end() -> None:
    """The last batch is short; a rank with nothing left gets a window past the end."""
    assert list(BatchOrder(5, 2)) == [[0, 1], [2, 3], [4]]
    assert list(BatchOrder(5, 2, rank=0, world_size=2)) == [[0, 1], [4]]
    assert list(BatchOrder(5, 2, rank=1, world_size=2)) == [[2, 3], [5]]


# Loading.


def loader(num_workers: int = 0, batch_size: int = 3, rank: int = 0, world_size: int = 1, seed: int = 1) -> TrainLoader:
    """Over 11 windows: three batches an epoch by default, and two windows left over."""
    return TrainLoader(windows(12 * T), batch_size, seed, rank, world_size, num_workers)


def three_epochs(served: TrainLoader) -> list[list[int]]:
    return [rows for _ in range(3) for rows in firsts(served)]


def test_a_loader_serves_its_order() -> None:
    served = loader()
    assert len(served) == 3
    expected = [[T * place for place in batch] for epoch in range(3) for batch in BatchOrder(11, 3, 1, epoch)]
    assert three_epochs(served) == expected
    assert three_epochs(loader(num_workers=2)) == expected
    assert three_epochs(loader(seed=2)) != expected


def where(served: TrainLoader) -> tuple[int, int]:
    """Epoch, and windows handed out in it."""
    state = served.state_dict()
    return state["epoch"], state["rows"]


@pytest.mark.parametrize(
    ("num_workers", "stop"), [*((0, stop) for stop in (0, 1, 2, 3, 4, 6, 8)), *((2, stop) for stop in (1, 3, 4))]
)
def test_a_loader_goes_on_exactly(num_workers: int, stop: int) -> None:
    """K17: in the middle of an epoch and at its border; what workers have gathered ahead counts for nothing."""
    whole, first = three_epochs(loader()), loader(num_workers)
    before: list[list[int]] = []
    while len(before) < stop:
        before += firsts(islice(first, stop - len(before)))
    second = loader(num_workers)
    second.load_state_dict(first.state_dict())
    assert where(first) == (stop // 3, stop % 3 * 3)
    assert before == whole[:stop]
    rest = firsts(second)
    assert rest == whole[stop : stop // 3 * 3 + 3]  # to the end of this epoch, and not beyond it
    assert firsts(second) == [[T * place for place in batch] for batch in BatchOrder(11, 3, 1, stop // 3 + 1)]


def test_the_state_is_true_while_a_batch_is_in_use() -> None:
    """A checkpoint is written between two batches, the last of an epoch too: nothing happens after its yield."""
    served, states = loader(), []
    batches = iter(served)
    for _ in range(3):
        next(batches)
        states.append(where(served))
    assert states == [(0, 3), (0, 6), (1, 0)]
    assert next(batches, None) is None
    assert where(served) == states[-1]


@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (2, 1), (4, 1), (1, 2), (3, 2), (5, 1), (8, 1), (2, 5)])
def test_others_may_go_on(batch_size: int, world_size: int) -> None:
    """Another batch size or number of ranks: no window of the epoch twice, none left out but a ragged rest.

    The last batch is a short one if what is left fills none: an epoch that has begun comes to its end. The next one has
    the order that it always has.
    """
    first, together = loader(), batch_size * world_size
    before = [place for rows in firsts(islice(first, 2)) for place in rows]
    ranks = [loader(batch_size=batch_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    seen, whole = list(before), []
    for other in ranks:
        other.load_state_dict(first.state_dict())
        assert other.left == max(5 // together, 1)
        batches = firsts(other)
        assert len(batches) == other_left(5, together)
        seen += [place for rows in batches for place in rows if place < 11 * T]
        assert where(other) == (1, 0)
        whole.append(firsts(other))
    (order,) = BatchOrder(11, 11, 1, 0)
    served = 6 + min(other_left(5, together) * together, 5)
    assert sorted(seen) == sorted(T * place for place in order[:served])
    assert whole == [
        [[T * place for place in batch] for batch in BatchOrder(11, batch_size, 1, 1, rank, world_size)]
        for rank in range(world_size)
    ]


def other_left(rows_left: int, together: int) -> int:
    """Batches that an epoch ends with."""
    return max(rows_left // together, 1)


def test_an_epoch_that_was_cut_short_is_not_gone_on_with() -> None:
    """By limit_train_batches: Lightning says which epoch begins; the same one, where a run goes on."""
    served = loader()
    next(iter(served))
    served.batch_sampler.sampler.set_epoch(0)
    assert where(served) == (0, 3)
    served.batch_sampler.sampler.set_epoch(1)
    assert firsts(served) == [[T * place for place in batch] for batch in BatchOrder(11, 3, 1, 1)]


@pytest.mark.parametrize(("name", "value"), [("seed", 5), ("of_rows", 12), ("digest", "0")])
def test_a_loader_of_other_windows_or_another_order_is_refused(name: str, value: int) -> None:
    """Windows would come twice or never."""
    other = loader()
    with pytest.raises(ValueError, match=rf"made with another .*\({value}, here {other.state_dict()[name]}\)"):
        other.load_state_dict(other.state_dict() | {name: value})


def test_too_few_windows_for_a_batch() -> None:
    """D2: no endless run of epochs without a step."""
    assert len(loader(batch_size=11)) == 1
    for batch_size, world_size in ((12, 1), (6, 2)):
        with pytest.raises(
            ValueError, match=f"gives 11 windows, not one batch of {batch_size} on each of {world_size}"
        ):
            loader(batch_size=batch_size, world_size=world_size)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_global_generators_are_left_alone(num_workers: int) -> None:
    """Dropout does not depend on how data is loaded."""
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    for served in (loader(num_workers), Loader(windows(), 2, num_workers=num_workers)):
        assert list(served)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def test_the_order_does_not_depend_on_the_global_generators() -> None:
    torch.manual_seed(1)
    one = three_epochs(loader())
    torch.manual_seed(2)
    assert three_epochs(loader()) == one
