"""Short examples put together into full windows, and the batches of examples that training reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lit_llm.batch import IGNORE_INDEX, Batch, PackedBatch, PreferenceBatch
from lit_llm.data.loader import Rows


@dataclass
class Examples:
    """Tokenized examples, one behind the other.

    Args:
        ids: (N,) ids of all.
        carries_loss: (N,) booleans: which of them are to be predicted.
        starts: (E + 1,) where each example begins, and where the last one ends.
    """

    ids: np.ndarray
    carries_loss: np.ndarray
    starts: np.ndarray

    @classmethod
    def join(cls, ids: Sequence[np.ndarray], carries_loss: Sequence[np.ndarray]) -> "Examples":
        """One after the other."""
        starts = np.concatenate([[0], np.cumsum([len(one) for one in ids], dtype=np.int64)])
        empty = np.empty(0, np.int64)
        flat = np.concatenate([empty, *ids]).astype(np.int32)
        return cls(flat, np.concatenate([empty, *carries_loss]).astype(bool), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(E,) inputs of each: its tokens but the last, which is only predicted."""
        return np.diff(self.starts) - 1

    def example(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The inputs of an example, and the targets: the token after each, where it carries loss."""
        ids = self.ids[self.starts[number] : self.starts[number + 1]]
        targets = np.where(self.carries_loss[self.starts[number] + 1 : self.starts[number + 1]], ids[1:], IGNORE_INDEX)
        return ids[:-1], targets

    def subset(self, numbers: np.ndarray) -> "Examples":
        """Some of them, in the order given."""
        places = [slice(self.starts[number], self.starts[number + 1]) for number in numbers]
        return Examples.join([self.ids[place] for place in places], [self.carries_loss[place] for place in places])

    def learnt(self) -> np.ndarray:
        """(M,) ids of all targets."""
        carries_loss = self.carries_loss.copy()
        carries_loss[self.starts[:-1]] = False  # nothing predicts a first token
        return self.ids[carries_loss]


def pack(lengths: np.ndarray, size: int, seed: int) -> list[list[int]]:
    """Which examples share a window; none is split.

    Best-fit decreasing: the longest first, each where it leaves least room (Johnson, 1974,
    https://doi.org/10.1016/S0022-0000(74)80026-7). The rooms that are left are bits of one number, so that finding one
    takes no search. Examples of equal length change places with the seed, and windows come in random order.

    Args:
        lengths: (E,) length of each example, at most `size`.
        size: Length of a window.
        seed: Chooses among equal packings.

    Returns:
        The numbers of the examples of each window.

    Raises:
        ValueError: If an example is longer than a window.
    """
    if len(lengths) and lengths.max() > size:
        raise ValueError(f"an example of {lengths.max()} tokens does not fit into a window of {size}")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(lengths))
    order = order[np.argsort(-lengths[order], kind="stable")]
    windows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(size + 1)]  # windows by the room that they have left
    rooms = 0  # bit r: a window with room r
    for number, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1  # the smallest that suffices
            window = by_room[room].pop()
            rooms ^= 0 if by_room[room] else 1 << room
        else:
            room, window = size, len(windows)
            windows.append([])
        windows[window].append(number)
        by_room[room - length].append(window)
        rooms |= 1 << (room - length)
    return [windows[i] for i in rng.permutation(len(windows))]


class PackedWindows(Rows):
    """Windows of several examples each, gathered a batch at a time; positions restart at each, and none sees another.

    Args:
        examples: What is packed.
        block_size: Length T of a window.
        seed: Of the packing, which is the same in all epochs; their order is the loader's.
        filler: Id of what is left over in a window.
        groups: Sizes of groups of examples, in order, that share no window. None: all are one group.
    """

    unit = "windows"
    too_few = "lower --data.batch_size or --data.block_size, or give more records"

    def __init__(
        self,
        examples: Examples,
        block_size: int,
        seed: int,
        filler: int = 0,
        groups: Sequence[int] | None = None,
    ) -> None:
        self.examples, self.block_size, self.filler = examples, block_size, filler
        self.windows: list[list[int]] = []
        self.sizes: list[int] = []  # windows of each group
        first = 0
        for size in [len(examples)] if groups is None else groups:
            packed = pack(examples.lengths[first : first + size], block_size, seed)
            self.windows += [[first + number for number in window] for window in packed] if first else packed
            self.sizes.append(len(packed))
            first += size

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def efficiency(self) -> float:
        """Share of the windows' places that hold an example."""
        return float(self.examples.lengths.sum()) / max(len(self) * self.block_size, 1)

    def __getitems__(self, indices: Any) -> PackedBatch:
        """A batch: (B, T) ids, targets, and documents; a window past the end is empty."""
        shape = (len(indices), self.block_size)
        idx, targets = np.full(shape, self.filler), np.full(shape, IGNORE_INDEX)  # (B, T)
        documents = np.zeros(shape, np.int64)  # 0: of no example
        for row, index in enumerate(indices):
            place = 0
            for document, number in enumerate(self.windows[index] if index < len(self) else (), start=1):
                ids, wanted = self.examples.example(number)
                here = slice(place, place + len(ids))
                idx[row, here], targets[row, here], documents[row, here] = ids, wanted, document
                place = here.stop
        return PackedBatch(torch.from_numpy(idx), torch.from_numpy(targets), torch.from_numpy(documents))


class PaddedExamples(Rows):
    """Examples, one a row, filled up to the longest of their batch.

    Args:
        examples: What is served.
        block_size: Length of all rows. None: that of the longest of the batch.
        filler: Id of what is left over in a row.
    """

    unit = "examples"
    too_few = "lower --data.batch_size, or give more records"

    def __init__(self, examples: Examples, block_size: int | None = None, filler: int = 0) -> None:
        self.examples, self.block_size, self.filler = examples, block_size, filler

    def __len__(self) -> int:
        return len(self.examples)

    def __getitems__(self, indices: Any) -> Batch:
        """A batch: (B, T) ids and targets; a row past the end carries no loss."""
        rows = [self.examples.example(i) if i < len(self) else (np.zeros(1), np.full(1, IGNORE_INDEX)) for i in indices]
        length = self.block_size or max(len(ids) for ids, _ in rows)
        idx = np.full((len(rows), length), self.filler)  # (B, T)
        targets = np.full((len(rows), length), IGNORE_INDEX)
        for row, (ids, wanted) in enumerate(rows):
            idx[row, : len(ids)], targets[row, : len(ids)] = ids, wanted
        return Batch(torch.from_numpy(idx), torch.from_numpy(targets))


class PaddedPairs(Rows):
    """Pairs of examples, filled up to the longest of their batch.

    Args:
        examples: Of all pairs: the chosen one of a pair, then its rejected one.
        numbers: (n,) the pairs that are served.
        filler: Id of what is left over in a row.
    """

    unit = "pairs"
    too_few = "lower --data.batch_size, or give more records"

    def __init__(self, examples: Examples, numbers: np.ndarray, filler: int = 0) -> None:
        self.numbers, self.padded = numbers, PaddedExamples(examples, filler=filler)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitems__(self, indices: Any) -> PreferenceBatch:
        """A batch; a pair past the end carries no loss and is in row -1."""
        rows = np.array([self.numbers[i] if i < len(self) else -1 for i in indices])  # (B,)
        chosen = np.where(rows < 0, len(self.padded), 2 * rows)
        idx, targets = self.padded.__getitems__([*chosen, *chosen + 1])
        return PreferenceBatch(idx, targets, torch.from_numpy(rows))
