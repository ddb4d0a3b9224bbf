"""The spam task's data: its defaults, the sample that comes along, and the whole collection."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest

from lit_llm.batch import IGNORE_INDEX
from lit_llm.data.class_split import normalised
from lit_llm.data.spam import Spam
from lit_llm.data.text_classification import TextClassification
from lit_llm.data.tokenizer import Bytes


def test_a_file_of_ones_own(shared: Path) -> None:
    """The collection's file names no columns; classes and shares are those of the task."""
    found = Spam(Bytes(), str(shared / "spam" / "SMSSpamCollection"))
    assert found.class_names == ["ham", "spam"]
    assert [sum(found.class_counts(split)) for split in ("train", "val", "test")] == [3150, 450, 899]
    assert found.block_size == 128


def test_the_default_is_the_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own form: texts end with a line end, and labels are numbers of named classes."""
    features = datasets.Features({"sms": datasets.Value("string"), "label": datasets.ClassLabel(names=["ham", "spam"])})
    rows = {"sms": [f"{chr(97 + i)} text\n" for i in range(20)], "label": [0, 0, 1, 0] * 5}
    data = datasets.Dataset.from_dict(rows, features=features)
    asked = []

    def load_dataset(*name: Any, **how: Any) -> Any:
        asked.append((name, how["split"]))
        return data

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = Spam(Bytes())
    assert found.class_names == ["ham", "spam"]
    assert found.table.texts[2:4] == ["c text", "d text"]
    assert found.targets[2:4].tolist() == [1, 0]
    assert asked == [(("ucirvine/sms_spam", None), "train")]


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """L7: one sentence with the two ways out; the sample is never taken unasked."""

    def load_dataset(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no way out")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        ValueError, match=r"no way out; go online, or give a local copy by --data\.source PATH; --data.s"
    ) as told:
        Spam(Bytes()).setup("fit")
    assert str(told.value).endswith("--data.source sample tries things out without a download")


def test_other_refusals_do_not_speak_of_the_sample(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,ham\n")
    with pytest.raises(ValueError, match=r"has no column 'sms' .*; name the right one by --data\.text_column$"):
        Spam(Bytes(), str(tmp_path / "a.csv")).setup("fit")
    with pytest.raises(ValueError, match=r"the file 'nothing' does not exist .*owner/name\)$"):
        Spam(Bytes(), "nothing").setup("fit")


def test_the_sample_says_what_it_is(capsys: pytest.CaptureFixture) -> None:
    found = Spam(Bytes(), "sample")
    found.setup("fit")
    said = capsys.readouterr().err
    assert said.startswith(
        "read the sample of 300 messages written for this project, not the SMS Spam Collection: 300 te"
    )
    assert "repeat" not in said
    assert [found.class_counts(split) for split in ("train", "val", "test")] == [[126, 84], [18, 12], [36, 24]]


def test_the_sample_is_of_different_messages() -> None:
    """No two share a third of their runs of three words; and whom one could call or visit there is nobody."""
    table = Spam(Bytes(), "sample").table
    assert Counter(table.labels) == {"ham": 180, "spam": 120}
    assert len({normalised(text) for text in table.texts}) == 300
    words = [normalised(text).split() for text in table.texts]
    runs = [{tuple(text[i : i + 3]) for i in range(len(text) - 2)} for text in words]
    assert not [
        (i, j)
        for i in range(300)
        for j in range(i)
        if 3 * len(runs[i] & runs[j]) > min(map(len, (runs[i], runs[j]))) > 0
    ]
    everything = "\n".join(table.texts)
    assert set(re.findall(r"[\w-]+\.(?:com|net|org|co|uk)\b", everything)) <= {
        f"example.{end}" for end in ("com", "net", "org")
    }
    numbers = re.findall(r"\b0\d{3,4} ?\d{3} ?\d{3,4}\b", everything)
    assert len(numbers) > 20
    assert not [number for number in numbers if not re.fullmatch(r"0900 555 01\d\d|07700 900\d{3}", number)]


@pytest.fixture
def sms(shared: Path) -> str:
    return str(shared / "spam" / "SMSSpamCollection")


def test_the_sms_spam_collection(sms: str, capsys: pytest.CaptureFixture) -> None:
    """All of its rows, stratified, no repetition on two sides; quotes as they are (D7)."""
    found = TextClassification(sms, Bytes(), classes=["ham", "spam"], val_fraction=0.1, test_fraction=0.2)
    found.setup("fit")
    assert len(found.table.texts) == 4499
    assert Counter(found.table.labels) == {"ham": 3897, "spam": 602}
    assert [found.class_counts(split) for split in ("train", "val", "test")] == [[2728, 422], [390, 60], [779, 120]]
    lines = Path(sms).read_text("utf-8").split("\n")
    assert [text.count('"') for text in found.table.texts] == [line.count('"') for line in lines[:-1]]
    assert any(text.count('"') % 2 for text in found.table.texts)
    sides: dict[str, set] = {}
    for text, split in zip(found.table.texts, found.splits, strict=True):
        sides.setdefault(normalised(text), set()).add(split)
    assert len(sides) == 4499 - 364
    assert {len(found) for found in sides.values()} == {1}
    assert "364 texts repeat another one" in capsys.readouterr().err


def test_padding_of_the_sms_spam_collection(sms: str) -> None:
    """Little of it: below three in a hundred tokens, where batches of the file's own order have most of theirs."""
    found = TextClassification(sms, Bytes(), batch_size=8)
    for loader in (found.train_dataloader(), found.val_dataloader()):
        batches = list(loader)
        tokens = sum(int(batch.lengths.sum()) for batch in batches)
        assert tokens < sum(batch.idx.numel() for batch in batches) < 1.03 * tokens
        assert all((batch.targets != IGNORE_INDEX).all() for batch in batches)
