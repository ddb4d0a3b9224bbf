"""Labels and texts that are the same whatever kind of file holds them."""

import csv
import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet
import pytest
from tables_of_texts import ROWS, pairs, read, write

FLOATS = {
    "a.csv": "text,label\na,0.0\nb,1.0\nc,1\nd,12.000\ne,-0.0\n",
    "a.tsv": "text\tlabel\na\t0.0\nb\t1.0\nc\t1\nd\t12.000\ne\t-0.0\n",
    "a.jsonl": "".join(
        f'{{"text": "{t}", "label": {n}}}\n' for t, n in zip("abcde", (0.0, 1.0, 1, 12.0, -0.0), strict=True)
    ),
    "b.jsonl": "".join(
        f'{{"text": "{t}", "label": "{n}"}}\n'
        for t, n in zip("abcde", ("0.0", "1.0", "1", "12.000", "-0.0"), strict=True)
    ),
    "a.json": '[{"text": "a", "label": 0.0}, {"text": "b", "label": 1.0}, {"text": "c", "label": 1}, '
    '{"text": "d", "label": 12.0}, {"text": "e", "label": -0.0}]',
}


@pytest.mark.parametrize("name", [*FLOATS, "a.parquet", "32.parquet", "decimal.parquet"])
def test_whole_floats_are_whole_numbers(tmp_path: Path, name: str) -> None:
    """In every kind of file alike: pandas makes them of a column with a gap."""
    if name in FLOATS:
        (tmp_path / name).write_text(FLOATS[name])
    else:
        numbers: Any = [0.0, 1.0, 1.0, 12.0, -0.0]
        kind = {"a.parquet": pyarrow.float64(), "32.parquet": pyarrow.float32()}.get(name)
        array = pyarrow.array(numbers, kind) if kind else pyarrow.array(map(Decimal, numbers), pyarrow.decimal128(9, 2))
        pyarrow.parquet.write_table(pyarrow.table({"text": list("abcde"), "label": array}), tmp_path / name)
    assert read(tmp_path / name).labels == ["0", "1", "1", "12", "0"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.tsv"])
def test_pandas_writes_one_table_in_many_kinds(tmp_path: Path, name: str) -> None:
    """Numbers with a gap, and true and false: the labels are the same whatever it is written as."""
    for labels, expected in (([1, None, 0], ["1", None, "0"]), ([True, False, True], ["true", "false", "true"])):
        frame, path = pandas.DataFrame({"text": list("abc"), "label": labels}), tmp_path / name
        if name == "a.parquet":
            frame.to_parquet(path)
        elif name == "a.jsonl":
            frame.to_json(path, orient="records", lines=True)
        else:
            frame.to_csv(path, index=False, sep="\t" if name == "a.tsv" else ",")
        table = read(path, labelled=False)
        assert table.labels == expected
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": NaN}\n')
    with pytest.raises(ValueError, match="line 1 has no label in 'label'; give it one, or leave the row out"):
        read(tmp_path / "a.jsonl")


@pytest.mark.parametrize("label", ["0.5", "[1]", '{"a": 1}', "Infinity", "1e400"])
def test_other_values_are_no_labels(tmp_path: Path, label: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "a", "label": {label}}}\n')
    with pytest.raises(ValueError, match=r"line 1 has the .* in 'label', where a label is a word or a whole number"):
        read(tmp_path / "a.jsonl")


@pytest.mark.parametrize("second", ['"b"', "true", '"1.0"'])
def test_labels_are_of_one_kind(tmp_path: Path, second: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "a", "label": 1}}\n{{"text": "b", "label": {second}}}\n')
    with pytest.raises(ValueError, match=r"line 2 has the .* in 'label', and the lines before it have a number there"):
        read(tmp_path / "a.jsonl")


def test_a_field_of_any_length(tmp_path: Path) -> None:
    """The csv module stops at 131,072 characters by itself."""
    rows = [("ham", "x y" * 60_000), ("spam", 'a "long\n' + "b" * 200_000 + '"')]
    for name in ("a.csv", "a.CSV", "a.jsonl"):
        assert pairs(read(write(tmp_path / name.lower(), rows).rename(tmp_path / name))) == rows


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_what_separates_the_fields_of_a_csv_file(tmp_path: Path, delimiter: str) -> None:
    """Known by the columns that are looked for; the other characters are text."""
    rows = [["a; b, c", "x"], ['say "a|b"', "y"], ["over\ntwo\tlines", "x"]]
    with open(tmp_path / "a.csv", "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=delimiter).writerows([["n;o", "text", "label"], *([0, *row] for row in rows)])
    assert pairs(read(tmp_path / "a.csv")) == [(label, text) for text, label in rows]
    with pytest.raises(ValueError, match=r"has no column 'body' \(it has n;o, text, label\)"):
        read(tmp_path / "a.csv", columns=("body", "label"))


@pytest.mark.parametrize(
    "name", ["A.TSV", "A.Txt", "A.CSV", "A.JSONL", "A.JsonL.Gz", "A.PARQUET", "a.csv.gz", "a.tsv.GZ"]
)
def test_suffixes_in_any_case_and_gzip(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name.lower().removesuffix(".gz"))
    content = path.read_bytes()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
    assert pairs(read(path)) == ROWS


def test_columns_that_nobody_asked_for_do_not_count(tmp_path: Path) -> None:
    """Missing, more of them, of other types, nested: in every kind of file."""
    extra: list[dict] = [{}, {"n": 1}, {"n": "one"}, {"n": [1, {"a": None}], "m": 0.5}, {"n": None}]
    rows = [{"text": text, "label": label} | more for (label, text), more in zip(ROWS, extra, strict=True)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    columns = {"text": [text for _, text in ROWS], "label": [label for label, _ in ROWS]}
    nested = [{"text": 1, "label": {"deep": [b"\xff"]}}] * len(ROWS)
    pyarrow.parquet.write_table(
        pyarrow.table(columns | {"meta": nested, "t": [None] * len(ROWS)}), tmp_path / "a.parquet"
    )
    for name in ("a.jsonl", "a.json", "a.parquet"):
        assert pairs(read(tmp_path / name)) == ROWS
