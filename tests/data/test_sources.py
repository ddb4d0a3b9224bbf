"""Reading text: every kind of file, every kind of damage, and pieces that tokenize as the whole does."""

import gzip
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from source_files import TEXTS, texts, write

from lit_llm.data.sources import PLAIN, SUFFIXES, Reading, Source

EVERY = (*SUFFIXES, *(f"{suffix}.gz" for suffix in SUFFIXES if suffix != ".parquet"), ".TXT", ".JSONL.GZ", ".Parquet")

# Kinds.


@pytest.mark.parametrize("suffix", EVERY)
def test_every_kind_gives_its_texts_again_and_again(tmp_path: Path, suffix: str) -> None:
    """D8: NUL, line ends of any sort and characters of any script stay as they are."""
    source = Source(str(write(tmp_path / f"a b{suffix}", TEXTS)), Reading())
    rows = ["".join(TEXTS)] if suffix.lower().removesuffix(".gz") in PLAIN else TEXTS
    documents = list(source)
    for _ in range(2):
        assert ["".join(document.pieces()) for document in documents] == rows
    assert [document.name for document in documents] == [document.name for document in source]
    assert all(f"a b{suffix}" in document.name for document in documents)


def test_a_folder_gives_all_it_can_read_in_order(tmp_path: Path) -> None:
    write(tmp_path / "b" / "two.md", ["2"])
    write(tmp_path / "a" / "deep" / "one.txt", ["1"])
    write(tmp_path / "c.jsonl", ["3", "4"])
    write(tmp_path / "picture.png", ["no text"])
    write(tmp_path / "b" / "archive.gz", ["no text"])
    assert texts(tmp_path) == ["1", "2", "3", "4"]


def test_a_glob_and_a_list(tmp_path: Path) -> None:
    """A list keeps its order."""
    for name in ("b.txt", "a.txt", "c.md", "d/e.txt"):
        write(tmp_path / name, [name])
    assert texts(tmp_path / "*.txt") == ["a.txt", "b.txt"]
    assert texts(tmp_path / "**" / "*.txt") == ["a.txt", "b.txt", "d/e.txt"]
    assert texts([tmp_path / "c.md", tmp_path / "*.txt"]) == ["c.md", "a.txt", "b.txt"]


