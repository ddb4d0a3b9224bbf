"""The kind of a file, by its name and its first bytes; what is no plain text is refused, with a way to convert it."""

import codecs
import re
import zipfile
from pathlib import Path

HEAD = 4096  # bytes of a file that are looked at

SIGNATURES = {
    b"%PDF-": ("a PDF", "pdftotext file.pdf file.txt"),
    rb"{\rtf": ("an RTF document", "pandoc -t plain file.rtf -o file.txt"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": (
        "an old Office document",
        "soffice --headless --convert-to txt:Text file.doc",
    ),
    b"\x89PNG": ("a picture", "tesseract, which recognizes its text"),
    b"\xff\xd8\xff": ("a picture", "tesseract, which recognizes its text"),
    b"GIF87a": ("a picture", "tesseract, which recognizes its text"),
    b"GIF89a": ("a picture", "tesseract, which recognizes its text"),
    b"II*\0": ("a picture", "tesseract, which recognizes its text"),
    b"MM\0*": ("a picture", "tesseract, which recognizes its text"),
    b"\x1f\x8b": ("a gzip file", "gunzip, or let its name end in .gz"),
    b"BZh9": ("a bzip2 file", "bunzip2"),
    b"\xfd7zXZ\0": ("an xz file", "unxz"),
    b"(\xb5/\xfd": ("a Zstandard file", "unzstd"),
    b"7z\xbc\xaf": ("a 7z archive", "7z x"),
    b"Rar!\x1a\x07": ("a RAR archive", "unrar x"),
    b"PAR1\x15": ("a parquet file", "a name that ends in .parquet"),
    b"ARROW1\0\0": ("an Arrow file", "pyarrow, to parquet"),
    b"SQLite format 3\0": ("a SQLite database", "pandas.read_sql and to_json(orient='records', lines=True)"),
    b"\x93NUMPY": ("a NumPy array", "the text that it was made of: text is tokenized here"),
    b"\x89HDF": ("an HDF5 file", "pandas or h5py, to parquet"),
    b"GGUF\x03\0": ("a GGUF model", "text: weights are no data"),
}
PICKLE = re.compile(rb"\x80[\x02-\x05](\x95|[\]}(cX])")
ZIPPED = {  # the beginning of a name in the archive
    "word/": ("a Word document (DOCX)", "pandoc -t plain file.docx -o file.txt"),
    "xl/": ("an Excel workbook (XLSX)", "pandas.read_excel and to_csv(index=False)"),
    "ppt/": ("a PowerPoint document (PPTX)", "soffice --convert-to pdf, then pdftotext"),
    "META-INF/container.xml": ("an EPUB book", "pandoc -t plain file.epub -o file.txt"),
    "content.xml": ("an OpenDocument file (ODT, ODS)", "pandoc -t plain, or pandas.read_excel for a table"),
}
CONTROL = re.compile("[\0-\x08\x0e-\x1a\x1c-\x1f\x7f]")  # tab, line and page ends, and escape occur in texts


def kind_of(path: Path) -> str:
    """The suffix of a file's name in lower case, with that before `.gz`; empty where it has none."""
    name = path.name.lower()
    inner = Path(name.removesuffix(".gz")).suffix
    return f"{inner}.gz" if name.endswith(".gz") else inner


def refuse_other(path: Path, head: bytes, encoding: str = "utf-8") -> None:
    """Refuse a file that holds something else than text.

    Args:
        path: The file.
        head: Its first bytes, unpacked if its name ends in .gz.
        encoding: Encoding of its text.

    Raises:
        ValueError: If it is a document of an office, an archive, a picture, a page of a server or other binary data;
            what it is and what converts it is told.
    """
    if found := _signature(path, head) or _page(head):
        what, way = found
        raise ValueError(f"'{path}' is {what}, not plain text; {way}")
    if (wide := _wide(head)) and not codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")):
        raise ValueError(
            f"'{path}' seems to be {wide} without a byte-order mark; name it by --data.reading.encoding {wide}, or "
            "convert the file with iconv -t utf-8"
        )
    if _is_binary(head.decode(encoding, "ignore")):
        raise ValueError(
            f"'{path}' holds binary data, not text; convert it to plain text with the program that wrote it (token ids "
            "are made here from the text itself)"
        )


def _signature(path: Path, head: bytes) -> tuple[str, str] | None:
    if head[257:262] == b"ustar":
        return "a tar archive", "unpack it with tar -xf"
    if head.startswith(b"PK\x03\x04"):
        what, way = _zipped(path)
    elif PICKLE.match(head):
        what, way = "a Python pickle", "Python, to JSON lines: a pickle could run any code here"
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        what, way = SIGNATURES[b"GIF89a"]
    else:
        what, way = next((known for start, known in SIGNATURES.items() if head.startswith(start)), ("", ""))
    return (what, f"convert it first, with {way}") if what else None


def _zipped(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        names = []
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch file", "text: weights and tensors are no data"
    known = (found for start, found in ZIPPED.items() if any(name.startswith(start) for name in names))
    return next(known, ("a ZIP archive", "unzip"))


def _page(head: bytes) -> tuple[str, str] | None:
    """What a download leaves in place of the file, where it is sure."""
    start = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a pointer of Git LFS", "fetch the file itself: git lfs pull"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page", (
            "download the file itself if this is a page that says why it could not be had, or convert the page with "
            "pandoc -f html -t plain; to train on HTML as it is, write it into the rows of a .jsonl file"
        )
    if start.startswith(b"<?xml") and b"<error>" in start:
        return "an error page of a server", "download the file again"
    return None


def _wide(head: bytes) -> str | None:
    """The encoding of a text of two bytes a character, most of them of Latin letters, that does not say so itself."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or len(head) < 8:
        return None
    for zeros, encoding in ((head[1::2], "utf-16-le"), (head[0::2], "utf-16-be")):
        if zeros.count(0) > 0.4 * len(zeros) and not CONTROL.search(head[:256].decode(encoding, "ignore")):
            return encoding
    return None


def _is_binary(text: str) -> bool:
    """Whether much of the beginning of a file are control characters; single ones occur in texts."""
    found = len(CONTROL.findall(text))
    return found > 8 and found > 0.05 * len(text)
