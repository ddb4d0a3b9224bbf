"""Records of instructions and of preferences, read from files and from the hub."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lit_llm.data.rows import hub_data, json_lines, names_data_set, parquet_rows, reachable, readable, text_file
from lit_llm.data.sources import Reading
from lit_llm.usage import home_path

SAMPLE = Path(__file__).parent / "samples" / "instructions.jsonl"
SUFFIXES = (".json", ".json.gz", ".jsonl", ".jsonl.gz", ".parquet", ".csv", ".tsv")
LONGEST = 2**31 - 1  # characters of a field of CSV; the module's own limit is 131,072


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
        if not path.name.endswith(SUFFIXES):
            raise ValueError(f"'{source}' is of no kind that holds records; the kinds are {', '.join(SUFFIXES)}")
        if path.suffix == ".parquet":
            name, unit, rows = str(path), "row", parquet_rows(path, ())
        elif path.suffix in (".csv", ".tsv"):
            name, unit, rows = str(path), "line", _csv_rows(path, reading.encoding)
        elif ".jsonl" in path.name:
            name, unit, rows = str(path), "line", json_lines(path)
        else:
            name, unit, rows = str(path), "record", enumerate(_json_list(path), start=1)
    elif path.is_dir() or source.endswith(SUFFIXES) or not names_data_set(source):
        raise ValueError(f"there is no file '{source}'; name one ({', '.join(SUFFIXES)}), or a data set as owner/name")
    else:
        name, unit, rows = source, "row", _hub_rows(source, reading)
    yield from ((f"'{name}' {unit} {number}", row) for number, row in rows)


def _hub_rows(name: str, reading: Reading) -> Iterator[tuple[int, Any]]:
    with reachable(name):
        yield from enumerate(hub_data(name, (), reading, reading.streaming), start=1)


def _csv_rows(path: Path, encoding: str) -> Iterator[tuple[int, Any]]:
    """Rows of CSV, or of such a file with tabs, by the names in the first one; an empty field is null."""
    csv.field_size_limit(LONGEST)
    with text_file(path, encoding) as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        header: list[str] = []
        while True:
            place = reader.line_num + 1  # where the row begins: a quoted text may go over several lines
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise ValueError(f"'{path}' line {reader.line_num} is not valid CSV: {error}") from error
            if fields is None:
                return
            if not header:
                header = fields
            elif len(fields) != len(header) and fields:
                raise ValueError(f"'{path}' line {place} must have {len(header)} fields, got {len(fields)}")
            elif fields:
                yield place, {name: text or None for name, text in zip(header, fields, strict=True)}


def _json_list(path: Path) -> list[Any]:
    try:
        with readable(path), gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            text = file.read()
    except (EOFError, zlib.error) as error:
        raise ValueError(f"'{path}' is damaged or cut short: {error}") from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested without end
        raise ValueError(f"'{path}' is no JSON: {error}") from error
    if not isinstance(content, list):
        raise ValueError(f"'{path}' holds a {type(content).__name__}, and not a list of records")
    return content
