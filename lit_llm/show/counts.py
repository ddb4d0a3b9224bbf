"""What batches hold in all: tokens, padding, loss, the shift, lengths."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lit_llm.batch import IGNORE_INDEX
from lit_llm.show.lines import Line

BINS = 12  # of a histogram, at most


class Bin(NamedTuple):
    """Lengths from `low` to `high`, and how many texts have one."""

    low: int
    high: int
    texts: int

    @property
    def name(self) -> str:
        """What stands beside its bar."""
        return str(self.low) if self.low == self.high else f"{self.low}–{self.high}"


class Counts:
    """Counts what batches hold.

    Args:
        end_of_text: Id that ends a document, after which another one begins in the same row. None: there is none.
    """

    def __init__(self, end_of_text: int | None) -> None:
        self.end_of_text = end_of_text
        self.batches = self.rows = self.places = self.tokens = self.learnt = 0
        self.followed = self.checked = 0  # targets that are the next input, of those that have one
        self.shared = 0  # rows that hold several texts
        self.has_targets = False
        self.labels: Counter[int] = Counter()
        self.lengths: list[int] = []

    def add(self, lines: Sequence[Line]) -> None:
        """Count a batch."""
        self.batches += 1
        for line in lines:
            self.rows += 1
            self.places += len(line.idx)
            self.tokens += line.length
            self.shared += len(list(line.stretches)) > 1
            if line.targets is None:
                self.labels.update([] if line.label is None else [line.label])
            else:
                self._add_targets(line, line.targets)
            self.lengths += self._lengths(line)

    def _add_targets(self, line: Line, targets: np.ndarray) -> None:
        self.has_targets = True
        asked = targets != IGNORE_INDEX
        self.learnt += int(asked.sum())
        inside = asked[:-1] & (np.diff(line.documents) == 0)
        inside[max(line.length - 1, 0) :] = False  # padding follows
        self.checked += int(inside.sum())
        self.followed += int((inside & (targets[:-1] == line.idx[1:])).sum())

    def _lengths(self, line: Line) -> list[int]:
        """Lengths of the texts of a row, which another one may follow without a border that a model knows of."""
        ends = np.diff(line.documents[: line.length]) != 0
        if line.targets is not None and self.end_of_text is not None and line.length:
            here = slice(0, line.length - 1)
            ends |= (line.idx[here] == self.end_of_text) & (line.targets[here] != IGNORE_INDEX)
        borders = [0, *(np.flatnonzero(ends) + 1).tolist(), line.length]
        return [length for length in np.diff(borders).tolist() if length]

    def histogram(self) -> list[Bin]:
        """How many texts there are of which length, in at most 12 steps of a round size."""
        if not self.lengths:
            return []
        low, high = min(self.lengths), max(self.lengths)
        sizes = (digit * 10**power for power in range(10) for digit in (1, 2, 5))
        size = next(size for size in sizes if high // size - low // size < BINS)
        found = Counter(length // size for length in self.lengths)
        return [Bin(n * size, (n + 1) * size - 1, found[n]) for n in range(low // size, high // size + 1)]

    def percentiles(self) -> tuple[int, int, int]:
        """Median, 95th of 100 and largest length."""
        median, most, longest = (int(np.percentile(self.lengths, share)) for share in (50, 95, 100))
        return median, most, longest
