"""What of a source is read: suffixes, folders and globs, and documents with a mark between them."""

import gzip
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_files import texts, write

from lit_llm.data.corpus_notes import left_out
from lit_llm.data.marked import between
from lit_llm.data.sources import PIECE, Reading, Source

MARK = "<|endoftext|>"
STORIES = ["Once upon a time.\nThe end.", "A naïve 日本 story, and more", "  the last one"]


def skipped(folder: Path) -> dict[str, int]:
    return dict(Source(str(folder), Reading()).left_out)


# Folders and globs.


def test_a_folder_tells_what_it_leaves_out(tmp_path: Path) -> None:
    """By suffix, in any case; hidden files, broken links and settings in JSON too. All else is read."""
    names = ["a.txt", "B.TXT", "d.text", "sub/e.Md", "f.JSONL", "g.jsonl.GZ", "h.txt.gz", "i.PARQUET", "j.markdown"]
    for name in names:
        write(tmp_path / name, [name])
    for name in ("c.html", "k.C", "l.c", "e.tex", "README", "m.json", ".git/config.txt", ".n.txt", "o.parquet.gz"):
        write(tmp_path / name, ["not read"])
    (tmp_path / "p.txt").symlink_to(tmp_path / "nowhere.txt")
    assert sorted(texts(tmp_path)) == sorted(names)
    expected = {".c": 2, ".html": 1, ".tex": 1, "without a suffix": 1, ".json": 1, "hidden": 2, ".parquet.gz": 1}
    assert skipped(tmp_path) == expected | {"links to nowhere": 1}
    told = left_out(Source(str(tmp_path), Reading()))
    assert told.startswith("10 files left out (2 ")
    assert all(f"{count} {name}" in told for name, count in expected.items())
    assert left_out(Source(str(tmp_path / "a.txt"), Reading())) == ""


def test_many_suffixes_in_one_line(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path / f"a.x{number:02}", ["x"])
    with pytest.raises(ValueError, match=r"holds no .* file but 1 \.x00, .*, 8 others$"):
        Source(str(tmp_path), Reading())


def test_a_glob_leaves_out_what_a_folder_does(tmp_path: Path) -> None:
    for name in ("a.txt", "b.json", "c.html"):
        write(tmp_path / name, [name])
    source = Source(str(tmp_path / "*"), Reading())
    assert ["".join(document.pieces()) for document in source] == ["a.txt", "b.json"]  # what is named is read
    assert source.left_out == {".html": 1}
    with pytest.raises(ValueError, match=r"c\.html' is of no kind that can be read; .* any plain text can be named"):
        Source(str(tmp_path / "*.html"), Reading())


# Marks.


@pytest.mark.parametrize("form", ["{0}<|endoftext|>{1}<|endoftext|>{2}", "{0}\n<|endoftext|>\n{1}\n<|endoftext|>\n{2}"])
@pytest.mark.parametrize("name", ["a.txt", "a.TXT.gz", "a.jsonl", "a.json", "a.parquet"])
@pytest.mark.parametrize("end", ["", MARK, f"{MARK}\n", f"\r\n{MARK}\r\n"])
def test_documents_between_marks(tmp_path: Path, form: str, name: str, end: str) -> None:
    """In files and in rows: without the mark, line breaks beside it, and what holds no text."""
    path = write(tmp_path / name, [form.format(*STORIES) + end])
    assert texts(path, split_at=MARK) == STORIES
    assert texts(path, split_at=MARK, max_documents=2) == STORIES[:2]
    names = [document.name for document in Source(str(path), Reading(split_at=MARK))]
    assert len(set(names)) == 3
    assert names[1] == f"{path} row 1 part 2" if "row" in names[1] else f"{path} part 2"


def test_a_mark_that_is_not_there(tmp_path: Path) -> None:
    source = Source(str(write(tmp_path / "a.txt", ["one text"])), Reading(split_at="###"))
    assert ["".join(document.pieces()) for document in source] == ["one text"]
    assert source.marks["###"] == 0
    with pytest.raises(ValueError, match=r"--data\.reading\.split_at must be the mark between documents, .* got ''"):
        Reading(split_at="")


@given(
    st.lists(st.sampled_from(["a", "b ", "\n", "\r\n", "é", "日", MARK, MARK[:5], "|>"]), max_size=40),
    st.integers(1, 30),
    st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]),
)
def test_a_file_is_divided_as_its_text_is(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], size: int, encoding: str
) -> None:
    """However few characters are read at once: documents that are held, and those that are read again."""
    path = tmp_path_factory.getbasetemp() / "marked.txt"
    path.write_bytes("".join(parts).encode(encoding))
    reading = {"split_at": MARK, "encoding": "utf-16" if encoding == "utf-16" else "utf-8"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lit_llm.data.sources.PIECE", size)
        found = [text for text in texts(path, **reading) if text and not text.isspace()]
    counts: Counter[str] = Counter()
    assert found == between("".join(parts), MARK, counts)
    assert counts[MARK] == "".join(parts).count(MARK)


@pytest.mark.parametrize("packed", [False, True])
def test_long_documents_in_little_memory(tmp_path: Path, packed: bool) -> None:
    """A document of 20 MB among many short ones: no more than a few pieces are held, and all can be read again."""
    long, short = "letters and spaces " * (1 << 20), [f"story {i}" for i in range(20_000)]
    content = "\n".join([*short, long, *short]).replace("\n", f"\n{MARK}\n")
    path = tmp_path / ("a.txt.gz" if packed else "a.txt")
    path.write_bytes(gzip.compress(content.encode(), 1) if packed else content.encode())
    del content
    tracemalloc.start()
    try:
        sizes = [sum(map(len, document.pieces())) for document in Source(str(path), Reading(split_at=MARK))]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sizes == [*map(len, short), len(long), *map(len, short)]
    assert peak < 12 * PIECE
