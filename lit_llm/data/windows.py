"""Windows over a token file: which ones, in which order, as batches; and a loader that can stop and go on."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lit_llm.batch import IGNORE_INDEX, Batch, PackedBatch

AHEAD = 16  # batches whose places are computed together, which costs little more than those of one


class Windows(Dataset):
    """Windows of `block_size` tokens and their targets, gathered a batch at a time.

    Args:
        tokens: (N,) ids, usually mapped from disk.
        block_size: Length T of a window.
        stride: Tokens from the start of a window to the start of the next.
        vocab_size: Number of ids; a larger one in the file is an error.
        border: Id that ends a document; batches then say which document each token belongs to. None: they do not.
        to_the_end: Whether windows cover the whole text, the last ones filled up with targets that carry no loss.

    Raises:
        ValueError: If there is not one whole window, or not one target where `to_the_end` is set.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        block_size: int,
        stride: int,
        vocab_size: int,
        border: int | None = None,
        to_the_end: bool = False,
    ) -> None:
        self.tokens, self.block_size, self.stride = tokens, block_size, stride
        self.vocab_size, self.border, self.to_the_end = vocab_size, border, to_the_end
        if to_the_end:
            self.length = max(-(-(len(tokens) - 1) // stride), 0)
        else:
            self.length = (len(tokens) - 1 - block_size) // stride + 1
        if self.length < 1:
            wanted = "a token and its next one" if to_the_end else f"one window of {block_size} and its next token"
            raise ValueError(
                f"the text has {len(tokens)} tokens, too few for {wanted}; give more text, or change "
                "--data.block_size or the share that is held out"
            )

    def __len__(self) -> int:
        return self.length

    def __getitems__(self, indices: list[int] | np.ndarray) -> Batch | PackedBatch:
        """A batch: (B, T) ids and the (B, T) ids that follow them."""
        starts = np.asarray(indices, dtype=np.int64) * self.stride
        positions = starts[:, None] + np.arange(self.block_size + 1)  # (B, T + 1)
        if self.to_the_end:
            missing = positions >= len(self.tokens)
            positions = np.minimum(positions, len(self.tokens) - 1)
        ids = self.tokens[positions].astype(np.int64)
        if ids.max() >= self.vocab_size:
            row, column = np.argwhere(ids >= self.vocab_size)[0]
            raise ValueError(
                f"the token file holds the id {ids[row, column]} at position {positions[row, column]}, "
                f"beyond the vocabulary of {self.vocab_size}; delete its folder and it is made again"
            )
        idx, targets = torch.from_numpy(ids[:, :-1]), torch.from_numpy(ids[:, 1:])
        if self.to_the_end and missing.any():
            targets = targets.masked_fill(torch.from_numpy(missing[:, 1:]), IGNORE_INDEX)
        if self.border is None:
            return Batch(idx, targets)
        ends = idx == self.border
        documents = ends.cumsum(dim=1) - ends.long()  # the end-of-text token still belongs to what it ends
        return PackedBatch(idx, targets, documents)


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
    """Which windows make each batch of an epoch: a function of (seed, epoch, rank), with nothing stored.

    Args:
        length: Windows in all.
        batch_size: Windows a batch, on each rank.
        seed: Chooses the permutations. None: in order, each window once, to the end.
        epoch: Which permutation.
        rank: This process.
        world_size: Processes that share the windows.
        start: Batches already handed out in this epoch.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int | None = None,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
    ) -> None:
        self.windows, self.batch_size, self.start = length, batch_size, start
        self.rank, self.world_size = rank, world_size
        self.key = None if seed is None else (seed << 32) + epoch

    def __len__(self) -> int:
        """Batches in a whole epoch; the ragged rest of a shuffled one is left out, so that all ranks get as many."""
        together = self.batch_size * self.world_size
        return self.windows // together if self.key is not None else -(-self.windows // together)

    def __iter__(self) -> Iterator[list[int]]:
        for ahead in range(self.start, len(self), AHEAD):
            numbers = np.arange(ahead, min(ahead + AHEAD, len(self)))
            firsts = (numbers * self.world_size + self.rank) * self.batch_size
            places = firsts[:, None] + np.arange(self.batch_size)  # (batches, B)
            if self.key is not None:
                yield from permute(places.ravel(), self.windows, self.key).reshape(places.shape).tolist()
                continue
            for row in places:
                row = row[row < self.windows]
                # A rank with nothing left gets a window past the end: all its targets carry no loss.
                yield row.tolist() if len(row) else [self.windows]


class Loader:
    """Batches in order, each window once. No DataLoader itself: Lightning would put a sampler of its own into it.

    Args:
        windows: What is served.
        batch_size: Windows a batch, on each rank.
        rank: This process.
        world_size: Processes that share the windows.
        num_workers: Processes that gather ahead; 0 is fastest unless the disk is slow.
    """

    seed: int | None = None
    epoch = 0

    def __init__(
        self, windows: Windows, batch_size: int, rank: int = 0, world_size: int = 1, num_workers: int = 0
    ) -> None:
        self.windows, self.batch_size, self.num_workers = windows, batch_size, num_workers
        self.rank, self.world_size = rank, world_size

    def _order(self, start: int = 0) -> BatchOrder:
        return BatchOrder(len(self.windows), self.batch_size, self.seed, self.epoch, self.rank, self.world_size, start)

    def __len__(self) -> int:
        return len(self._order())

    def __iter__(self) -> Iterator[Batch | PackedBatch]:
        yield from self._batches(self._order())

    def _batches(self, order: BatchOrder) -> DataLoader:
        """Whole batches are asked for; a generator of its own leaves the global one alone."""
        return DataLoader(
            self.windows,
            batch_sampler=order,
            num_workers=self.num_workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
        )


class TrainLoader(Loader):
    """Shuffled batches whose state is (epoch, windows handed out); Lightning keeps it in the checkpoint.

    The order of windows depends on neither the batch size nor the number of processes, so that a run may go on with
    others: no window is left out then, and none but the last few come twice.

    Args:
        windows: What is served.
        batch_size: Windows a batch, on each rank.
        seed: Chooses the order.
        rank: This process.
        world_size: Processes that share the windows.
        num_workers: Processes that gather ahead; 0 is fastest unless the disk is slow.

    Raises:
        ValueError: If the windows do not fill one batch on each rank.
    """

    def __init__(
        self, windows: Windows, batch_size: int, seed: int, rank: int = 0, world_size: int = 1, num_workers: int = 0
    ) -> None:
        super().__init__(windows, batch_size, rank, world_size, num_workers)
        self.seed, self.batch = seed, 0
        if not len(self):
            raise ValueError(
                f"the text gives {len(windows)} windows, not one batch of {batch_size} on each of "
                f"{world_size} devices; lower --data.batch_size, --data.block_size or --data.stride"
            )

    def __iter__(self) -> Iterator[Batch | PackedBatch]:
        epoch, last = self.epoch, len(self)
        for number, batch in enumerate(self._batches(self._order(self.batch)), start=self.batch + 1):
            # Before the yield: nobody comes back after the last one.
            self.epoch, self.batch = (epoch + 1, 0) if number == last else (epoch, number)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, and in what."""
        done = {"epoch": self.epoch, "windows": self.batch * self.batch_size * self.world_size}
        return done | {"of_windows": len(self.windows), "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, in the next epoch if less than a batch is left of this one.

        Raises:
            ValueError: If the state is one of other windows, or of another order of them.
        """
        here = self.state_dict()
        for name, what in {"of_windows": "number of training windows", "seed": "seed of their order"}.items():
            if state[name] != here[name]:
                raise ValueError(
                    f"the checkpoint was made with another {what} ({state[name]}, here {here[name]}): windows would "
                    "come twice or never; go on with the data and the --seed_everything of that run"
                )
        self.epoch, self.batch = state["epoch"], state["windows"] // (self.batch_size * self.world_size)
        if self.batch >= len(self):
            self.epoch, self.batch = self.epoch + 1, 0


def _as_it_is(batch: Any) -> Any:
    return batch