def test_a_relative_name_and_one_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder named owner/name is read as a folder."""
    write(tmp_path / "owner" / "name" / "a.txt", ["here"])
    monkeypatch.setenv("HOME", str(tmp_path))
    assert texts("owner/name") == texts("~/owner/name/a.txt") == ["here"]


def test_another_field_and_fewer_documents(tmp_path: Path) -> None:
    """The limit holds for each source, and what lies behind it is not even read."""
    one, two = write(tmp_path / "one.jsonl", ["1", "2", "3"], "body"), write(tmp_path / "two.parquet", ["4"], "body")
    assert texts([one, two], text_field="body", max_documents=2) == ["1", "2", "4"]
    with one.open("a") as file:
        file.write("no JSON")
    assert texts(one, text_field="body", max_documents=3) == ["1", "2", "3"]
    with pytest.raises(ValueError, match="max_documents 0 cannot be"):
        Reading(max_documents=0)


def test_the_standard_library() -> None:
    """Found in the running interpreter, by the text of a module that is running; its tests are left out."""
    documents = {Path(document.name): document for document in Source("stdlib", Reading())}
    this = Path(json.__file__)
    assert "".join(documents[this].pieces()) == this.read_bytes().decode()
    root = this.parents[1]
    assert Path(os.__file__) in documents
    assert (root / "test" / "test_json" / "__init__.py") not in documents
    assert not [p for p in documents if {"test", "tests", "site-packages"} & set(p.relative_to(root).parts)]


def test_many_names_in_one_line(tmp_path: Path) -> None:
    names = [str(write(tmp_path / f"{i}.txt", ["x"])) for i in range(5)]
    assert str(Source(names[:3], Reading())) == ", ".join(names[:3])
    assert str(Source(names, Reading())) == ", ".join(names[:3]) + ", 2 more"


def test_the_fingerprint_changes_with_the_text_and_how_it_is_read(tmp_path: Path) -> None:
    """D17."""
    path, other = write(tmp_path / "a.txt", ["abc"]), write(tmp_path / "b.txt", ["abc"])

    def fingerprint(*names: Path, **reading: Any) -> str:
        return json.dumps(Source([str(name) for name in names or (path,)], Reading(**reading)).fingerprint())

    first = fingerprint()
    seen = {first, fingerprint(other), fingerprint(path, other), fingerprint(other, path)}
    seen |= {fingerprint(encoding="latin-1"), fingerprint(text_field="body"), fingerprint(max_documents=1)}
    assert fingerprint() == first
    path.write_text("abcd")
    seen.add(fingerprint())
    os.utime(path, ns=(1, 1))
    seen.add(fingerprint())
    assert len(seen) == 9


# What text files hold.


@pytest.mark.parametrize("suffix", EVERY)
def test_a_byte_order_mark_is_no_text(tmp_path: Path, suffix: str) -> None:
    """D8: at the head of a file, and of a row."""
    path = write(tmp_path / f"a{suffix}", ["\ufeffthe text"])
    assert texts(path) == ["the text"]
    if suffix in (".json", ".jsonl"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert texts(path) == ["the text"]


def test_another_encoding(tmp_path: Path) -> None:
    """D8."""
    path = tmp_path / "a.txt"
    for encoding in ("latin-1", "utf-16", "utf-16-le", "cp1252", "UTF8"):
        path.write_bytes("naïve\r\n".encode(encoding))
        assert texts(path, encoding=encoding) == ["naïve\r\n"]


@pytest.mark.parametrize(
    ("content", "encoding", "told"),
    [
        (b"na\xefve text", "utf-8", "is not utf-8 (byte 0xef: invalid continuation byte)"),
        (b"fine until the end \xc3", "utf-8", "is not utf-8 (byte 0xc3: unexpected end of data)"),
        (b"na\xc3\xafve", "ascii", "is not ascii (byte 0xc3: ordinal not in range(128))"),
        (b"plain", "utf-16", "is not utf-16 (UTF-16 stream does not start with BOM)"),
        (b"plain", "utf8000", "there is no encoding 'utf8000'"),
        (b"plain", "hex", "there is no encoding 'hex' of text"),
    ],
)
def test_a_wrong_encoding(tmp_path: Path, content: bytes, encoding: str, told: str) -> None:
    """D8: refused with the file and the byte; nothing is dropped or replaced silently."""
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        texts(path, encoding=encoding)
    assert type(caught.value) is ValueError
    assert str(path) in str(caught.value) or "there is no encoding" in told


def test_lone_surrogates_in_json(tmp_path: Path) -> None:
    """D8: UTF-8 cannot hold them, so they become U+FFFD; a pair is its character."""
    (tmp_path / "a.jsonl").write_text(r'{"text": "a\ud800b \ud83d\ude42"}')
    assert texts(tmp_path / "a.jsonl") == ["a\ufffdb 🙂"]


def test_texts_without_a_character_are_no_documents(tmp_path: Path) -> None:
    """D1, D5: an empty file and an empty row."""
    for suffix in EVERY:
        assert "".join(texts(write(tmp_path / f"empty{suffix}", []))) == ""
    (tmp_path / "blank.jsonl").write_text('\n{"text": ""}\n\n{"text": "x"}\n \n')
    assert texts(tmp_path / "blank.jsonl") == ["x"]


# Damage.


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"text": "cut sho', "line 2 is no JSON"),
        (b"nonsense", "line 2 is no JSON"),
        (b'{"text": "\xff"}', "line 2 is no JSON"),
        (b"[" * 200_000, "line 2 is no JSON"),
        (b"1" * 5000, "line 2 is no JSON"),
        (b"[]", "row 2 has no text in the field 'text' (it has a list)"),
        (b"null", "row 2 has no text in the field 'text' (it has a NoneType)"),
        (b"{}", "row 2 has no text in the field 'text' (it has nothing)"),
        (b'{"body": "b", "n": 7}', "row 2 has no text in the field 'text' (it has str 'body', int 'n')"),
        (b'{"text": 7}', "row 2 has no text in the field 'text' (it has int 'text')"),
        (b'{"text": null}', "row 2 has no text in the field 'text' (it has NoneType 'text')"),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_a_bad_line(tmp_path: Path, suffix: str, line: bytes, told: str) -> None:
    """D5: the file and the line are named; the lines before it are not what is refused."""
    path = tmp_path / f"a{suffix}"
    content = b'{"text": "good"}\n' + line + b'\n{"text": "good"}\n'
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    with pytest.raises(ValueError, match=re.escape(f"'{path}' {told}")) as caught:
        texts(path)
    assert "\n" not in str(caught.value)


def test_a_parquet_file_without_the_field(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ["x"], "body")
    with pytest.raises(
        ValueError, match=r"row 1 has no text in the field 'text' \(it has int 'n', str 'body'\); choose"
    ):
        texts(path)


def damaged(whole: bytes, count: int) -> list[bytes]:
    """Every length that a file can be cut to, and every byte turned over, or a repeatable sample of both."""
    choose = random.Random(0)
    places = choose.sample(range(len(whole)), min(count, len(whole)))
    return [whole[:i] for i in places] + [whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :] for i in places]


def outcome(path: Path) -> list[str] | ValueError:
    try:
        return texts(path)
    except ValueError as error:
        return error


@pytest.mark.parametrize(("suffix", "count"), [(".jsonl.gz", 1000), (".parquet", 120)])
def test_a_damaged_file(tmp_path: Path, suffix: str, count: int) -> None:
    """Refused in one sentence that names the file; a cut one never passes for a whole one."""
    path = write(tmp_path / f"a{suffix}", [f"héllo {i} " * 3 for i in range(9)])
    whole, rows, refused = path.read_bytes(), texts(path), 0
    contents = damaged(whole, count)
    for content in contents:
        path.write_bytes(content)
        found = outcome(path)
        if isinstance(found, ValueError):
            assert type(found) is ValueError
            assert str(path) in str(found)
            refused += 1
        else:
            # An empty gz file is an empty file; a parquet file has no checksum to hold a changed letter against.
            assert content == b"" or (len(content) == len(whole) and (found == rows or suffix == ".parquet"))
    assert refused > len(contents) / 2


def test_damaged_text_in_a_parquet_file(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, where the file itself is whole."""
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["naïve"]}), path, compression="none", use_dictionary=False)
    path.write_bytes(path.read_bytes().replace("naïve".encode(), b"na\xef\xefve"))
    with pytest.raises(ValueError, match=re.escape(f"'{path}' is no parquet file, or a damaged one")):
        texts(path)


