"""What is shown is what the batches of the data module hold, for each task."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_runs import write_text

from lit_llm.batch import IGNORE_INDEX
from lit_llm.data.base import TextDataModule
from lit_llm.data.instructions import Instructions
from lit_llm.data.pretraining import Pretraining
from lit_llm.data.text_classification import TextClassification
from lit_llm.data.tokenizer import Bytes
from lit_llm.show.lines import lines
from lit_llm.show.terminal import show
from lit_llm.show.view import Step, View, view

B, T = 3, 61


def pretraining(folder: Path, **settings: object) -> TextDataModule:
    for number in range(6):
        write_text(folder / f"{number}.txt", lines=5 + number, seed=number)
    paths = str(folder / "*.txt")
    own = {"block_size": T, "batch_size": B, "val_fraction": 0.3, "cache_dir": str(folder / "cache")}
    return Pretraining(paths, Bytes(), **{**own, **settings})  # type: ignore[arg-type]


def instructions(folder: Path, **settings: object) -> TextDataModule:
    rows = [{"instruction": f"Say {n}.", "output": f"{n} " * (n % 5 + 1)} for n in range(40)]
    rows.append({"instruction": "Say it again, and at some length, with all that belongs to it: " * 2, "output": "No."})
    (folder / "rows.json").write_text(json.dumps(rows), "utf-8")
    own = {"template": "plain", "block_size": T, "batch_size": B, "val_fraction": 0.2, "on_bad": "skip"}
    return Instructions(str(folder / "rows.json"), Bytes(), **{**own, **settings})  # type: ignore[arg-type]


def classification(folder: Path, **settings: object) -> TextDataModule:
    lengths = np.random.default_rng(0).integers(3, 30, 40)
    texts = [f"{['no', 'yes'][n % 2]}\t{n} {'ab ' * length}" for n, length in enumerate(lengths)]
    (folder / "texts.tsv").write_text("\n".join(texts), "utf-8")
    own = {"block_size": T, "batch_size": B, "val_fraction": 0.2, "test_fraction": 0.0}
    return TextClassification(str(folder / "texts.tsv"), Bytes(), **{**own, **settings})  # type: ignore[arg-type]


def ready(data: TextDataModule) -> TextDataModule:
    data.has_told = True
    data.prepare_data()
    data.setup("fit")
    return data


TASKS = {
    "pretraining": (pretraining, {}),
    "documents": (pretraining, {"mask_documents": True}),
    "packed": (instructions, {}),
    "padded": (instructions, {"packing": False}),
    "all words": (instructions, {"mask_prompt": False}),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_marked_is_what_carries_loss(task, split, tmp_path) -> None:
    """The ids of the marked tokens of a row are its targets that are not ignored, all of them, in their order."""
    make, settings = TASKS[task]
    data = ready(make(tmp_path, **settings))
    shown = view(data, split, 5, 1000)
    served = [row for batch in getattr(data, f"{split}_dataloader")() for row in batch.targets]
    assert len(shown.rows) == min(5, len(served)) > 1
    for row, targets in zip(shown.rows, served, strict=False):
        marked = [token.id for stretch in row.stretches for token in stretch.tokens if token.carries_loss]
        assert marked == targets[targets != IGNORE_INDEX].tolist()
        assert marked
    assert shown.counts.learnt == sum(int((targets != IGNORE_INDEX).sum()) for targets in served)
    assert shown.counts.followed == shown.counts.checked > 0


@pytest.mark.parametrize("task", TASKS)
def test_the_shift(task, tmp_path) -> None:
    """Each place of the table reads the id of the batch, and is asked for its target, or for nothing."""
    make, settings = TASKS[task]
    data = ready(make(tmp_path, **settings))
    batch = next(iter(data.train_dataloader()))
    for row, idx, targets in zip(view(data, "train", B, 1).rows, batch.idx, batch.targets, strict=True):
        steps = [step for step in row.steps if isinstance(step, Step)]
        assert any(step.asked for step in steps)
        for step in steps:
            assert step.read.id == idx[step.place]
            asked = IGNORE_INDEX if step.asked is None else step.asked.id
            assert asked == targets[step.place]


def test_examples_that_share_a_window(tmp_path) -> None:
    """Each has a box of its own, named by its record; positions begin anew at its border; the rest is padding."""
    data = ready(instructions(tmp_path))
    batch = next(iter(data.train_dataloader()))
    for row, documents in zip(view(data, "train", B, 1).rows, batch.documents, strict=True):
        assert len(row.stretches) == int(documents.max())
        assert row.padding == int((documents == 0).sum())
        assert all("rows.json' " in stretch.title for stretch in row.stretches)
        if len(row.stretches) > 1:
            border = int((documents == 1).sum())
            position = {step.place: step.position for step in row.steps if step}
            assert (position[border - 1], position[border], position[border + 1]) == (border - 1, 0, 1)


def test_what_was_cut_says_so(tmp_path) -> None:
    """Of a conversation and of a text with a class: how many of its tokens are missing."""
    (tmp_path / "long.json").write_text(json.dumps([{"instruction": "Say it.", "output": f"{n}" * 30} for n in "abc"]))
    settings = {"template": "plain", "block_size": 35, "batch_size": 1, "val_fraction": 0.0}
    cut = view(ready(Instructions(str(tmp_path / "long.json"), Bytes(), **settings)), "train", 1, 9)  # type: ignore[arg-type]
    (stretch,) = cut.rows[0].stretches
    whole = len(Bytes().encode("".join(span.text for span in cut.spans).removesuffix("<|endoftext|>")))
    assert f"cut off: {whole - 35} of {whole} tokens are missing" in stretch.title
    data = ready(classification(tmp_path, block_size=20, batch_size=1))
    shown = view(data, "train", 100, 100)
    titles = [stretch.title for row in shown.rows for stretch in row.stretches]
    assert sum("cut off" in title for title in titles) == data.tokens("train").truncated > 0  # type: ignore[attr-defined]


def test_texts_with_classes(tmp_path) -> None:
    """Each with the name of its class, its length and its padding; no token carries loss; labels are counted."""
    data = ready(classification(tmp_path))
    batch = next(iter(data.train_dataloader()))
    shown = view(data, "train", B, 1)
    rows = zip(shown.rows, batch.targets, batch.lengths, batch.rows, strict=True)
    for row, label, length, number in rows:
        (stretch,) = row.stretches
        assert stretch.title == f"text {number} · class {['no', 'yes'][label]} · {length} tokens"
        assert len(stretch.tokens) == length
        assert row.padding == batch.idx.shape[1] - length
        assert row.steps == []
        assert not any(token.carries_loss for token in stretch.tokens)
    counted = view(data, "train", 0, 1000)
    assert counted.facts["classes"] == ", ".join(
        f"{name} {count}" for name, count in zip(("no", "yes"), labels(data), strict=True)
    )


def labels(data: TextDataModule) -> list[int]:
    """Labels in the batches of an epoch."""
    every = np.concatenate([batch.targets.numpy() for batch in data.train_dataloader()])
    return np.bincount(every).tolist()


@pytest.mark.parametrize("make", [pretraining, instructions, classification])
def test_counts_are_those_of_an_epoch(make: Callable[..., TextDataModule], tmp_path) -> None:
    """Whatever is shown; and the data's own report stands beside them, with what was left out."""
    data = ready(make(tmp_path))
    served = [line for batch in data.train_dataloader() for line in lines(batch, 256)]
    shown: View = view(data, "train", 2, 1000)
    assert shown.counts.rows == len(served)
    assert shown.counts.tokens == sum(line.length for line in served) == sum(shown.counts.lengths)
    assert shown.report == data.report()
    if make is instructions:
        assert "left out: 1 " in shown.report
    part = view(data, "train", 0, 1)
    assert part.counts.batches == 1
    assert part.facts["counted"] == f"1 batch of {shown.counts.batches}; the rest is not counted here"


def test_a_split_that_there_is_not(tmp_path) -> None:
    data = ready(pretraining(tmp_path, val_fraction=0.0))
    assert "val" not in view(data, "train", 1, 1).facts
    with pytest.raises(ValueError, match="nothing is held out for --split val; set"):
        view(data, "val", 1, 1)
    with pytest.raises(ValueError, match="no text is held out for testing"):
        view(data, "test", 1, 1)


def test_names_of_classes_command_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"text": f"{chr(97 + n % 26) * 5} {chr(97 + n // 5)}", "label": ("a\x1b[2J", "b\x1b]0;c\x07")[n % 2]}
        for n in range(40)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    data = TextClassification(str(tmp_path / "rows.jsonl"), Bytes(), block_size=16, batch_size=4)
    data.prepare_data()
    data.setup("fit")
    show(view(data, "train", 4, 4), 80)
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert "a␛[2J" in told.out
