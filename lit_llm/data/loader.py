"""Rows of a data set in batches: their order, and a loader that can stop and go on."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

AHEAD = 16  # batches whose places are computed together, which costs little more than those of one
SAMPLED = 64  # rows by which a resumed run knows its data again


class Rows(Dataset):
    """What a loader serves: rows, gathered a batch at a time."""

    unit: str  # what messages call its rows
    too_few: str  # what to do if they do not fill a batch

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

    @abstractmethod
    def __getitems__(self, indices: Any) -> Any:
        """A batch of rows; the one past the end has targets that carry no loss."""


def permute(places: np.ndarray, length: int, key: int) -> np.ndarray:
    """Where each place of range(length) goes under a random permutation, without storing the permutation.

    A Feistel network of six rounds over the next even power of two, walked until the value is inside the range
    (Black and Rogaway, 2002, https://doi.org/10.1007/3-540-45760-7_9): constant memory, whatever the length.

    Args:
        places: (n,) integers in [0, length).
        length: Size of the range.
        key: Which permutation.
    """
    half = max((int(length - 1).bit_length() + 1) // 2, 1)
    mask = np.uint64((1 << half) - 1)
    keys = np.random.SeedSequence(key).generate_state(6, np.uint64)
    values = places.astype(np.uint64)
    outside = np.ones(len(values), dtype=bool)
    while outside.any():
        left, right = values[outside] >> np.uint64(half), values[outside] & mask
        for round_key in keys:
            mixed = (right + round_key) * np.uint64(0x9E3779B97F4A7C15)  # splitmix64's mixing constants
            mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            left, right = right, left ^ ((mixed >> np.uint64(32)) & mask)
        values[outside] = (left << np.uint64(half)) | right
        outside = values >= length
    return values.astype(np.int64)


class BatchOrder(Sampler):
    """Which rows make each batch of an epoch: a function of (seed, epoch, rank), with nothing stored.

    Args:
        length: Rows in all.
        batch_size: Rows a batch, on each rank.
        seed: Chooses the permutations. None: in order, each row once, to the end.
        epoch: Which permutation.
        rank: This process.
        world_size: Processes that share the rows.
        done: Rows of this epoch that all ranks together have been given before.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int | None = None,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        done: int = 0,
    ) -> None:
        self.length, self.batch_size, self.done = length, batch_size, done
        self.rank, self.world_size = rank, world_size
        self.key = None if seed is None else (seed << 32) + epoch

    @property
    def together(self) -> int:
        """Rows a batch, on all ranks together."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        """Batches in a whole epoch; the ragged rest of a shuffled one is left out, so that all ranks get as many."""
        return self.length // self.together if self.key is not None else -(-self.length // self.together)

    @property
    def left(self) -> int:
        """Batches still to come. An epoch that has begun with smaller ones ends with one, be it a short one."""
        return max((self.length - self.done) // self.together, 1) if self.done else len(self)

    def __iter__(self) -> Iterator[list[int]]:
        for ahead in range(0, self.left, AHEAD):
            numbers = np.arange(ahead, min(ahead + AHEAD, self.left))
            firsts = self.done + (numbers * self.world_size + self.rank) * self.batch_size
            places = firsts[:, None] + np.arange(self.batch_size)  # (batches, B)
            inside = places < self.length
            if self.key is not None:
                places[inside] = permute(places[inside], self.length, self.key)
            for row, there in zip(places, inside, strict=True):
                # A rank with nothing left gets a row past the end: all its targets carry no loss.
                yield row[there].tolist() or [self.length]


class Loader:
    """Batches in order, each row once. No DataLoader itself: Lightning would put a sampler of its own into it.

    Args:
        rows: What is served.
        batch_size: Rows a batch, on each rank.
        rank: This process.
        world_size: Processes that share the rows.
        num_workers: Processes that gather ahead; 0 is fastest unless the disk is slow.
    """

    seed: int | None = None
    epoch = 0
    repeats = False  # whether each epoch has the order of the first one

    def __init__(self, rows: Rows, batch_size: int, rank: int = 0, world_size: int = 1, num_workers: int = 0) -> None:
        self.rows, self.batch_size, self.num_workers = rows, batch_size, num_workers
        self.rank, self.world_size = rank, world_size

    @property
    def order_epoch(self) -> int:
        """The epoch whose order this one has."""
        return 0 if self.repeats else self.epoch

    def _order(self, done: int = 0) -> BatchOrder:
        place = (self.rank, self.world_size, done)
        return BatchOrder(len(self.rows), self.batch_size, self.seed, self.order_epoch, *place)

    def __len__(self) -> int:
        return len(self._order())

    def __iter__(self) -> Iterator[Any]:
        yield from self._batches(self._order())

    def _batches(self, order: BatchOrder) -> DataLoader:
        """Whole batches are asked for; a generator of its own leaves the global one alone."""
        return DataLoader(
            self.rows,
            batch_sampler=order,
            num_workers=self.num_workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
        )


class TrainLoader(Loader):
    """Shuffled batches whose state is (epoch, rows handed out).

    The order of rows depends on neither the batch size nor the number of processes, so that a run may go on with
    others: each row of an epoch comes once then, but for a ragged rest, which is left out.

    Args:
        rows: What is served.
        batch_size: Rows a batch, on each rank.
        seed: Chooses the order.
        rank: This process.
        world_size: Processes that share the rows.
        num_workers: Processes that gather ahead; 0 is fastest unless the disk is slow.

    Raises:
        ValueError: If the rows do not fill one batch on each rank.
    """

    def __init__(
        self, rows: Rows, batch_size: int, seed: int, rank: int = 0, world_size: int = 1, num_workers: int = 0
    ) -> None:
        super().__init__(rows, batch_size, rank, world_size, num_workers)
        self.seed, self.done = seed, 0
        if not len(self):
            raise ValueError(
                f"the training split gives {len(rows)} {rows.unit}, not one batch of {batch_size} on each of "
                f"{world_size} devices; {rows.too_few}"
            )

    @property
    def batch_sampler(self) -> SimpleNamespace:
        """Where Lightning looks for `set_epoch`."""
        return SimpleNamespace(sampler=self)

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch, unless it has begun already; Lightning says before each which it is.

        What `limit_train_batches` has left of the one before is skipped, as it is for a DataLoader.
        """
        if epoch != self.epoch:
            self.epoch, self.done = epoch, 0

    @property
    def left(self) -> int:
        """Batches of this epoch still to come."""
        return self._order(self.done).left

    def __iter__(self) -> Iterator[Any]:
        epoch, done, order = self.epoch, self.done, self._order(self.done)
        for number, batch in enumerate(self._batches(order), start=1):
            # Before the yield: nobody comes back after the last one.
            self.epoch, self.done = (epoch + 1, 0) if number == order.left else (epoch, done + number * order.together)
            yield batch

    @cached_property
    def digest(self) -> str:
        """Of a few rows from all over the data: other data, even with as many rows, has another one."""
        some = np.unique(np.linspace(0, len(self.rows) - 1, SAMPLED).astype(int)).tolist()
        tensors = self.rows.__getitems__(some)
        return hashlib.blake2b(b"".join(t.numpy().tobytes() for t in tensors), digest_size=8).hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, and in what."""
        what = {"of_rows": len(self.rows), "seed": self.seed, "digest": self.digest}
        return {"epoch": self.epoch, "rows": self.done, **what}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            ValueError: If the state is one of other rows, or of another order of them.
        """
        here = self.state_dict()
        unit = self.rows.unit
        names = {
            "of_rows": f"number of training {unit}",
            "seed": "seed of their order",
            "digest": f"set of training {unit}",
        }
        for name, what in names.items():
            if state[name] != here[name]:
                raise ValueError(
                    f"the checkpoint was made with another {what} ({state[name]}, here {here[name]}): "
                    f"{unit} would come twice or never; go on with the data and the --seed_everything of "
                    "that run"
                )
        self.epoch, self.done = state["epoch"], state["rows"]


def _as_it_is(batch: Any) -> Any:
    return batch