def test_a_file_that_has_gone(tmp_path: Path) -> None:
    for suffix in EVERY:
        path = write(tmp_path / f"a{suffix}", TEXTS)
        source = Source(str(path), Reading())
        path.unlink()
        with pytest.raises(ValueError, match=re.escape(f"cannot read '{path}': ") + ".*No such file"):
            [list(document.pieces()) for document in source]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing.txt", "the file or folder 'missing.txt' does not exist"),
        ("a/missing.jsonl.gz", "the file or folder 'a/missing.jsonl.gz' does not exist"),
        ("missing", "'missing' does not exist (a Hugging Face data set is named owner/name)"),
        ("one/two/three", "'one/two/three' does not exist"),
        ("", "the file or folder '' does not exist"),
        ("https://host/file", "'https://host/file' does not exist"),
        ("*.txt", "no file matches '*.txt'"),
        (
            "nothing",
            "the folder 'nothing' holds no .md, .markdown, .py, .rst, .text, .txt, .jsonl, .ndjson, .parquet f",
        ),
        ("data.csv", "'data.csv' is of no kind that can be read; the kinds are"),
        ("*.csv", "'data.csv' is of no kind that can be read"),
    ],
)
def test_a_source_that_is_none(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "nothing").mkdir()
    write(tmp_path / "data.csv", ["1,2"])
    write(tmp_path / "here" / "a.txt", ["x"])
    with pytest.raises(ValueError, match=re.escape(told)):
        Source(name, Reading())
