"""JSON files in every form that they come in, for every reader."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from source_files import texts

from lit_llm.data.json_rows import json_rows
from lit_llm.data.records import read_records
from lit_llm.data.rows import Access
from lit_llm.data.sources import Reading
from lit_llm.data.tables import Columns, read_table

ROWS = [{"text": f"naïve 日本 {i}\n{{", "label": "ab"[i % 2], "more": [{"a": 1}, {}]} for i in range(4)]


def compact(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


FORMS: dict[str, tuple[str, str]] = {
    "lines": ("line", compact(ROWS)),
    "lines that end as on Windows": ("line", compact(ROWS).replace("\n", "\r\n")),
    "lines with blank ones": ("line", "\n \n" + compact(ROWS).replace("}\n", "}\n\n")),
    "an array": ("record", json.dumps(ROWS)),
    "an array over lines": ("record", json.dumps(ROWS, indent=2)),
    "an array, a record a line": ("record", "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n"),
    "an object around": ("record", json.dumps({"data": ROWS})),
    "an object around, over lines": ("record", json.dumps({"version": "1.0", "examples": ROWS}, indent=1)),
    "an object around by another name": ("record", json.dumps({"questions": ROWS})),
    "objects over lines": ("record", "\n".join(json.dumps(row, indent=2) for row in ROWS)),
    "objects in one line": ("record", "".join(map(json.dumps, ROWS))),
    "objects with commas between": ("record", ",\n".join(map(json.dumps, ROWS))),
}


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson", ".JSON", ".jsonl.gz", ".Json.GZ"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_under_every_suffix(tmp_path: Path, form: str, suffix: str) -> None:
    """By all three readers: documents, labelled texts and records."""
    unit, content = FORMS[form]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(content.encode()) if suffix.lower().endswith("gz") else content.encode())
    assert json_rows(path)[0] == unit
    assert texts(path) == [row["text"] for row in ROWS]
    table = read_table(str(path), Columns("text", "label"), Access())
    assert (table.texts, table.labels) == ([row["text"].strip() for row in ROWS], list("abab"))
    assert table.place(1) == f"'{path}' {unit} {3 if 'blank' in form else 2}" or "blank" in form
    assert [record.content for record in read_records(str(path), Reading())] == ROWS


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("form", ["lines", "an array over lines"])
def test_encodings_of_json(tmp_path: Path, encoding: str, form: str) -> None:
    """With a byte-order mark or without one."""
    (tmp_path / "a.json").write_bytes(FORMS[form][1].encode(encoding))
    assert texts(tmp_path / "a.json") == [row["text"] for row in ROWS]


def test_one_record_is_a_record(tmp_path: Path) -> None:
    """Not an object around rows, though it holds a list of objects."""
    for record in (
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"text": "a", "entities": [{"start": 1}]},
        {"text": "a", "label": "x"},
    ):
        for indent in (None, 2):
            (tmp_path / "a.json").write_text(json.dumps(record, indent=indent))
            assert [row for _, row in json_rows(tmp_path / "a.json")[1]] == [record]


def test_lists_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('["a", "x"]\n["b", "y"]\n')
    assert list(json_rows(tmp_path / "a.jsonl")[1]) == [(1, ["a", "x"]), (2, ["b", "y"])]
    (tmp_path / "a.jsonl").write_text("[]")
    assert list(json_rows(tmp_path / "a.jsonl")[1]) == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"train": ROWS, "test": ROWS}, "holds 2 lists (train, test); write each into a file of its own"),
        (
            {"text": {"0": "a", "1": "b"}, "label": {"0": "x", "1": "y"}},
            "holds a table in one object (text, label), as",
        ),
        ({"text": ["a", "b"], "label": ["x", "y"]}, "holds a table in one object (text, label), as pandas writes it"),
        ({"columns": ["text"], "index": [0], "data": [["a"]]}, "holds a table in one object (columns, index, data)"),
    ],
)
def test_what_cannot_be_rows(tmp_path: Path, content: Any, told: str) -> None:
    for indent in (None, 1):
        (tmp_path / "a.json").write_text(json.dumps(content, indent=indent))
        with pytest.raises(ValueError, match=re.escape(f"'{tmp_path}/a.json' {told}")):
            texts(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"text": "cut sho', "line 1 is no JSON: Unterminated string"),
        ('{"text": "cut sho\n{"text": "good"}\n', "line 1 is no JSON"),
        ("nonsense\n", "line 1 is no JSON"),
        ('[{"text": "a"}, {"text": ', "is no JSON: Expecting value: line 1 column 26"),
        ('[\n{"text": "a"},\n{"text" "b"}\n]', "is no JSON: Expecting ':' delimiter: line 3 column 9"),
        ('{"text": "a"} and more', "is no JSON: Expecting value: line 1 column 15"),
        ("[" * 200_000, "line 1 is no JSON"),
        ("{'text': 'a'}\n", "line 1 is no JSON"),
    ],
)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_damaged_json(tmp_path: Path, suffix: str, content: str, told: str) -> None:
    """D5: the file and the line, whatever the form was to be."""
    path = tmp_path / f"a{suffix}"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"'{path}' {told}")) as caught:
        texts(path)
    assert "\n" not in str(caught.value)
