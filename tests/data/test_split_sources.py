"""Sources as options name them, folders divided by names, and splits with sources of their own, for every task."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_llm.data.base import TextDataModule
from lit_llm.data.corpora import repeated_stretches
from lit_llm.data.instructions import Instructions
from lit_llm.data.named_sources import parse
from lit_llm.data.preferences import Preferences
from lit_llm.data.pretraining import Pretraining
from lit_llm.data.sources import Reading
from lit_llm.data.split_folders import split_folder
from lit_llm.data.text_classification import TextClassification
from lit_llm.data.tokenizer import Bytes, Characters


def spelt(number: int) -> str:
    """In letters, for texts that differ in digits alone are one to a classification."""
    return "".join("abcdefghij"[int(digit)] for digit in str(number))


ROWS = {
    Pretraining: lambda i: {"text": f"text {i}"},
    Instructions: lambda i: {"instruction": f"Say {i}.", "output": f"text {i}"},
    Preferences: lambda i: {"prompt": f"Say {i}.", "chosen": f"text {i}", "rejected": "no"},
    TextClassification: lambda i: {"text": f"{spelt(i)} text {i}", "label": "xy"[i % 2]},
}
TASKS = pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind.__name__)


def write(path: Path, kind: Any, numbers: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(ROWS[kind](i)) for i in numbers))
    return str(path)


def data(kind: Any, folder: Path, source: Any, **settings: Any) -> TextDataModule:
    own = {"cache_dir": str(folder / "cache")} if kind is Pretraining else {}
    own |= {"template": "plain"} if kind in (Instructions, Preferences) else {}
    own |= {"packing": False} if kind is Instructions else {}
    size = 9 if kind is Pretraining else 60
    made = kind(source, **{"tokenizer": Bytes(), "block_size": size, "batch_size": 1, **own, **settings})
    made.prepare_data()
    made.setup("fit")
    return made


def numbers(made: TextDataModule, split: str) -> Counter[int]:
    """The numbers at the end of the texts of all rows that a split's loader serves."""
    found: Counter[int] = Counter()
    for batch in getattr(made, f"{split}_dataloader")():
        text = bytes(i for i in batch.idx[0].tolist() if i < 256).decode()
        found[int(text.rstrip(".$ \n").split("text ")[1].split()[0].rstrip("."))] += 1
    return found


def served(kind: Any, numbers: Any) -> Counter[int]:
    """What training serves of them: a window of nine bytes, which a text and its end are, needs a next token."""
    return Counter(list(numbers)[: -1 if kind is Pretraining else None])


@TASKS
def test_splits_have_sources_of_their_own(tmp_path: Path, kind: Any) -> None:
    """Whole, and no share of what is trained on, whatever the fractions say."""
    names = {split: write(tmp_path / f"{split}.jsonl", kind, n) for split, n in SPLITS.items()}
    own = {"val_source": names["val"], "test_source": names["test"], "val_fraction": 0.2, "test_fraction": 0.3}
    made = data(kind, tmp_path, names["train"], **own)
    for split, of in SPLITS.items():
        assert numbers(made, split) == (served(kind, of) if split == "train" else Counter(of))
        assert made.has(split)
    assert f"val: '{names['val']}', and no share" in made.report()
    assert made.split_settings()["val"] == made.split_settings()["test"] == 0


SPLITS = {"train": range(100, 120), "val": range(200, 206), "test": range(300, 305)}


@TASKS
@pytest.mark.parametrize("form", ["files", "folders"])
def test_folders_are_divided_by_names(tmp_path: Path, kind: Any, form: str) -> None:
    """train.jsonl and dev.jsonl, or train/ and valid/; told in a line."""
    place = "{}.jsonl" if form == "files" else "{}/part.jsonl"
    for word, split in {"train": "train", "dev": "val", "test": "test"}.items():
        write(tmp_path / "all" / place.format(word), kind, SPLITS[split])
    made = data(kind, tmp_path, str(tmp_path / "all"))
    assert numbers(made, "train") == served(kind, SPLITS["train"])
    assert {split: numbers(made, split) for split in ("val", "test")} == {
        s: Counter(SPLITS[s]) for s in ("val", "test")
    }
    first = place.format("dev").split("/")[0]
    assert f"is divided by names: {place.format('train').split('/')[0]} for train, {first} for val" in made.report()


@TASKS
def test_sources_have_weights(tmp_path: Path, kind: Any) -> None:
    """Twice each row of one, and half of those of another, which are others in the next epoch."""
    one, two = write(tmp_path / "1.jsonl", kind, range(100, 108)), write(tmp_path / "2.jsonl", kind, range(200, 210))
    source = [{"path": one, "weight": 2}, {"path": two, "weight": 0.5}]
    made = data(kind, tmp_path, source, val_fraction=0.0, test_fraction=0.0)
    loader = made.train_dataloader()
    epochs = []
    for _ in range(2):
        made.train_dataloader = lambda: loader  # type: ignore[method-assign]
        epochs.append(numbers(made, "train"))
    for found in epochs:
        assert {i: found[i] for i in range(100, 108)} == dict.fromkeys(range(100, 108), 2)
        assert set(found.values()) <= {1, 2}
        assert sum(found.values()) - 16 in (4, 5)
    half = [{i for i in found if i >= 200} for found in epochs]
    assert len(half[0] | half[1]) == sum(map(len, half))  # all ten; of nine windows eight
    assert "an epoch reads" in made.report()


