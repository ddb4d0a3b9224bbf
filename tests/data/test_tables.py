"""Texts and labels from every kind of table, and what is wrong with one in a sentence."""

import re
from pathlib import Path
from typing import Any

import datasets
import pytest
from tables_of_texts import ROWS, pairs, read, write


@pytest.mark.parametrize("name", ["a.tsv", "a.txt", "SMSSpamCollection", "a.csv", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_every_kind_of_file_gives_the_same(tmp_path: Path, name: str) -> None:
    table = read(write(tmp_path / name))
    assert pairs(table) == ROWS
    assert table.rows == list(range(5))
    assert table.empty == 0


def test_unbalanced_quotes_are_text(tmp_path: Path) -> None:
    """D7: in tab-separated files a quote opens nothing."""
    rows = [("ham", 'he said "no and left'), ("spam", '"'), ("ham", '"quoted"'), ("ham", 'end"')]
    assert pairs(read(write(tmp_path / "a.tsv", rows))) == rows


def test_a_line_that_names_the_columns(tmp_path: Path) -> None:
    """In any order, among others; what is too much belongs to the last one. Lines may end as on Windows."""
    path = tmp_path / "a.tsv"
    path.write_bytes("\ufeffid\tlabel\ttext\r\n7\tham\tone\ttwo\r\n\r\n8\tspam\tthree\u2028four\r\n".encode())
    assert pairs(read(path)) == [("ham", "one\ttwo"), ("spam", "three\u2028four")]
    table = read(path, columns=("label", "id"))
    assert pairs(table) == [("7", "ham"), ("8", "spam")]
    assert table.places == [2, 4]


def test_texts_may_go_over_lines(tmp_path: Path) -> None:
    """In CSV; messages count the lines of the file."""
    (tmp_path / "a.csv").write_text('text,label\n"one\ntwo",ham\nthree,spam\n')
    table = read(tmp_path / "a.csv")
    assert pairs(table) == [("ham", "one\ntwo"), ("spam", "three")]
    assert table.places == [2, 4]
    assert table.place(1) == f"'{tmp_path}/a.csv' line 4"


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.parquet"])
def test_rows_without_text_are_counted_and_the_others_keep_their_numbers(tmp_path: Path, name: str) -> None:
    """White space around a text does not count, so one of nothing else is empty."""
    table = read(write(tmp_path / name, [("ham", " a "), ("ham", ""), ("spam", " \u00a0 "), ("spam", "b")]))
    assert pairs(table) == [("ham", "a"), ("spam", "b")]
    assert (table.rows, table.empty) == ([0, 3], 2)


def test_labels_are_words_or_whole_numbers(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.jsonl", [(1, "a"), (0, "b"), (12, "c")])).labels == ["1", "0", "12"]
    assert read(write(tmp_path / "b.jsonl", [(True, "a"), (False, "b")])).labels == ["true", "false"]
    assert read(write(tmp_path / "c.tsv", [(" ham ", "a"), ("spam", "b")])).labels == ["ham", "spam"]


def test_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("label,text\nham,£5\nspam,naïve\n".encode("latin-1"))
    assert read(path, encoding="latin-1").texts == ["£5", "naïve"]
    with pytest.raises(ValueError, match=r"is not utf-8 \(byte 0xa3: .*--data\.reading\.encoding latin-1"):
        read(path)
    for encoding in ("nothing", "base64"):
        with pytest.raises(ValueError, match=f"there is no encoding '{encoding}' of text"):
            read(path, encoding=encoding)


def test_labels_may_be_missing_where_none_are_needed(tmp_path: Path) -> None:
    """Tables without the column, files of one text a line, single labels that are empty."""
    (tmp_path / "a.txt").write_text("one, two\nspam\tthree\n\tfour\n")
    assert pairs(read(tmp_path / "a.txt", labelled=False)) == [(None, "one, two"), ("spam", "three"), (None, "four")]
    (tmp_path / "a.csv").write_text("text,n\none,1\n")
    assert pairs(read(tmp_path / "a.csv", labelled=False)) == [(None, "one")]
    (tmp_path / "b.tsv").write_text("text\tn\none\t1\n")
    assert pairs(read(tmp_path / "b.tsv", labelled=False)) == [(None, "one")]
    assert pairs(read(write(tmp_path / "a.jsonl", [(None, "a"), ("ham", "b")]), labelled=False)) == [
        (None, "a"),
        ("ham", "b"),
    ]


CASES = {
    "a.jsonl": [
        (
            '{"text": "a", "label": "x"}\n{"text": 7, "label": "x"}\n',
            "line 2 has the int '7' in 'text', where its text",
        ),
        (
            '{"text": "a", "label": "x"}\n{"text": "b", "label": 1}\n',
            "line 2 has the int '1' in 'label', and the lines ",
        ),
        (
            '{"text": "a", "label": "x"}\n{"text": "b"}\n',
            "line 2 lacks the field 'label'; give it one, or leave the line",
        ),
        ('{"text": "a", "label": "x"}\n{"text": null, "label": "x"}\n', "line 2 has nothing in 'text', where its text"),
        ('{"text": "a", "label": null}\n', "line 1 has no label in 'label'; give it one, or leave the row out"),
        ('{"text": "a", "label": 0.5}\n', "line 1 has the float '0.5' in 'label', where a label is a word or a whole"),
        ('["a", "x"]\n', "line 1 is a list, where a row has named fields"),
        ('{"text": "a", "label": "x"}\n{"text": "b"\n', "line 2 is no JSON"),
        ('{"body": "a", "label": "x"}\n', r"has no column 'text' \(it has body, label\).* --data\.text_column"),
        ("\n", "holds no text in 0 rows"),
    ],
    "a.csv": [
        (
            "text,class\na,x\n",
            r"has no column 'label' \(it has text, class\); name the right one by --data\.label_column",
        ),
        ("text,label\na,x\nb,c,y\n", "line 3 has 3 fields, and 2 are expected: text, label"),
        ('text,label\na,x\n"b,y\n', "line 3 is no CSV: unexpected end of data"),
        ("text,label\na,\n", "line 2 has no label in 'label'"),
        ("", "holds no text in 0 rows"),
    ],
    "a.tsv": [
        ("ham\ta\nspam b\n", "line 2 has 1 fields, and 2 are expected: label, text"),
        ("ham\t \nspam\t\n", "holds no text in 2 rows"),
    ],
}


@pytest.mark.parametrize(
    ("name", "content", "told"), [(name, *case) for name, cases in CASES.items() for case in cases]
)
def test_what_is_wrong_with_a_table(tmp_path: Path, name: str, content: str, told: str) -> None:
    """D6, D9: one sentence that begins with the file and points at the line."""
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"^'{re.escape(str(tmp_path / name))}' {told}") as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_numbers_of_json_are_of_one_kind(tmp_path: Path) -> None:
    """A score of 1 beside one of 0.5 is no mistake, nor is a field that is empty at first."""
    (tmp_path / "a.jsonl").write_text(
        '{"text": "a", "label": "x", "s": 1, "t": null}\n{"text": "b", "label": "y", "s": 0.5, "t": "t"}\n'
    )
    assert read(tmp_path / "a.jsonl").labels == ["x", "y"]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("nothing.tsv", r"the file 'nothing\.tsv' does not exist"),
        ("owner/nothing.csv", r"the file 'owner/nothing\.csv' does not exist"),
        ("", "the file '' does not exist"),
        (".", r"'\.' is a folder, and a table is one file; its kinds are \.tsv"),
        ("a.xlsx", r"'a\.xlsx' is of no kind that can be read; the kinds are \.tsv"),
        ("a.parquet", r"'a\.parquet' is no parquet file, or a damaged one"),
    ],
)
def test_what_is_no_table(tmp_path: Path, source: str, told: str) -> None:
    for name in ("a.xlsx", "a.parquet"):
        (tmp_path / name).write_text("PK")
    with pytest.raises(ValueError, match=told):
        read(source)


