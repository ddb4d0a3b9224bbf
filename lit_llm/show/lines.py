"""Batches of any kind as lines: ids, targets, which of them belong together, and what is padding."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from lit_llm.batch import IGNORE_INDEX, PreferenceBatch


class Line(NamedTuple):
    """A row of a batch.

    Args:
        idx: (T,) ids that a model reads.
        targets: (T,) ids that it is asked for; IGNORE_INDEX: for none. None: it is asked for a class.
        documents: (T,) numbers that change where another text begins, which does not see the one before.
        length: Places that are no padding.
        label: Number of its class, if that is known.
        number: Number of its text or pair in the data, if the batch says.
        name: What it is called beside others of the same number.
    """

    idx: np.ndarray
    targets: np.ndarray | None
    documents: np.ndarray
    length: int
    label: int | None = None
    number: int | None = None
    name: str = ""

    @property
    def stretches(self) -> Iterator[slice]:
        """The places of each of its texts."""
        borders = np.flatnonzero(np.diff(self.documents[: self.length])) + 1
        ends = [0, *borders.tolist(), self.length]
        yield from (slice(start, end) for start, end in pairwise(ends) if end > start)


def lines(batch: Any, filler: int) -> list[Line]:
    """The rows of a batch, whatever its kind; none if it has no ids with targets.

    Args:
        batch: One of `lit_llm.batch`, or any tuple that begins with ids and targets.
        filler: The id of padding.
    """
    idx, targets = _ids_and_targets(batch)
    if idx is None or targets is None:
        return []
    numbers = _numbers(batch, "rows") or [None] * len(idx)
    if targets.ndim == 1:
        lengths = _numbers(batch, "lengths") or [idx.shape[1]] * len(idx)
        labels = [None if label == IGNORE_INDEX else label for label in targets.tolist()]
        parts = zip(idx, lengths, labels, numbers, strict=True)
        # A row of the number -1 is none of the data: it fills up a rank that has nothing left.
        return [
            Line(row, None, np.zeros_like(row), n, label, at) for row, n, label, at in parts if at is None or at >= 0
        ]
    found = getattr(batch, "documents", None)
    documents = np.zeros_like(idx) if found is None else np.asarray(found)
    names = [""] * len(idx)
    if isinstance(batch, PreferenceBatch):
        names = [name for name in ("chosen", "rejected") for _ in numbers]
        numbers = numbers * 2
    every = zip(idx, targets, documents, numbers, names, strict=True)
    return [Line(*row[:3], _length(*row[:3], filler), None, *row[3:]) for row in every]


def describe(batch: Any) -> str:
    """What a batch holds: the name of its kind, and the shapes of its tensors."""
    fields = getattr(batch, "_fields", None)
    items = (
        batch.items() if isinstance(batch, dict) else enumerate(batch if isinstance(batch, list | tuple) else [batch])
    )
    parts = []
    for key, value in items:
        name = fields[key] if fields else key
        is_tensor = isinstance(value, torch.Tensor)
        parts.append(f"{name} {tuple(value.shape)} {value.dtype}" if is_tensor else f"{name} {type(value).__name__}")
    return f"{type(batch).__name__}: {', '.join(parts)}"


def _ids_and_targets(batch: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The first two tensors of a batch, if they look like ids and targets."""
    pair = batch[:2] if isinstance(batch, list | tuple) else ()
    if len(pair) < 2 or not all(isinstance(one, torch.Tensor) and not one.is_floating_point() for one in pair):
        return None, None
    idx, targets = (one.numpy() for one in pair)
    fits = idx.ndim == 2 and (targets.shape == idx.shape or targets.shape == idx.shape[:1])
    return (idx, targets) if fits else (None, None)


def _numbers(batch: Any, field: str) -> list[Any]:
    found = getattr(batch, field, None)
    return found.tolist() if isinstance(found, torch.Tensor) else []


def _length(idx: np.ndarray, targets: np.ndarray, documents: np.ndarray, filler: int) -> int:
    """Places before the padding: what is asked for nothing at the end of a row, and is one id over and over.

    Where documents are counted upwards, the padding is what begins the count anew.
    """
    anew = np.flatnonzero(np.diff(documents) < 0)
    if len(anew) and (targets[anew[-1] + 1 :] == IGNORE_INDEX).all():
        return int(anew[-1]) + 1
    is_used = (targets != IGNORE_INDEX) | (idx != idx[-1])
    used = int(np.flatnonzero(is_used)[-1]) + 1 if is_used.any() else 0
    is_last_word = len(idx) - used == 1 and idx[-1] != filler
    return len(idx) if is_last_word else used
