"""Tables of texts and labels: tab-separated, CSV, JSONL and parquet files, and data sets of the Hugging Face hub."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from lit_llm.data.csv_rows import csv_rows, named
from lit_llm.data.json_rows import JSON, json_rows
from lit_llm.data.kinds import kind_of
from lit_llm.data.rows import (
    Access,
    Row,
    hub_data,
    names_data_set,
    parquet_file,
    parquet_rows,
    reachable,
    refuse_kind,
    text_file,
)
from lit_llm.data.tokenizer import well_formed
from lit_llm.usage import home_path

SUFFIXES = (*(form for suffix in (".tsv", ".txt", ".csv", *JSON) for form in (suffix, f"{suffix}.gz")), ".parquet")
TABBED = (".tsv", ".txt", "")  # the SMS Spam Collection comes without a suffix
KINDS = (
    ".tsv, .txt or no suffix (tab-separated, quotes are text), .csv, .json, .jsonl, .ndjson, each also with .gz, and "
    ".parquet"
)


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
        label_kind: What the labels read so far are: words, numbers, or true and false.
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
    label_kind: str = ""

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
        ValueError: If the source does not exist, cannot be read, lacks one of these columns, changes the type of its
            labels within, or holds no text. Other columns do not count.
    """
    path = home_path(source)
    table = Table(source, columns)
    if path.is_file():
        rows = _file_rows(path, table, access, labelled)
    elif source and path.is_dir():
        raise ValueError(f"'{source}' is a folder, and a table is one file; its kinds are {KINDS}")
    elif names_data_set(source) and not source.lower().endswith(SUFFIXES):
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
    kind, columns = kind_of(path), table.columns
    if kind == ".parquet":
        table.class_names = _parquet_classes(path, columns.label)
        return parquet_rows(path, [columns.text, columns.label])
    kind = kind.removesuffix(".gz")
    if kind in JSON:
        table.unit, rows = json_rows(path)
        return rows
    table.unit = "line"
    if kind == ".csv":
        return csv_rows(path, access.encoding, [columns.text, columns.label])
    if kind not in TABBED:
        refuse_kind(path, f"'{path}' is of no kind that can be read; the kinds are {KINDS}")
    return _tabbed_rows(path, access.encoding, table, labelled)


def _add(table: Table, number: int, place: int, row: Any, labelled: bool) -> None:
    """Take over a row, if it is as it has to be."""
    where, columns = f"'{table.name}' {table.unit} {place}", table.columns
    if not isinstance(row, dict):
        raise ValueError(f"{where} is a {type(row).__name__}, where a row has named fields")
    for option, column in {"text_column": columns.text, "label_column": columns.label}.items():
        if column not in row and (labelled or option == "text_column"):
            if number:
                raise ValueError(f"{where} lacks the field '{column}'; give it one, or leave the {table.unit} out")
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
    label = _label(row.get(columns.label), where, table)
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


def _label(value: Any, where: str, table: Table) -> str | None:
    """A label as a word; None for nothing, and for what stands for nothing among numbers of classes."""
    if value is None or (isinstance(value, Real | Decimal) and math.isnan(value)):  # NaN is pandas' gap
        return None
    if isinstance(value, str):
        kind, label = "a word", as_label(value)
    elif type(value).__name__.startswith("bool"):  # Python's and numpy's
        kind, label = "true or false", str(value).lower()
    elif isinstance(value, Real | Decimal) and math.isfinite(value) and value == math.floor(value):
        kind, label = "a number", str(math.floor(value))
    else:
        raise ValueError(
            f"{where} has {_kind(value)} in '{table.columns.label}', where a label is a word or a whole number"
        )
    if not label:
        return None
    if table.label_kind not in ("", kind):
        raise ValueError(
            f"{where} has {_kind(value)} in '{table.columns.label}', and the {table.unit}s before it have "
            f"{table.label_kind} there"
        )
    table.label_kind = kind
    return _class(int(label), where, table) if kind == "a number" and table.class_names is not None else label


def _class(number: int, where: str, table: Table) -> str | None:
    names = table.class_names or []
    if -1 <= number < len(names):
        return names[number] if number >= 0 else None
    raise ValueError(
        f"{where} has the class {number} in '{table.columns.label}', which names {len(names)} classes, from 0"
    )


@lru_cache(maxsize=4096)  # labels repeat
def as_label(text: str) -> str:
    """A label in its one form: `1.0` is the whole number 1, `True` is true, as where a file has types."""
    text = cleaned(text)
    if whole := re.fullmatch(r"(-?[0-9]+)\.0+", text):
        return str(int(whole[1]))
    return text.lower() if text.lower() in ("true", "false") else text


def cleaned(text: str) -> str:
    """A text or label as it is read: without a byte-order mark and the white space around it."""
    return well_formed(text.removeprefix("\ufeff")).strip()


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"the {type(value).__name__} {str(value)[:40]!r}"


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
            yield place, named(path, place, header, fields)
