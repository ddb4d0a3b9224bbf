"""Tables of several sources as one table that knows which source each row is of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lit_llm.data.named_sources import NamedSource, listed
from lit_llm.data.rows import Access
from lit_llm.data.tables import Table


@dataclass
class JoinedTable(Table):
    """Several tables, one behind the other. Rows are numbered on from one to the next.

    Args:
        parts: The tables.
        source_of_part: (P,) number of the source of each.
        first_texts: (P,) number of the first text of each.
        first_rows: (P,) number of the first row of each.
    """

    parts: list[Table] = field(default_factory=list)
    source_of_part: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    first_texts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    first_rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def place(self, number: int) -> str:
        """What a message calls the row of a text."""
        part = int(np.searchsorted(self.first_texts, number, side="right")) - 1
        return self.parts[part].place(number - int(self.first_texts[part]))

    def sources_of(self, rows: np.ndarray) -> np.ndarray:
        """The number of the source of each row."""
        return self.source_of_part[np.searchsorted(self.first_rows, rows, side="right") - 1]


def read_tables(named: Sequence[NamedSource], read: Callable[[str, Access], Table], reading: Access) -> Table:
    """Read the tables of all sources.

    Args:
        named: The sources.
        read: Reads one of their parts.
        reading: How they are read, where a source does not say otherwise.

    Raises:
        ValueError: If one cannot be read, or two name other classes.
    """
    parts = [read(part, source.reading(reading)) for source in named for part in source.parts]
    if len(parts) == 1:
        return parts[0]
    sizes, texts = [part.rows[-1] + 1 for part in parts], [len(part.texts) for part in parts]
    first_rows, first_texts = (np.cumsum([0, *counts[:-1]]) for counts in (sizes, texts))
    numbers = [number for number, source in enumerate(named) for _ in source.parts]
    return JoinedTable(
        listed(named),
        parts[0].columns,
        parts[0].unit,
        any(part.nameless for part in parts),
        _class_names(parts),
        [row + int(first) for part, first in zip(parts, first_rows, strict=True) for row in part.rows],
        [place for part in parts for place in part.places],
        [text for part in parts for text in part.texts],
        [label for part in parts for label in part.labels],
        sum(part.empty for part in parts),
        parts=parts,
        source_of_part=np.array(numbers),
        first_texts=first_texts,
        first_rows=first_rows,
    )


def _class_names(parts: Sequence[Table]) -> list[str] | None:
    """The classes as the sources say; None if none says so."""
    said = [part for part in parts if part.class_names is not None]
    for part in said[1:]:
        if part.class_names != said[0].class_names:
            raise ValueError(
                f"'{said[0].name}' and '{part.name}' must name the same classes, got {said[0].class_names} and "
                f"{part.class_names}"
            )
    return said[0].class_names if said else None
