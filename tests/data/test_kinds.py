"""Files that hold no plain text, known by what is in them: refused with what converts them."""

import gzip
import io
import os
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from source_files import texts

from lit_llm.data.records import read_records
from lit_llm.data.rows import Access
from lit_llm.data.sources import Reading
from lit_llm.data.tables import Columns, read_table

TEXT = "It was a dark and stormy night; the rain fell in torrents.\n" * 40


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, TEXT)
    return file.getvalue()


def parquet() -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": [TEXT]}), file)
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    return file.getvalue()


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(9))
    return file.getvalue()


IDS = np.random.default_rng(0).integers(0, 50_000, 3000, dtype=np.uint16).tobytes()
FEW_IDS = np.random.default_rng(0).integers(0, 65, 3000, dtype=np.uint16).tobytes()
FOREIGN: dict[str, tuple[Callable[[], bytes], str]] = {
    "pdf": (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + os.urandom(500), "a PDF, .* pdftotext"),
    "docx": (lambda: zipped("[Content_Types].xml", "word/document.xml"), r"a Word document \(DOCX\), .* pandoc"),
    "xlsx": (lambda: zipped("[Content_Types].xml", "xl/workbook.xml"), r"an Excel workbook .* pandas\.read_excel"),
    "pptx": (lambda: zipped("[Content_Types].xml", "ppt/presentation.xml"), "a PowerPoint document .* pdftotext"),
    "epub": (lambda: zipped("mimetype", "META-INF/container.xml", "a.xhtml"), "an EPUB book, .* pandoc"),
    "odt": (lambda: zipped("mimetype", "content.xml"), "an OpenDocument file .* pandoc"),
    "zip": (lambda: zipped("a.txt"), "a ZIP archive, .* unzip"),
    "pt": (lambda: zipped("model/data.pkl"), "a PyTorch file"),
    "doc": (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "an old Office document, .* soffice"),
    "rtf": (lambda: rb"{\rtf1\ansi " + TEXT.encode(), "an RTF document, .* pandoc"),
    "png": (lambda: b"\x89PNG\r\n\x1a\n" + os.urandom(500), "a picture, .* tesseract"),
    "jpg": (lambda: b"\xff\xd8\xff\xe0" + os.urandom(500), "a picture"),
    "gz": (lambda: gzip.compress(TEXT.encode()), "a gzip file, .* gunzip"),
    "tar": (tar, "a tar archive, .* tar -xf"),
    "parquet": (parquet, r"a parquet file, .* ends in \.parquet"),
    "pickle": (lambda: pickle.dumps({"text": TEXT}), "a Python pickle"),
    "npy": (array, "a NumPy array"),
    "token ids": (lambda: IDS, "holds binary data, not text"),
    "ids of characters": (lambda: FEW_IDS, "holds binary data, not text"),
    "noise": (lambda: random.Random(0).randbytes(5000), "holds binary data, not text"),
    "utf-16-le": (lambda: TEXT.encode("utf-16-le"), r"utf-16-le without a byte-order mark; .*\.encoding utf-16-le"),
    "utf-16-be": (lambda: TEXT.encode("utf-16-be"), r"utf-16-be without a byte-order mark; .*\.encoding utf-16-be"),
    "web page": (lambda: b"\n<!DOCTYPE html><html><body>404 Not Found</body></html>", "a web page, .* pandoc -f html"),
    "html": (lambda: b"\xef\xbb\xbf<html lang='en'>" + TEXT.encode(), "a web page"),
    "s3": (lambda: b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "an error page of a server"),
    "lfs": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "a pointer of Git LFS, .* git lfs pull",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("suffix", [".txt", ".md"])
def test_what_is_no_text_is_refused_by_what_it_holds(tmp_path: Path, kind: str, suffix: str) -> None:
    """Whatever its name says, in a sentence with the file and what to do."""
    make, told = FOREIGN[kind]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(make())
    with pytest.raises(ValueError, match=f"^'{path}' (is |seems to be |){told}") as caught:
        texts(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["pdf", "docx", "xlsx", "png", "lfs", "parquet", "html", "pickle", "zip"])
def test_by_every_reader_and_under_its_own_name(tmp_path: Path, kind: str) -> None:
    make, told = FOREIGN[kind]
    for suffix in (f".{kind}", ".csv", ".tsv", ".jsonl", ".json", ".parquet", ".bin"):
        if kind == "parquet" and suffix == ".parquet":
            continue
        path = tmp_path / f"a{suffix}"
        path.write_bytes(make())
        readers: list[Callable[[], object]] = [
            lambda path=path: texts(path),
            lambda path=path: read_table(str(path), Columns("text", "label"), Access()),
            lambda path=path: list(read_records(str(path), Reading())),
        ]
        for read in readers:
            with pytest.raises(ValueError, match=told):
                read()


def test_one_bad_file_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").write_bytes(FOREIGN["pdf"][0]())
    with pytest.raises(ValueError, match=rf"'{tmp_path}/b\.txt' is a PDF"):
        texts(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        "a\0b\tc",
        "\x1b[31mred\x1b[0m " * 50,
        "page\f" * 50,
        "日本語のテキスト" * 99,
        "PK is a name, %PDF- no beginning",
        "<div>a README</div>\n<html>",
        "GIF8 BZh MM II",
        "x",
        "",
        "\x01\x02\x03",
        "<p>" * 30,
    ],
)
def test_what_is_text_is_read(tmp_path: Path, content: str) -> None:
    """Single control characters, fragments of HTML, and beginnings that only look like those of other files."""
    (tmp_path / "a.txt").write_text(content, encoding="utf-8")
    assert texts(tmp_path / "a.txt") == [content]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_names_the_encoding(tmp_path: Path, encoding: str) -> None:
    """Where none is named; Windows writes UTF-16 so."""
    (tmp_path / "a.txt").write_bytes("naïve 日本\r\n".encode(encoding))
    assert texts(tmp_path / "a.txt") == ["naïve 日本\r\n"]
    (tmp_path / "b.csv").write_bytes("text;label\nnaïve;x\nb;y\n".encode(encoding))
    assert read_table(str(tmp_path / "b.csv"), Columns("text", "label"), Access()).texts == ["naïve", "b"]


def test_another_encoding_is_not_binary(tmp_path: Path) -> None:
    """Cyrillic in one byte a character: it is the encoding that is asked for."""
    (tmp_path / "a.txt").write_bytes(("Однажды в студёную зимнюю пору " * 99).encode("cp1251"))
    with pytest.raises(ValueError, match=r"is not utf-8 .*--data\.reading\.encoding"):
        texts(tmp_path / "a.txt")
    assert texts(tmp_path / "a.txt", encoding="cp1251")[0].startswith("Однажды")
    assert texts(tmp_path / "a.txt", encoding="latin-1")
