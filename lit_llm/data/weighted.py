"""Sources that are read more or less often than others: how often each row comes in an epoch, and in which."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lit_llm.data.loader import BatchOrder, Rows, TrainLoader, permute
from lit_llm.data.texts import Texts, TextTrainLoader


@dataclass(frozen=True)
class Mix:
    """How often the rows of each source come in an epoch.

    A row of a source with the weight w comes floor(w) times in each epoch, and once more in some epochs: these rows are
    the next ones, epoch by epoch, of a random order of the source, around and around. So n rows give round(w * n)
    places in each epoch, at least one, and after any number of epochs no row of a source has come more than once more
    often than another.

    Args:
        sizes: Rows of each source; those of a source stand together, in this order.
        weights: Of each source, greater than 0.
        seed: Chooses the random orders.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int

    @cached_property
    def places(self) -> tuple[int, ...]:
        """Places that each source has in an epoch."""
        pairs = zip(self.sizes, self.weights, strict=True)
        return tuple(max(math.floor(weight) * size + _extra(size, weight), min(size, 1)) for size, weight in pairs)

    def __len__(self) -> int:
        return sum(self.places)

    def rows(self, places: np.ndarray, epoch: int) -> np.ndarray:
        """The row at each place of an epoch.

        Args:
            places: (n,) integers in [0, len).
            epoch: Which.
        """
        rows = np.empty_like(places)
        start = first = 0
        for size, weight, count in zip(self.sizes, self.weights, self.places, strict=True):
            inside = (places >= start) & (places < start + count)
            if inside.any():
                rows[inside] = first + self._rows_of_source(places[inside] - start, epoch, size, weight, count)
            start, first = start + count, first + size
        return rows

    def _rows_of_source(self, places: np.ndarray, epoch: int, size: int, weight: float, count: int) -> np.ndarray:
        always = math.floor(weight) * size
        rows = places % size
        if (extra := places >= always).any():
            turn = (epoch * (count - always) + places[extra] - always) % size
            rows[extra] = permute(turn, size, self.seed)
        return rows

    def report(self, names: Sequence[str], unit: str) -> str:
        """A line of a report: how many rows of each source an epoch reads.

        Args:
            names: Of the sources.
            unit: What rows are called.
        """
        parts = zip(names, self.sizes, self.weights, self.places, strict=True)
        told = (f"{count:,} of '{name}' ({size:,} at weight {weight:g})" for name, size, weight, count in parts)
        return f"an epoch reads {len(self):,} {unit}: {', '.join(told)}"


def _extra(size: int, weight: float) -> int:
    return round((weight - math.floor(weight)) * size)


class WeightedRows(Rows):
    """The rows that an epoch reads, of sources with weights.

    Args:
        whole: Each row once.
        mix: How often they come.
        epoch: Which epoch.
    """

    def __init__(self, whole: Rows, mix: Mix, epoch: int = 0) -> None:
        self.whole, self.mix, self.epoch = whole, mix, epoch
        self.unit, self.too_few = whole.unit, whole.too_few

    def at(self, epoch: int) -> "WeightedRows":
        """Those of another epoch."""
        return self if epoch == self.epoch else WeightedRows(self.whole, self.mix, epoch)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(N,) lengths of the texts, where rows are texts."""
        whole: Any = self.whole
        return whole.lengths[self.mix.rows(np.arange(len(self)), self.epoch)]

    def __len__(self) -> int:
        return len(self.mix)

    def __getitems__(self, indices: Any) -> Any:
        """A batch of rows."""
        return self.whole.__getitems__(self.mix.rows(np.asarray(indices, dtype=np.int64), self.epoch))


class _Weighted:
    """Mixin for a loader: each epoch has its own rows, and the order of their places is that of any other loader."""

    rows: WeightedRows
    order_epoch: int

    @cached_property
    def digest(self) -> str:
        """Of a few rows of the first epoch, whichever it is now."""
        now, self.rows = self.rows, self.rows.at(0)
        found = super().digest  # type: ignore[misc]
        self.rows = now
        return found

    def _order(self, *args: Any, **settings: Any) -> BatchOrder:
        self.rows = self.rows.at(self.order_epoch)
        return super()._order(*args, **settings)  # type: ignore[misc]


class WeightedLoader(_Weighted, TrainLoader):  # type: ignore[misc]
    """Shuffled batches of rows with weights."""


class WeightedTextLoader(_Weighted, TextTrainLoader):  # type: ignore[misc]
    """Shuffled batches of texts of similar length, with weights."""


def train_loader(rows: Rows, mix: Mix | None, *settings: Any) -> TrainLoader:
    """Shuffled batches, of weighted rows if there is a mix.

    Args:
        rows: What is served, each once.
        mix: How often each row comes. None: once.
        settings: As of `TrainLoader`, after the rows.
    """
    return TrainLoader(rows, *settings) if mix is None else WeightedLoader(WeightedRows(rows, mix), *settings)


def text_train_loader(texts: Texts, mix: Mix | None, *settings: Any) -> TextTrainLoader:
    """As `train_loader`, in batches of texts of similar length."""
    if mix is None:
        return TextTrainLoader(texts, *settings)
    return WeightedTextLoader(WeightedRows(texts, mix), *settings)
