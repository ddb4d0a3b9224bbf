"""Where text comes from: files, folders, globs, Hugging Face data sets, Python's own standard library."""

import glob
import io
import re
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lit_llm.data.json_rows import JSON, json_rows
from lit_llm.data.kinds import kind_of
from lit_llm.data.marked import Part, between, parts_of_file
from lit_llm.data.rows import Access, Row, hub_data, names_data_set, parquet_rows, reachable, refuse_kind, text_file
from lit_llm.data.tokenizer import well_formed
from lit_llm.usage import home_path

PLAIN = (".md", ".markdown", ".py", ".rst", ".text", ".txt")
SUFFIXES = (*PLAIN, *JSON, ".parquet")  # in any case, and all but the last also with .gz
FORMS = (*SUFFIXES, *(f"{suffix}.gz" for suffix in SUFFIXES[:-1]))
IN_FOLDERS = tuple(suffix for suffix in SUFFIXES if suffix != ".json")  # in a folder that is a file of settings
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
        split_at: Mark between the documents of one text, as `<|endoftext|>`; it is no part of them, nor is a line
            break beside it. None: a file, or a row, is one document.

    Raises:
        ValueError: If `max_documents` is less than 1, or `split_at` is empty.
    """

    text_field: str = "text"
    streaming: bool = False
    max_documents: int | None = None
    split_at: str | None = None

    def __post_init__(self) -> None:
        if self.split_at == "":
            raise ValueError("--data.reading.split_at must be the mark between documents, or null for none, got ''")
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
        self.left_out: Counter[str] = Counter()  # files of folders and globs that are not read, by suffix
        self.has_told = False  # what was found in it
        self.marks: Counter[str] = Counter()  # found where `split_at` was looked for, in all readings together
        self._files = {name: _files(name, self.left_out) for name in self.names}

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
            yield from islice(self._documents(name, files), self.reading.max_documents)

    def _documents(self, name: str, files: list[Path] | None) -> Iterator[Document]:
        if files is None:
            yield from self._in_rows(name, _hub_rows(name, self.reading))
        for path in files or []:
            kind = kind_of(path).removesuffix(".gz")
            if kind == ".parquet":
                yield from self._in_rows(str(path), parquet_rows(path, [self.reading.text_field]))
            elif kind in JSON:
                yield from self._in_rows(str(path), json_rows(path)[1])
            else:
                yield from self._in_text(path)

    def _in_rows(self, name: str, rows: Iterable[Row]) -> Iterator[Document]:
        for number, text in _texts(name, rows, self.reading.text_field):
            mark = self.reading.split_at
            parts = [text] if mark is None else between(text, mark, self.marks)
            for part, content in enumerate(parts, start=1):
                where = f"{name} row {number}" + (f" part {part}" if len(parts) > 1 else "")
                yield Document(where, partial(_pieces, content))

    def _in_text(self, path: Path) -> Iterator[Document]:
        encoding, mark = self.reading.encoding, self.reading.split_at
        if mark is None:
            yield Document(str(path), partial(_read_plain, path, encoding))
            return
        parts = parts_of_file(partial(text_file, path, encoding), mark, PIECE, self.marks)
        for number, part in enumerate(parts, start=1):
            where = f"{path} part {number}"
            if isinstance(part, str):
                yield Document(where, partial(_pieces, part))
            else:
                yield Document(where, partial(_read_part, path, encoding, mark, part))

    def __str__(self) -> str:
        rest = [f"{len(self.names) - 3} more"] if len(self.names) > 3 else []
        return ", ".join(self.names[:3] + rest)


def _files(name: str, left_out: Counter[str]) -> list[Path] | None:
    """The files behind a source's name; None for a Hugging Face data set. Those that are not read are counted."""
    if name == "stdlib":
        return _stdlib_modules()
    path = home_path(name)
    if name and path.is_dir():  # no name at all would be the working directory
        if not (files := _in_folder(path, left_out)):
            raise ValueError(f"the folder '{name}' holds no {', '.join(IN_FOLDERS)} file{listed(left_out, ' but ')}")
    elif path.is_file():
        files = [path]
    elif glob.has_magic(name):
        found = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
        if not found:
            raise ValueError(f"no file matches '{name}'")
        files = [file for file in found if _is_read(file)] or found[:1]
        left_out.update(map(_suffix, set(found) - set(files)))
    elif name.lower().endswith((*SUFFIXES, ".gz")) or not names_data_set(name):
        raise ValueError(f"the file or folder '{name}' does not exist (a Hugging Face data set is named owner/name)")
    else:
        return None
    if not _is_read(files[0]):
        refuse_kind(
            files[0],
            f"'{files[0]}' is of no kind that can be read; the kinds are {', '.join(SUFFIXES)}, and any plain text can "
            "be named .txt",
        )
    return files


def _in_folder(folder: Path, left_out: Counter[str]) -> list[Path]:
    """Files of a folder that are read; hidden ones are left out, as programs put theirs there."""
    files = []
    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            left_out["hidden"] += path.is_file()
        elif path.is_file() and _is_read(path, IN_FOLDERS):
            files.append(path)
        elif path.is_file() or path.is_symlink():
            left_out[_suffix(path)] += 1
    return files


def _is_read(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    kind = kind_of(path)
    return kind != ".parquet.gz" and kind.removesuffix(".gz") in suffixes


def _suffix(path: Path) -> str:
    """What a file that is left out is counted as."""
    if path.is_symlink() and not path.is_file():
        return "links to folders" if path.is_dir() else "links to nowhere"
    return kind_of(path) or "without a suffix"


def listed(counts: Counter[str], before: str = "") -> str:
    """Counts in words, the largest first; nothing where there are none."""
    told = [f"{count:,} {name}" for name, count in counts.most_common(12) if count]
    rest = (+counts).total() - sum(count for _, count in counts.most_common(12))
    return before + ", ".join([*told, *([f"{rest:,} others"] if rest else [])]) if told else ""


def _stdlib_modules() -> list[Path]:
    """Sources of the running interpreter's standard library: no tests, installed packages or tables of codecs."""
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"encodings", "test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib2to3"}
    return sorted(path for path in root.rglob("*.py") if not left_out.intersection(path.relative_to(root).parts))


def _read_plain(path: Path, encoding: str) -> Iterator[str]:
    with text_file(path, encoding) as file:
        yield from map(well_formed, cut(file))


def _read_part(path: Path, encoding: str, mark: str, start: tuple[int, int, bool]) -> Iterator[str]:
    place, skip, is_first = start
    with text_file(path, encoding) as file:
        file.seek(place)
        yield from map(well_formed, cut(Part(file, skip, mark, is_first)))


class Readable(Protocol):
    """A text that is read from its beginning to its end."""

    def read(self, size: int) -> str:
        """The next characters, none at the end."""


def cut(file: Readable, size: int = PIECE) -> Iterator[str]:
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


def _texts(name: str, rows: Iterable[Row], field: str) -> Iterator[tuple[int, str]]:
    for number, row in rows:
        text = row.get(field) if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise ValueError(
                f"'{name}' row {number} has no text in the field '{field}' (it has {_contents(row)}); "
                "choose another by --data.reading.text_field"
            )
        text = well_formed(text.removeprefix("\ufeff"))
        if text:
            yield number, text


def _contents(row: Any) -> str:
    if not isinstance(row, dict):
        return f"a {type(row).__name__}"
    return ", ".join(f"{type(value).__name__} '{key}'" for key, value in row.items()) or "nothing"


def _pieces(text: str) -> Iterable[str]:
    return (text,) if len(text) <= PIECE else cut(io.StringIO(text))
