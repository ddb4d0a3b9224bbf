"""Tables of texts and labels: tab-separated, CSV, JSONL and parquet files, and data sets of the Hugging Face hub."""

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lit_llm.data.rows import (
    Access,
    Row,
    hub_data,
    json_lines,
    names_data_set,
    parquet_file,
    parquet_rows,
    reachable,
    text_file,
)
from lit_llm.data.tokenizer import well_formed
from lit_llm.usage import home_path

SUFFIXES = (".tsv", ".txt", ".csv", ".jsonl", ".jsonl.gz", ".parquet")  # of files in a folder
TABBED = (".tsv", ".txt", "")  # the SMS Spam Collection comes without a suffix
KINDS = ".tsv, .txt or no suffix (tab-separated, quotes are text), .csv, .jsonl, .jsonl.gz, .parquet"


@dataclass(frozen=True)
class Columns:
    """Which columns of a table count.

    Args:
        text: The one of the texts.
        label: The one of the labels.
    """

    text: str
    label: str


@dataclass
class Table:
    """Texts and their labels in the order of their source, without white space around them.

    A text of nothing else is left out, and counted.

    Args:
        name: Of the source.
        columns: Which of its columns were read.
        unit: What its rows are called where one is pointed at.
        nameless: Whether it is a file that does not name its columns.
        class_names: Names of the classes, in their order, where the source says so itself.
        rows: Number of each row in the source, from 0; rows left out have one, too.
        places: Where each row stands, as somebody counts who looks for it: from 1, and in a file of text by lines.
        texts: The texts.
        labels: Their labels; None where there is none.
        empty: Rows that were left out because they hold no text.
    """

    name: str
    columns: Columns
    unit: str = "row"
    nameless: bool = False
    class_names: list[str] | None = None
    rows: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    empty: int = 0

    def place(self, number: int) -> str:
        """What a message calls the row of a text."""
        return f"'{self.name}' {self.unit} {self.places[number]}"

    def sources_of(self, rows: np.ndarray) -> np.ndarray:
        """The number of the source of each row; here it is one source."""
        return np.zeros(len(rows), dtype=np.int64)


def read_table(source: str, columns: Columns, access: Access, labelled: bool = True) -> Table:
    """Read all texts and labels of a source.

    Args:
        source: A file, or the name of a Hugging Face data set.
        columns: Which columns hold them. In a tab-separated file whose first line does not name both, the first column
            is the label and the second the text.
        access: How it is opened.
        labelled: Whether each text has to have a label.

    Raises:
        ValueError: If the source does not exist, cannot be read, lacks a column, changes its columns or their types
            within, or holds no text.
    """
    path = home_path(source)
    table = Table(source, columns)
    if path.is_file():
        rows = _file_rows(path, table, access, labelled)
    elif source and path.is_dir():
        raise ValueError(f"'{source}' is a folder, and a table is one file; its kinds are {KINDS}")
    elif names_data_set(source) and not source.endswith((".tsv", ".txt", ".csv", ".jsonl", ".gz", ".parquet")):
        rows = _hub_rows(table, access)
    else:
        raise ValueError(f"the file '{source}' does not exist (a Hugging Face data set is named owner/name)")
    number = -1
    for number, (place, row) in enumerate(rows):
        _add(table, number, place, row, labelled)
    if not table.texts:
        raise ValueError(f"'{source}' holds no text in {number + 1} rows")
    return table


def _file_rows(path: Path, table: Table, access: Access, labelled: bool) -> Iterable[Row]:
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        table.unit = "line"
        return _same_keys(table.name, json_lines(path))
    if path.suffix == ".parquet":
        table.class_names = _parquet_classes(path, table.columns.label)
        return parquet_rows(path, [table.columns.text, table.columns.label])
    table.unit = "line"
    if path.suffix == ".csv":
        return _csv_rows(path, access.encoding)
    if path.suffix in TABBED:
        return _tabbed_rows(path, access.encoding, table, labelled)
    raise ValueError(f"'{path}' is of no kind that can be read; the kinds are {KINDS}")


def _add(table: Table, number: int, place: int, row: Any, labelled: bool) -> None:
    """Take over a row, if it is as it has to be."""
    where, columns = f"'{table.name}' {table.unit} {place}", table.columns
    if not isinstance(row, dict):
        raise ValueError(f"{where} is a {type(row).__name__}, where a row has named fields")
    for option, column in {"text_column": columns.text, "label_column": columns.label}.items():
        if column not in row and (labelled or option == "text_column"):
            raise ValueError(
                f"'{table.name}' has no column '{column}' (it has {', '.join(map(str, row)) or 'none'}); "
                f"name the right one by --data.{option}"
            )
    text = row[columns.text]
    if not isinstance(text, str):
        raise ValueError(
            f"{where} has {_kind(text)} in '{columns.text}', where its text should be; give it one, or name another "
            "--data.text_column"
        )
    label = _label(row.get(columns.label), where, columns.label, table.class_names)
    text = cleaned(text)
    if not text:
        table.empty += 1
        return
    if label is None and labelled:
        raise ValueError(f"{where} has no label in '{columns.label}'; give it one, or leave the row out")
    table.rows.append(number)
    table.places.append(place)
    table.texts.append(text)
    table.labels.append(label)


