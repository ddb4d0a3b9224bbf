"""Where text comes from: files, folders, globs, Hugging Face data sets, Python's own standard library."""

import codecs
import glob
import gzip
import io
import json
import re
import sysconfig
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from lit_llm.data.tokenizer import well_formed

PLAIN = {".txt", ".md", ".py", ".rst"}
SUFFIXES = (*sorted(PLAIN), ".jsonl", ".jsonl.gz", ".parquet")
PIECE = 1 << 19  # characters: small enough to keep memory flat, large enough that a call costs nothing


class Document(NamedTuple):
    """One text; `pieces` gives it in order, as often as asked. All of it can be written in UTF-8."""

    name: str
    pieces: Callable[[], Iterable[str]]


@dataclass
class Reading:
    """How sources are read.

    Args:
        text_field: Field of a JSONL line, a parquet column or a data set's column that holds the text.
        encoding: Encoding of plain text files. A byte-order mark is dropped; line ends stay as they are.
        subset: Configuration of a Hugging Face data set.
        split: Split of a Hugging Face data set.
        revision: Commit, branch or tag of a Hugging Face data set. None: the newest.
        streaming: Whether a Hugging Face data set is read without downloading it first.
        max_documents: Documents to read at most, from each source. None: all.

    Raises:
        ValueError: If `max_documents` is less than 1.
    """

    text_field: str = "text"
    encoding: str = "utf-8"
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
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
    path = Path(name).expanduser()
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
    elif name.endswith(SUFFIXES) or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
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
            yield from _rows(str(path), _parquet_rows(path, reading.text_field), reading.text_field)
        else:
            yield from _rows(str(path), _json_lines(path), reading.text_field)


def _from_hub(name: str, reading: Reading) -> Iterator[Document]:
    return _rows(name, _hub_rows(name, reading), reading.text_field)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"cannot read '{path}': {error.strerror or error}") from error


def _read_plain(path: Path, encoding: str) -> Iterator[str]:
    try:
        codec = codecs.lookup(encoding).name
        with _readable(path), open(path, encoding="utf-8-sig" if codec == "utf-8" else codec, newline="") as file:
            yield from map(well_formed, cut(file))
    except UnicodeError as error:  # a bare one where UTF-16 lacks its byte-order mark
        byte = f"byte 0x{error.object[error.start]:02x}: " if isinstance(error, UnicodeDecodeError) else ""
        raise ValueError(
            f"'{path}' is not {encoding} ({byte}{getattr(error, 'reason', error)}); name its encoding, for example "
            "--data.reading.encoding latin-1"
        ) from error
    except LookupError as error:
        raise ValueError(f"there is no encoding '{encoding}' of text") from error


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


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        with _readable(path), gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _json(line, path, number)
    except (EOFError, zlib.error) as error:
        raise ValueError(f"'{path}' is damaged or cut short after line {number}: {error}") from error


def _json(line: bytes, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested without end
        raise ValueError(f"'{path}' line {number} is no JSON: {error}") from error


def _parquet_rows(path: Path, field: str) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with _readable(path), pyarrow.parquet.ParquetFile(path) as file:
            columns = [field] if field in file.schema_arrow.names else None  # None: all, to name them in the error
            for batch in file.iter_batches(batch_size=128, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowInvalid, UnicodeDecodeError) as error:
        raise ValueError(f"'{path}' is no parquet file, or a damaged one: {error}") from error


def _hub_rows(name: str, reading: Reading) -> Iterator[tuple[int, Any]]:
    import datasets

    try:
        how = {"split": reading.split, "revision": reading.revision, "streaming": reading.streaming}
        rows = datasets.load_dataset(name, reading.subset, **how)
        if reading.text_field in (rows.column_names or ()):
            rows = rows.select_columns([reading.text_field])
        yield from enumerate(rows, start=1)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        # Also where the hub cannot be reached: httpx' and requests' errors end up as ConnectionError, an OSError. And
        # where the data set is a script, which is a RuntimeError: --data.reading.revision refs/convert/parquet helps.
        reason = str(error).strip().split("\n")[0]
        advice = "set HF_HOME to a folder that can be written" if getattr(error, "filename", None) else "go online"
        raise ValueError(
            f"'{name}' is no file or folder here, and as a Hugging Face data set it could not be loaded: "
            f"{reason}; {advice}, or give a local copy by --data.source PATH"
        ) from error


def _rows(name: str, rows: Iterable[tuple[int, Any]], field: str) -> Iterator[Document]:
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
