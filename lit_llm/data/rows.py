"""Files of text in their encoding, rows of parquet and of the hub; what cannot be read is told in one sentence."""

import codecs
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from lit_llm.data.kinds import HEAD, kind_of, refuse_other

Row = tuple[int, Any]  # its number from 1 (of JSON lines that of its line), and what it holds


@dataclass
class Access:
    """How a file or a data set is opened.

    Args:
        encoding: Encoding of plain text and of CSV. A byte-order mark is dropped; line ends stay as they are.
        subset: Configuration of a Hugging Face data set.
        split: Split of a Hugging Face data set.
        revision: Commit, branch or tag of a Hugging Face data set. None: the newest.
    """

    encoding: str = "utf-8"
    subset: str | None = None
    split: str = "train"
    revision: str | None = None


def names_data_set(name: str) -> bool:
    """Whether a name has the form of a Hugging Face data set."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What the system says of a file that it does not give, as a refusal."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"cannot read '{path}': {error.strerror or error}") from error


@contextmanager
def open_bytes(path: Path, encoding: str | None = None) -> Iterator[tuple[Any, str]]:
    """A file of text, open for reading its bytes; one whose name ends in .gz is unpacked on the way.

    Args:
        path: The file.
        encoding: Encoding of its text. None: that of JSON, which its first bytes tell.

    Yields:
        The file and its encoding: that of a byte-order mark where UTF-8 is expected.

    Raises:
        ValueError: If it cannot be read, is damaged, or holds no text.
    """
    packed = kind_of(path).endswith(".gz")
    try:
        with readable(path), gzip.open(path, "rb") if packed else open(path, "rb") as file:
            head = file.peek(HEAD)[:HEAD]
            name = (
                json.detect_encoding(head) if encoding is None else _marked(head) if encoding == "utf-8" else encoding
            )
            refuse_other(path, head, name)
            yield file, name
    except (EOFError, zlib.error) as error:
        raise ValueError(f"'{path}' is damaged or cut short: {error}") from error


def refuse_kind(path: Path, message: str) -> NoReturn:
    """Refuse a file whose suffix is none of those that are read: by what it holds, or else by a message.

    Raises:
        ValueError: Always.
    """
    with readable(path), open(path, "rb") as file:
        refuse_other(path, file.read(HEAD))
    raise ValueError(message)


@contextmanager
def text_file(path: Path, encoding: str, newline: str = "") -> Iterator[IO[str]]:
    """A text file, open for reading.

    Args:
        path: The file.
        encoding: Its encoding. One in UTF-16 or UTF-32 with a byte-order mark is read where UTF-8 is expected.
        newline: What ends a line, as for `open`.

    Raises:
        ValueError: If there is no such encoding, the file cannot be read in it, or it holds something else than text.
    """
    try:
        codec = codecs.lookup(encoding).name
        "".encode(encoding)  # refuses what maps bytes to bytes, base64 for one
    except LookupError as error:
        raise ValueError(f"there is no encoding '{encoding}' of text") from error
    try:
        with open_bytes(path, codec) as (file, name):
            yield io.TextIOWrapper(file, name, newline=newline)
    except UnicodeError as error:  # a bare one where UTF-16 lacks its byte-order mark
        byte = f"byte 0x{error.object[error.start]:02x}: " if isinstance(error, UnicodeDecodeError) else ""
        raise ValueError(
            f"'{path}' is not {encoding} ({byte}{getattr(error, 'reason', error)}); name its encoding, for example "
            "--data.reading.encoding latin-1"
        ) from error


def _marked(head: bytes) -> str:
    """The encoding that a byte-order mark names; UTF-8, with or without one, where there is none of another."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):  # that of UTF-32-LE begins with UTF-16's
        return "utf-32"
    return "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


@contextmanager
def parquet_file(path: Path) -> Iterator[Any]:
    """A parquet file, open for reading.

    Raises:
        ValueError: If it cannot be read, is none, or is damaged.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with readable(path), pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowInvalid, UnicodeDecodeError) as error:
        with readable(path), open(path, "rb") as content:
            if not (head := content.read(HEAD)).startswith(b"PAR1"):
                refuse_other(path, head)
        raise ValueError(f"'{path}' is no parquet file, or a damaged one: {error}") from error


def parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a parquet file: of the columns asked for, or of all if none is named, or one is missing (to name them).

    Raises:
        ValueError: As in `parquet_file`.
    """
    number = 0
    with parquet_file(path) as file:
        found = columns and set(columns) <= set(file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=128, columns=list(columns) if found else None):
            for row in batch.to_pylist():
                number += 1
                yield number, row


@contextmanager
def reachable(name: str) -> Iterator[None]:
    """What the hub's library says of a data set that it does not give, as a refusal."""
    import datasets

    try:
        yield
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        # Also where the hub cannot be reached: httpx' and requests' errors end up as ConnectionError, an OSError. And
        # where the data set is a script, which is a RuntimeError: --data.reading.revision refs/convert/parquet helps.
        reason = str(error).strip().split("\n")[0]
        advice = "set HF_HOME to a folder that can be written" if getattr(error, "filename", None) else "go online"
        raise ValueError(
            f"'{name}' is no file or folder here, and as a Hugging Face data set it could not be loaded: "
            f"{reason}; {advice}, or give a local copy by --data.source PATH"
        ) from error


def hub_data(name: str, columns: Sequence[str], access: Access, streaming: bool = False) -> Any:
    """A data set of the Hugging Face hub: the columns asked for, or all of them if none is named, or one is missing.

    Args:
        name: `owner/name`.
        columns: The columns.
        access: Which part and version of it.
        streaming: Whether it is read without downloading it first.
    """
    import datasets

    how = {"split": access.split, "revision": access.revision, "streaming": streaming}
    rows = datasets.load_dataset(name, access.subset, **how)
    return rows.select_columns(list(columns)) if columns and set(columns) <= set(rows.column_names or ()) else rows
