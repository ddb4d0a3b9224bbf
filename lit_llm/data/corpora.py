"""The texts of all splits: sources that are trained on, each of which is known by its number, and those of a split."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lit_llm.data.sources import Document, Reading, Source
from lit_llm.data.split_sources import SplitSources
from lit_llm.data.splits import Piece, Plan

STRETCH = 32  # tokens: two texts have so many in a row in common by copying, hardly ever by chance
TOGETHER = 1 << 20  # stretches whose hashes are computed together


class Corpora(Source):
    """Sources as one list of documents, as `Source`; beside it, the sources that single splits have.

    Args:
        found: The sources of each split.
        reading: How they are read, where a source does not say otherwise.

    Raises:
        ValueError: If a source is not there, or a file of a split's own source is trained on.
    """

    def __init__(self, found: SplitSources, reading: Reading) -> None:
        self.found, self.current = found, 0  # the number of the source that a document was last taken from
        self.reading, self.has_told = reading, False
        self.parts = [Source(list(named.parts), named.reading(reading)) for named in found.train]
        self.own = {
            split: [Source(list(named.parts), named.reading(reading)) for named in sources]
            for split, sources in found.own.items()
        }
        trained = {file for part in self.parts for file in part.files()}
        for split, parts in self.own.items():
            if both := [file for part in parts for file in part.files() if file in trained]:
                raise ValueError(
                    f"--data.{split}_source must not be trained on, got '{both[0]}', which --data.source holds as "
                    "well; move it out of there"
                )

    def _all(self) -> list[Source]:
        return [*self.parts, *(part for parts in self.own.values() for part in parts)]

    @property
    def left_out(self) -> Counter[str]:  # type: ignore[override]
        """Files of folders and globs that are not read, by suffix."""
        return sum((part.left_out for part in self._all()), Counter())

    @property
    def marks(self) -> Counter[str]:  # type: ignore[override]
        """How often each mark to split at was found."""
        return sum((part.marks for part in self._all()), Counter())

    def fingerprint(self) -> list[object]:
        """What changes when the sources do, those of single splits as well."""
        own = {split: [part.fingerprint() for part in parts] for split, parts in self.own.items()}
        return [[part.fingerprint() for part in self.parts], own]

    def __iter__(self) -> Iterator[Document]:
        for number, part in enumerate(self.parts):
            for document in part:
                self.current = number
                yield document

    def __str__(self) -> str:
        return str(self.found)


def refuse_empty(source: Source) -> None:
    """Refuse a source of a split that holds no text, before those that are trained on are read.

    Raises:
        ValueError: If there is one, or it cannot be read.
    """
    for split, parts in source.own.items() if isinstance(source, Corpora) else ():
        if not any(piece for part in parts for document in part for piece in document.pieces()):
            raise ValueError(f"--data.{split}_source must hold text, got '{parts[0]}', which holds none")


def labelled_pieces(source: Source, plan: Plan) -> Iterator[Piece]:
    """All pieces of all splits; what is trained on bears the number of its source, as in `train/2`."""
    if not isinstance(source, Corpora):
        yield from plan.pieces()
        return
    for split, text, ends in plan.pieces():
        yield f"{split}/{source.current}", text, ends
    for split, parts in source.own.items():
        for document in (document for part in parts for document in part):
            if pieces := [piece for piece in document.pieces() if piece]:
                yield from ((split, piece, False) for piece in pieces)
                yield split, "", True


@dataclass
class Sizes:
    """What was written of each split.

    Args:
        source: The texts.
        splits: Names of the splits.
    """

    source: Source
    splits: tuple[str, ...]

    def __post_init__(self) -> None:
        self.of = {split: {"tokens": 0, "bytes": 0, "documents": 0} for split in self.splits}
        parts = len(self.source.parts) if isinstance(self.source, Corpora) else 1
        self.trained = [0] * parts  # tokens of each source

    def add(self, label: str, tokens: int, length: int, documents: int) -> str:
        """Count a piece; the name of its split."""
        split, _, number = label.partition("/")
        for name, count in {"tokens": tokens, "bytes": length, "documents": documents}.items():
            self.of[split][name] += count
        if split == "train":
            self.trained[int(number or 0)] += tokens
        return split


def repeated_stretches(train: np.ndarray, held_out: np.ndarray) -> tuple[int, int]:
    """How many of the stretches of 32 tokens, one behind the other, of a held-out text are in the training text.

    Args:
        train: (N,) ids.
        held_out: (M,) ids. Fewer than 32 are one stretch.

    Returns:
        How many are, and how many there are.
    """
    size = min(STRETCH, len(held_out))
    if not size or len(train) < size:
        return 0, len(held_out) // max(size, 1)
    factors = np.random.default_rng(0).integers(1, 1 << 63, size, np.uint64) * np.uint64(2) + np.uint64(1)
    wanted = held_out[: len(held_out) // size * size].reshape(-1, size).astype(np.uint64) @ factors
    ordered = np.sort(wanted)
    is_found = np.zeros(len(ordered), dtype=bool)
    for start in range(0, len(train) - size + 1, TOGETHER):
        ids = train[start : start + TOGETHER + size - 1].astype(np.uint64)
        hashes = np.zeros(len(ids) - size + 1, np.uint64)
        for place, factor in enumerate(factors):
            hashes += ids[place : place + len(hashes)] * factor
        places = np.minimum(np.searchsorted(ordered, hashes), len(ordered) - 1)
        is_found[places[ordered[places] == hashes]] = True
    return int(np.isin(wanted, ordered[is_found]).sum()), len(wanted)