@pytest.mark.parametrize("kind", [Instructions, Preferences, TextClassification])
def test_what_is_in_both_is_counted(tmp_path: Path, kind: Any) -> None:
    """Rows of a split's own source that are trained on, too: three of six."""
    train = write(tmp_path / "train.jsonl", kind, range(100, 120))
    val = write(tmp_path / "val.jsonl", kind, [*range(200, 203), 100, 105, 110])
    report = data(kind, tmp_path, train, val_source=val, test_fraction=0.0).report()
    assert ("validate: 3 texts of" if kind is TextClassification else "val: 3 of 6 records") in report


def test_stretches_of_a_text_that_are_trained_on_are_counted(tmp_path: Path) -> None:
    """Against a search of the text itself."""
    draw = np.random.default_rng(0)
    train, other = (draw.integers(97, 123, 3000).astype(np.uint8) for _ in range(2))
    held_out = np.concatenate([other[:64], train[501:565], other[64:100], train[40:100]])
    whole = train.tobytes()
    pieces = [held_out[i : i + 32].tobytes() for i in range(0, len(held_out) - 31, 32)]
    wanted = sum(piece in whole for piece in pieces)
    assert repeated_stretches(train, held_out) == (wanted, len(pieces))
    assert wanted == 3
    (tmp_path / "train.txt").write_bytes(whole)
    (tmp_path / "val.txt").write_bytes(held_out.tobytes())
    made = data(Pretraining, tmp_path, str(tmp_path / "train.txt"), val_source=str(tmp_path / "val.txt"))
    assert "val: 3 of 7 stretches of 32 tokens are trained on as well" in made.report()


def test_a_tokenizer_learns_from_training_texts(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("abcd" * 20)
    (tmp_path / "val.txt").write_text("abc" * 9)
    names = [str(tmp_path / name) for name in ("train.txt", "val.txt")]
    made = data(Pretraining, tmp_path, names[0], tokenizer=Characters(), val_source=names[1])
    assert made.vocab_size == 4
    rows = [write(tmp_path / f"{n}.jsonl", Instructions, of) for n, of in enumerate([[12, 21], [11]])]
    made = data(Instructions, tmp_path, rows[0], tokenizer=Characters(end_of_text=True), val_source=rows[1])
    alone = data(Instructions, tmp_path, rows[0], tokenizer=Characters(end_of_text=True), val_fraction=0.0)
    assert made.tokenizer_state() == alone.tokenizer_state()


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["train.txt", "val.txt"], ["train", "val"]),
        (["train.txt", "VALIDATION.TXT", "README.md"], ["train", "val"]),
        (["train-00000-of-00002.txt", "train-00001-of-00002.txt", "test.txt"], ["test", "train"]),
        (["train/a.txt", "dev/b.txt"], ["train", "val"]),
        (["train.txt", "plane.txt", "ship.txt"], []),
        (["train.txt", "val.txt", "plane.txt"], []),
        (["train.txt", "val.md"], []),
        (["val.txt", "test.txt"], []),
        (["train/a.txt", "test/b.txt", "src/c.txt"], []),
        (["train.txt", "val.txt", "more/c.txt"], []),
    ],
)
def test_names_have_to_pair_up(tmp_path: Path, files: list[str], found: list[str]) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert sorted(split_folder(tmp_path, (".txt", ".md"))[0]) == found


def test_what_an_option_names() -> None:
    reading = Reading(max_documents=3)
    one, two, three = parse("source", ["a.txt", {"path": "b", "weight": 2, "encoding": "latin-1"}, "o/n:dev"], reading)
    assert [str(each) for each in (one, two, three)] == ["a.txt", "b", "o/n:dev"]
    assert (one.weight, two.weight, three.path) == (1, 2, "o/n")
    assert (two.reading(reading).encoding, three.reading(reading).split) == ("latin-1", "dev")
    assert three.reading(reading).max_documents == 3


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], r"--data\.source must name at least one source"),
        (["a", "a"], "names 'a' twice"),
        ({"weight": 2}, "a mapping with 'path'"),
        ({"path": "a", "wieght": 2}, "got 'wieght'"),
        ({"path": "a", "weight": 0}, "a positive number as the weight of 'a', got 0"),
        ({"path": "a", "weight": float("nan")}, "got nan"),
        ({"path": "a", "weight": True}, "got True"),
    ],
)
def test_what_an_option_cannot_name(value: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse("source", value, Reading())


@TASKS
def test_sources_of_a_split_that_cannot_be(tmp_path: Path, kind: Any) -> None:
    """One sentence each: what is trained on, what has a weight, what is not there, what is empty."""
    train = write(tmp_path / "train.jsonl", kind, range(100, 120))
    empty = write(tmp_path / "empty.jsonl", kind, [])
    refused = {
        train: "must not be trained on",
        str(tmp_path / "none.jsonl"): "does not exist|must be a file",
        empty: "must hold|holds no text",
    }
    for source, told in refused.items():
        with pytest.raises(ValueError, match=told):
            data(kind, tmp_path, train, val_source=source)
    with pytest.raises(ValueError, match="must have no weight"):
        data(kind, tmp_path, train, val_source={"path": empty, "weight": 2})


def test_a_label_of_one_split_alone_is_refused(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", TextClassification, range(20))
    (tmp_path / "val.jsonl").write_text(json.dumps({"text": "new", "label": "z"}))
    with pytest.raises(ValueError, match="has the label 'z', which is none of x, y"):
        data(TextClassification, tmp_path, train, val_source=str(tmp_path / "val.jsonl"))
