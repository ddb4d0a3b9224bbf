"""Rows of CSV files, whose fields may be of any length and go over lines."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from lit_llm.data.rows import Row, text_file

DELIMITERS = ",;\t|"
LONGEST = 2**31 - 1  # characters of a field; the module's own limit is 131,072


def csv_rows(path: Path, encoding: str, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a CSV file, each by the names in the first one and with the number of the line where it begins.

    Args:
        path: The file.
        encoding: Its encoding.
        columns: Columns that are looked for: fields are separated as it takes to find them in the first line, by a
            comma, a semicolon, a tab or a vertical bar.

    Raises:
        ValueError: If it cannot be read, or a row has more or fewer fields than the first one.
    """
    csv.field_size_limit(LONGEST)
    with text_file(path, encoding) as file:
        first = file.readline()
        reader = csv.reader(chain([first], file), delimiter=_delimiter(first, columns), strict=True)
        with _told(path, reader):
            header = next(reader, [])
        while True:
            place = reader.line_num + 1  # where the row begins: a quoted text may go over several lines
            with _told(path, reader):
                fields = next(reader, None)
            if fields is None:
                return
            if fields:
                yield place, named(path, place, header, fields)


def named(path: Path, place: int, header: list[str], fields: list[str]) -> dict[str, str]:
    """The fields of a row by their names.

    Raises:
        ValueError: If there are more or fewer than names.
    """
    if len(fields) != len(header):
        raise ValueError(
            f"'{path}' line {place} has {len(fields)} fields, and {len(header)} are expected: {', '.join(header)}"
        )
    return dict(zip(header, fields, strict=True))


def _delimiter(line: str, columns: Sequence[str]) -> str:
    def found(delimiter: str) -> tuple[int, int]:
        fields = next(csv.reader([line], delimiter=delimiter), [])
        return len(set(columns) & set(fields)), len(fields)

    return max(DELIMITERS, key=found)


@contextmanager
def _told(path: Path, reader: Any) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise ValueError(f"'{path}' line {reader.line_num} is no CSV: {error}") from error
