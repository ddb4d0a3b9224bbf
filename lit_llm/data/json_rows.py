"""Rows of JSON files in any form: JSON lines, one array, an object around one, objects one after the other."""

import codecs
import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lit_llm.data.rows import Row, open_bytes

JSON = (".json", ".jsonl", ".ndjson")
# Fields that hold a list of objects in a record itself, so that an object with one is a record and not around records.
OF_RECORDS = {"messages", "conversations", "conversation", "prompt", "chosen", "rejected", "history", "tools"}
AROUND = {"data", "dataset", "documents", "entries", "examples", "instances", "items", "records", "results", "rows"}
AROUND |= {"samples", "train"}
OF_OBJECTS = re.compile(rb"\s*\[\s*[{\]]")
BETWEEN = re.compile(r"\s*,?\s*")


def json_rows(path: Path) -> tuple[str, Iterator[Row]]:
    """The rows of a JSON file, whatever form it has and whichever its suffix is; blank lines hold nothing.

    JSON lines come one at a time; a file of any other form is held in memory.

    Returns:
        What a row is called where one is pointed at, `line` or `record`, and the rows, each with its number from 1.

    Raises:
        ValueError: If the file cannot be read, is damaged, or holds no JSON, or an object around more than one list.
    """
    return ("line", _lines(path)) if _has_lines(path) else ("record", enumerate(_records(path), start=1))


@contextmanager
def _utf8_lines(path: Path) -> Iterator[Iterable[bytes]]:
    try:
        with open_bytes(path) as (file, encoding):
            if encoding in ("utf-8", "utf-8-sig"):
                yield file
            else:
                text = io.TextIOWrapper(file, encoding, errors="surrogatepass", newline="\n")
                yield (line.encode("utf-8", "surrogatepass") for line in text)
    except UnicodeError as error:
        raise ValueError(f"'{path}' is not text in its encoding: {error}") from error


def _has_lines(path: Path) -> bool:
    """Whether each line is a value: the first one is, unless it is the only one and holds rows."""
    with _utf8_lines(path) as lines:
        filled = (line for line in lines if line.strip())
        first, second = next(filled, b""), next(filled, b"")
    if not second and first.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        return OF_OBJECTS.match(first.removeprefix(codecs.BOM_UTF8)) is None
    try:
        value = json.loads(first or b"null")
    except json.JSONDecodeError as error:  # an object over several lines breaks off at the end of its first one
        goes_on = error.msg == "Extra data" or error.pos >= len(error.doc.rstrip())
        goes_on &= not error.msg.startswith("Invalid control character")  # a text goes over no lines
        return not (goes_on and error.doc.lstrip("\ufeff \t\r\n").startswith(("[", "{")))
    except (ValueError, RecursionError):
        return True  # refused with its number
    return bool(second) or not isinstance(value, dict) or _around(path, value) is None


def _lines(path: Path) -> Iterator[Row]:
    with _utf8_lines(path) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _loads(line, path, number)


def _loads(line: bytes, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested without end
        raise ValueError(f"'{path}' line {number} is no JSON: {error}") from error


def _records(path: Path) -> list[Any]:
    with open_bytes(path) as (file, encoding):
        content = file.read()
    try:
        values = list(_values(content.decode(encoding, "surrogatepass")))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is no JSON: {error}") from error
    if len(values) != 1:
        return values
    value = values[0]
    rows = _around(path, value) if isinstance(value, dict) else value
    return rows if isinstance(rows, list) else values


def _values(text: str) -> Iterator[Any]:
    """The values of a text, one after the other, also with commas between them."""
    decoder, place = json.JSONDecoder(), len(text) - len(text.lstrip())
    while place < len(text):
        value, end = decoder.raw_decode(text, place)
        yield value
        between = BETWEEN.match(text, end)
        place = between.end() if between else end


def _around(path: Path, value: dict[str, Any]) -> list[Any] | None:
    """The rows in an object around them; None of an object that is a row itself.

    Raises:
        ValueError: If it holds more than one list of rows, or a table by columns.
    """
    if not OF_RECORDS.isdisjoint(value):
        return None
    lists = {key: part for key, part in value.items() if isinstance(part, list) and _of(part, dict)}
    if len(lists) == 1 and (len(value) == 1 or lists.keys() <= AROUND):
        return next(iter(lists.values()))
    if len(value) == 1 and value.keys() <= AROUND and list(value.values()) == [[]]:
        return []
    if len(lists) > 1:
        raise ValueError(f"'{path}' holds {len(lists)} lists ({', '.join(lists)}); write each into a file of its own")
    if value and (_of(list(value.values()), dict) or _of(list(value.values()), list)):
        raise ValueError(
            f"'{path}' holds a table in one object ({', '.join(list(value)[:5])}), as pandas writes it by default; "
            "write rows: to_json(path, orient='records', lines=True)"
        )
    return None


def _of(parts: list[Any], kind: type) -> bool:
    return bool(parts) and all(isinstance(part, kind) and part for part in parts)