def _label(value: Any, where: str, column: str, class_names: list[str] | None) -> str | None:
    """A label as a word; None for nothing, and for what stands for nothing among numbers of classes."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        if class_names is None:
            return str(value)
        if -1 <= value < len(class_names):
            return class_names[value] if value >= 0 else None
        raise ValueError(f"{where} has the class {value} in '{column}', which names {len(class_names)} classes, from 0")
    if value is None:
        return None
    if isinstance(value, str):
        return cleaned(value) or None
    raise ValueError(f"{where} has {_kind(value)} in '{column}', where a label is a word or a whole number")


def cleaned(text: str) -> str:
    """A text or label as it is read: without a byte-order mark and the white space around it."""
    return well_formed(text.removeprefix("\ufeff")).strip()


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"the {type(value).__name__} {str(value)[:40]!r}"


def _same_keys(name: str, rows: Iterable[Row]) -> Iterator[Row]:
    """JSON lines that all have the fields of the first, each of one type: anything else is a mistake in the file."""
    first: dict[str, Any] = {}
    for place, row in rows:
        if isinstance(row, dict):
            first = first or dict(row)
            if odd := [key for key in (*row, *first) if (key in row) != (key in first)]:
                raise ValueError(
                    f"'{name}' line {place} {'has also' if odd[0] in row else 'lacks'} the field '{odd[0]}': each line "
                    f"has those of the first, {', '.join(first)}"
                )
            for key, value in row.items():
                if first[key] is None:
                    first[key] = value
                if value is not None and _json_type(value) is not _json_type(first[key]):
                    raise ValueError(
                        f"'{name}' line {place} has {_kind(value)} in '{key}', and the lines before it have the type "
                        f"{type(first[key]).__name__} there"
                    )
        yield place, row


def _json_type(value: Any) -> type:
    return float if type(value) is int else type(value)  # JSON has one kind of numbers


def _parquet_classes(path: Path, column: str) -> list[str] | None:
    with parquet_file(path) as file:
        schema = file.schema_arrow
        if b"huggingface" not in (schema.metadata or {}):
            return None
        import datasets

        return _class_names(datasets.Features.from_arrow_schema(schema), column)


def _class_names(features: Any, column: str) -> list[str] | None:
    """Names of the classes, in their order, where `datasets` knows a column as one of classes."""
    return getattr((features or {}).get(column), "names", None)


def _hub_rows(table: Table, access: Access) -> Iterator[Row]:
    with reachable(table.name):
        data = hub_data(table.name, [table.columns.text, table.columns.label], access)
        table.class_names = _class_names(data.features, table.columns.label)
        yield from enumerate(data, start=1)


def _csv_rows(path: Path, encoding: str) -> Iterator[Row]:
    with text_file(path, encoding) as file:
        reader = csv.reader(file, strict=True)
        with _csv_errors(path, reader):
            header = next(reader, [])
        while True:
            place = reader.line_num + 1  # where the row begins: a quoted text may go over several lines
            with _csv_errors(path, reader):
                fields = next(reader, None)
            if fields is None:
                return
            if fields:
                yield place, _named(path, place, header, fields)


@contextmanager
def _csv_errors(path: Path, reader: Any) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise ValueError(f"'{path}' line {reader.line_num} is no CSV: {error}") from error


def _tabbed_rows(path: Path, encoding: str, table: Table, labelled: bool) -> Iterator[Row]:
    """Lines cut at tabs; a quote is a character like any other, and what is too much belongs to the last column."""
    header, columns = None, table.columns
    with text_file(path, encoding, newline="\n") as file:
        for place, line in enumerate(file, start=1):
            line = line.removesuffix("\n").removesuffix("\r")
            if header is None:
                header = line.split("\t")
                if columns.text in header and (columns.label in header or not labelled):
                    continue
                header, table.nameless = [columns.label, columns.text], True
            if not line:
                continue
            fields = line.split("\t", len(header) - 1)
            if not labelled and len(header) == 2 and len(fields) == 1:  # a list of texts
                fields = ["", *fields]
            yield place, _named(path, place, header, fields)


def _named(path: Path, place: int, header: list[str], fields: list[str]) -> dict[str, str]:
    if len(fields) != len(header):
        raise ValueError(
            f"'{path}' line {place} has {len(fields)} fields, and {len(header)} are expected: {', '.join(header)}"
        )
    return dict(zip(header, fields, strict=True))
