"""Records of instructions and of preferences, read from files and from the hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lit_llm.data.csv_rows import csv_rows
from lit_llm.data.json_rows import JSON, json_rows
from lit_llm.data.kinds import kind_of
from lit_llm.data.rows import hub_data, names_data_set, parquet_rows, reachable, refuse_kind
from lit_llm.data.sources import Reading
from lit_llm.usage import home_path

SAMPLE = Path(__file__).parent / "samples" / "instructions.jsonl"
TABLES = (".csv", ".tsv")
SUFFIXES = (*(form for suffix in (*JSON, *TABLES) for form in (suffix, f"{suffix}.gz")), ".parquet")


class Record(NamedTuple):
    """A row of a source."""

    name: str  # where it lies
    content: Any


def read_records(source: str, reading: Reading) -> Iterator[Record]:
    """The rows of a source, whatever they hold.

    Args:
        source: A file (.json, a list of records; .jsonl; each may end in .gz; .parquet; .csv or .tsv), `sample`, or a
            data set of the Hugging Face hub (`tatsu-lab/alpaca`).
        reading: How it is read.

    Raises:
        ValueError: If the source is not there, or a file is not what its name says.
    """
    for number, (name, row) in enumerate(_rows(source, reading)):
        if number == reading.max_documents:
            return
        yield Record(name, row)


def _rows(source: str, reading: Reading) -> Iterator[tuple[str, Any]]:
    path = SAMPLE if source == "sample" else home_path(source)
    if source and path.is_file():
        kind = kind_of(path)
        if kind not in SUFFIXES:
            refuse_kind(path, f"'{source}' is of no kind that holds records; the kinds are {', '.join(SUFFIXES)}")
        name = str(path)
        if kind == ".parquet":
            unit, rows = "row", parquet_rows(path, ())
        elif kind.removesuffix(".gz") in TABLES:
            unit, rows = "line", _table_rows(path, reading.encoding)
        else:
            unit, rows = json_rows(path)
    elif path.is_dir() or source.lower().endswith(SUFFIXES) or not names_data_set(source):
        raise ValueError(f"there is no file '{source}'; name one ({', '.join(SUFFIXES)}), or a data set as owner/name")
    else:
        name, unit, rows = source, "row", _hub_rows(source, reading)
    yield from ((f"'{name}' {unit} {number}", row) for number, row in rows)


def _hub_rows(name: str, reading: Reading) -> Iterator[tuple[int, Any]]:
    with reachable(name):
        yield from enumerate(hub_data(name, (), reading, reading.streaming), start=1)


def _table_rows(path: Path, encoding: str) -> Iterator[tuple[int, Any]]:
    """Rows of a CSV file, or of one with other separators; an empty field is null."""
    for number, row in csv_rows(path, encoding, ()):
        yield number, {name: text or None for name, text in row.items()}
