"""Where text comes from: files, folders, globs, Hugging Face data sets, Python's own standard library."""

import glob
import io
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from lit_llm.data.rows import (
    Access,
    Row,
    hub_data,
    json_lines,
    names_data_set,
    parquet_rows,
    reachable,
    text_file,
)
from lit_llm.data.tokenizer import well_formed
from lit_llm.usage import home_path

PLAIN = {".txt", ".md", ".py", ".rst"}
SUFFIXES = (*sorted(PLAIN), ".jsonl", ".jsonl.gz", ".parquet")
PIECE = 1 << 19  # characters: small enough to keep memory flat, large enough that a call costs nothing


class Document(NamedTuple):
    """One text; `pieces` gives it in order, as often as asked. All of it can be written in UTF-8."""

    name: str
    pieces: Callable[[], Iterable[str]]


@dataclass
class Reading(Access):
    """How sources are read.

    Args:
        text_field: Field of a JSONL line, a parquet column or a data set's column that holds the text.
        streaming: Whether a Hugging Face data set is read without downloading it first.
        max_documents: Documents to read at most, from each source. None: all.

    Raises:
        ValueError: If `max_documents` is less than 1.
    """

    text_field: str = "text"
    streaming: bool = False
    max_documents: int | None = None

    def __post_init__(self) -> None:
        if self.max_documents is not None and self.max_documents < 1:
            raise ValueError(f"max_documents {self.max_documents} cannot be: it is at least 1, or null for all")


class Source:
    """One or more sources as a list of documents that can be read again and again.

    Args:
        source: A file, a folder, a glob, a Hugging Face data set id, `stdlib`, or a list of them.
        reading: How they are read.

    Raises:
        ValueError: If a source is neither there nor the name of a data set.
    """

    def __init__(self, source: str | list[str], reading: Reading) -> None:
        self.names = [source] if isinstance(source, str) else list(source)
        self.reading = reading
        self._files = {name: _files(name) for name in self.names}

    def fingerprint(self) -> list[Any]:
        """What changes when the sources do: names, sizes and times of files; ids of data sets; how they are read."""
        parts: list[Any] = [asdict(self.reading)]
        for name, files in self._files.items():
            stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files or []]
            parts.append([name, stats])
        return parts

    def files(self) -> set[Path]:
        """All files, by their whole paths."""
        return {path.resolve() for files in self._files.values() for path in files or []}

    def __iter__(self) -> Iterator[Document]:
        for name, files in self._files.items():
            documents = _from_hub(name, self.reading) if files is None else _from_files(files, self.reading)
            yield from islice(documents, self.reading.max_documents)

    def __str__(self) -> str:
        rest = [f"{len(self.names) - 3} more"] if len(self.names) > 3 else []
        return ", ".join(self.names[:3] + rest)


def _files(name: str) -> list[Path] | None:
    """The files behind a source's name; None for a Hugging Face data set."""
    if name == "stdlib":
        return _stdlib_modules()
    path = home_path(name)
    if name and path.is_dir():  # no name at all would be the working directory
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))
        if not files:
            raise ValueError(f"the folder '{name}' holds no {', '.join(SUFFIXES)} file")
    elif path.is_file():
        files = [path]
    elif glob.has_magic(name):
        files = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
        if not files:
            raise ValueError(f"no file matches '{name}'")
    elif name.endswith(SUFFIXES) or not names_data_set(name):
        raise ValueError(f"the file or folder '{name}' does not exist (a Hugging Face data set is named owner/name)")
    else:
        return None
    for file in files:
        if not file.name.endswith(SUFFIXES):
            raise ValueError(f"'{file}' is of no kind that can be read; the kinds are {', '.join(SUFFIXES)}")
    return files


def _stdlib_modules() -> list[Path]:
    """Sources of the running interpreter's standard library: no tests, installed packages or tables of codecs."""
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"encodings", "test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib2to3"}
    return sorted(path for path in root.rglob("*.py") if not left_out.intersection(path.relative_to(root).parts))


def _from_files(files: list[Path], reading: Reading) -> Iterator[Document]:
    for path in files:
        if path.suffix in PLAIN:
            yield Document(str(path), partial(_read_plain, path, reading.encoding))
        elif path.suffix == ".parquet":
            yield from _rows(str(path), parquet_rows(path, [reading.text_field]), reading.text_field)
        else:
            yield from _rows(str(path), json_lines(path), reading.text_field)


def _from_hub(name: str, reading: Reading) -> Iterator[Document]:
    return _rows(name, _hub_rows(name, reading), reading.text_field)


def _read_plain(path: Path, encoding: str) -> Iterator[str]:
    with text_file(path, encoding) as file:
        yield from map(well_formed, cut(file))


def cut(file: IO[str], size: int = PIECE) -> Iterator[str]:
    """Read a text in pieces that tokenize as the whole does: cut only before a space that follows a letter.

    There, every pattern in use ends a word; a text without such a place is cut anywhere after eight pieces.
    """
    rest = ""
    while block := file.read(size):
        rest += block
        start = max(len(rest) - 4096, 0)
        if last := re.match(r".*[^\W\d_](?= )", rest[start:], re.DOTALL):
            place = start + last.end()
        elif len(rest) >= 8 * size:
            place = len(rest)
        else:
            continue
        yield rest[:place]
        rest = rest[place:]
    if rest:
        yield rest


def _hub_rows(name: str, reading: Reading) -> Iterator[Row]:
    with reachable(name):
        yield from enumerate(hub_data(name, [reading.text_field], reading, reading.streaming), start=1)


def _rows(name: str, rows: Iterable[Row], field: str) -> Iterator[Document]:
    for number, row in rows:
        text = row.get(field) if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise ValueError(
                f"'{name}' row {number} has no text in the field '{field}' (it has {_contents(row)}); "
                "choose another by --data.reading.text_field"
            )
        text = well_formed(text.removeprefix("\ufeff"))
        if text:
            yield Document(f"{name} row {number}", partial(_pieces, text))


def _contents(row: Any) -> str:
    if not isinstance(row, dict):
        return f"a {type(row).__name__}"
    return ", ".join(f"{type(value).__name__} '{key}'" for key, value in row.items()) or "nothing"


def _pieces(text: str) -> Iterable[str]:
    return (text,) if len(text) <= PIECE else cut(io.StringIO(text))