# Classes that a data set names.


def classes(names: list[str], numbers: list[int]) -> datasets.Dataset:
    features = datasets.Features({"sms": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    texts = [f"text {number}\n" for number in range(len(numbers))]  # a line end, as in the hub's copy
    return datasets.Dataset.from_dict({"sms": texts, "label": numbers}, features=features)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """`datasets` with a data set of our own in place of the one on the hub; what it was asked for."""
    asked = []

    def load_dataset(name: str, subset: str | None, split: str, revision: str | None, streaming: bool) -> Any:
        asked.append((name, subset, split, revision, streaming))
        if split != "train":
            raise ValueError(f'Unknown split "{split}".')
        return classes(["no", "yes"], [1, 0, 1])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_a_data_set_of_the_hub(hub: list[tuple]) -> None:
    table = read("owner/name", columns=("sms", "label"), subset="plain", revision="v1")
    assert pairs(table) == [("yes", "text 0"), ("no", "text 1"), ("yes", "text 2")]
    assert table.class_names == ["no", "yes"]
    assert hub == [("owner/name", "plain", "train", "v1", False)]


def test_a_data_set_that_is_not_as_asked_for(hub: list[tuple]) -> None:
    with pytest.raises(ValueError, match=r"'owner/name' has no column 'text' \(it has sms, label\)"):
        read("owner/name")
    with pytest.raises(ValueError, match=r"'owner/name' is no file or folder here, .* Unknown split \"dev\""):
        read("owner/name", columns=("sms", "label"), split="dev")


def test_a_parquet_file_that_names_its_classes(tmp_path: Path) -> None:
    """As `datasets` writes it; -1 stands for no label."""
    path = str(tmp_path / "a.parquet")
    datasets.disable_progress_bars()
    with open(path, "wb") as file:
        classes(["no", "yes"], [1, -1, 0]).to_parquet(file)
    table = read(path, columns=("sms", "label"), labelled=False)
    assert (table.labels, table.class_names) == (["yes", None, "no"], ["no", "yes"])
    with pytest.raises(ValueError, match="row 2 has no label in 'label'"):
        read(path, columns=("sms", "label"))
