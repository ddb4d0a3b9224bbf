"""The data module of texts with labels: what it serves, reports and refuses, and how a run goes on."""

import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cli_runs import call, refusal, tiny_config, write_yaml
from lightning import Trainer
from recording import Recorder, SaveAtTheEnd

from lit_llm.batch import TextBatch
from lit_llm.data.bpe import BPE
from lit_llm.data.text_classification import TextClassification
from lit_llm.data.tokenizer import Bytes, from_state

B, T = 3, 13
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "big", "red", "dogs"]


def write(path: Path, counts: dict[str, int] | None = None) -> Path:
    """Different texts of three classes."""
    choose = random.Random(0)
    counts = counts or {"b": 40, "a": 20, "c": 30}
    lines = [
        f"{name}\t{i} {' '.join(choose.sample(WORDS, 2))} {name * i}\n" for name in counts for i in range(counts[name])
    ]
    choose.shuffle(lines)
    path.write_text("".join(lines))
    return path


def data(folder: Path, **settings: Any) -> TextClassification:
    path = folder / "texts.tsv"
    source = settings.pop("source", None) or str(path if path.exists() else write(path))
    settings = {"tokenizer": Bytes(), "block_size": T, "batch_size": B, **settings}
    return TextClassification(source, **settings)


def served(loader: Any) -> list[int]:
    """Numbers of the rows of all batches."""
    return [row for batch in loader for row in batch.rows.tolist() if row >= 0]


# What is served.


def test_batches_hold_the_texts_of_their_rows(tmp_path: Path) -> None:
    """With their classes; each split is what the split says, training but for its ragged rest."""
    found = data(tmp_path)
    lines = [line.split("\t") for line in (tmp_path / "texts.tsv").read_text().splitlines()]
    loaders = {"train": found.train_dataloader(), "val": found.val_dataloader(), "test": found.test_dataloader()}
    seen: Counter[int] = Counter()
    for split, loader in loaders.items():
        for batch in loader:
            assert isinstance(batch, TextBatch)
            for ids, target, length, row in zip(*map(torch.Tensor.tolist, batch), strict=True):
                assert bytes(ids[:length]).decode() == lines[row][1].strip()[:T]
                assert set(ids[length:]) <= {256}
                assert found.class_names[target] == lines[row][0]
        seen.update(served(loader))
        expected = found.texts(split)[0].tolist()
        assert set(seen) >= set(expected) if split != "train" else len(set(expected) - set(seen)) == len(expected) % B
    assert max(seen.values()) == 1


def test_splits_are_stratified_and_counted(tmp_path: Path) -> None:
    found = data(tmp_path, val_fraction=0.1, test_fraction=0.2)
    assert found.class_names == ["a", "b", "c"]
    assert [found.class_counts(split) for split in ("train", "val", "test")] == [[14, 28, 21], [2, 4, 3], [4, 8, 6]]
    rows, texts, targets = found.texts("val")
    assert rows.tolist() == sorted(rows.tolist())
    assert len(texts) == len(targets) == 9


def test_classes_are_in_the_order_asked_for(tmp_path: Path) -> None:
    found = data(tmp_path, classes=["c", "a", "b"])
    assert found.class_names == ["c", "a", "b"]
    assert sum(np.array([found.class_counts(split) for split in ("train", "val", "test")])).tolist() == [30, 20, 40]


def test_balance_is_of_training_alone(tmp_path: Path) -> None:
    plain, balanced = data(tmp_path), data(tmp_path, balance="undersample")
    assert balanced.class_counts("train") == [16, 16, 16]
    for split in ("val", "test"):
        assert balanced.texts(split)[1] == plain.texts(split)[1]
    assert set(balanced.texts("train")[1]) < set(plain.texts("train")[1])


def test_the_split_has_a_seed_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the run chooses the order of the batches and nothing else."""

    def order(seed: int) -> list[int]:
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))  # as seed_everything sets it
        return served(data(tmp_path, batch_size=1).train_dataloader())

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == sorted(order(2))
    assert data(tmp_path, split_seed=1).texts("test")[1] != data(tmp_path).texts("test")[1]


def test_ranks_share_the_texts(tmp_path: Path) -> None:
    """Where the trainer says which one this is."""
    rows: list[list[int]] = [[], [], []]
    for rank in range(2):
        found = data(tmp_path)
        found.trainer = SimpleNamespace(distributed_sampler_kwargs={"rank": rank, "num_replicas": 2})  # type: ignore
        for seen, name in zip(rows, ("train", "val", "predict"), strict=True):
            seen += served(getattr(found, f"{name}_dataloader")())
    assert [len(seen) for seen in rows] == [len(set(seen)) for seen in rows] == [72, 9, 9]


def test_predictions_are_of_the_test_or_else_of_the_validation_texts(tmp_path: Path) -> None:
    """In the order of the source."""
    found, without = data(tmp_path), data(tmp_path, test_fraction=0.0)
    assert served(found.predict_dataloader()) == found.texts("test")[0].tolist()
    assert served(without.predict_dataloader()) == without.texts("val")[0].tolist()


def test_other_texts_may_be_predicted(tmp_path: Path) -> None:
    """With labels or without; numbers of rows are those of their file."""
    (tmp_path / "new.txt").write_text("one, two\n\nc\tthree\n \nfour\n")
    found = data(tmp_path, predict_source=str(tmp_path / "new.txt"))
    rows, texts, targets = found.texts("predict")
    assert (rows.tolist(), texts, targets.tolist()) == ([0, 1, 3], ["one, two", "three", "four"], [-100, 2, -100])
    (batch,) = found.predict_dataloader()
    assert batch.rows.tolist() == [0, 1, 3]
    assert found.class_counts("predict") == [0, 0, 1]


def test_other_texts_may_be_tested(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """What is trained on as well is told."""
    found = data(tmp_path, test_fraction=0.0)
    other = tmp_path / "test.tsv"
    other.write_text(f"a\tnew\na\t{found.texts('train')[1][0].upper()}\n")
    found = data(tmp_path, test_fraction=0.0, test_source=str(other))
    assert served(found.test_dataloader()) == [0, 1] or served(found.test_dataloader()) == [1, 0]
    assert found.class_counts("test") == [2, 0, 0]
    found.setup("test")
    assert f"to test: 1 texts of '{other}' are also trained on" in capsys.readouterr().err


def test_a_tokenizer_learns_from_the_training_texts(tmp_path: Path) -> None:
    """From nothing that is held out; its size is known before anything is read."""
    found = data(tmp_path, tokenizer=BPE(290))
    assert (found.has_fitted_tokenizer, found.expected_vocab_size) == (False, 290)
    assert "table" not in vars(found)
    alone = BPE(290)
    alone.fit(found.texts("train")[1])
    assert from_state(found.tokenizer_state()).fingerprint() == alone.fingerprint()
    assert found.vocab_size == 290
    assert not found.has_fitted_tokenizer


# What is reported.


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Once: rows by class and split, empty texts, repetitions, and what is cut off."""
    lines = [
        f"{name}\t{name}{'x' * i} {n}\n"
        for name, count in (("no", 20), ("yes", 10))
        for i in range(count)
        for n in (1, 2)
    ]
    (tmp_path / "texts.tsv").write_text("".join(lines) + "no\t \n")
    found = data(tmp_path, val_fraction=0.1, test_fraction=0.2, balance="undersample")
    found.setup("fit")
    found.setup("test")
    cut = {split: sum(len(text) > T for text in found.texts(split)[1]) for split in ("train", "val", "test")}
    assert min(cut.values()) > 0
    assert capsys.readouterr().err.splitlines() == [
        f"read '{tmp_path}/texts.tsv': 60 texts of 2 classes; 1 rows without text are left out",
        "              no  yes  all",
        "  train       14   14   28",
        "  val          4    2    6",
        "  test         8    4   12",
        "  train, all  28   14   42",
        "  30 texts repeat another one, and stay on its side; drawn row by row, 9 of 12 for test would have been "
        "trained on",
        f"  cut off at 13 tokens: {cut['train']} of 28 for train, {cut['val']} of 6 for val, "
        f"{cut['test']} of 12 for test",
    ]


def test_many_classes_are_not_all_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write(tmp_path / "texts.tsv", dict.fromkeys("abcdefghijklm", 10))
    data(tmp_path, block_size=99).setup("fit")
    assert capsys.readouterr().err.splitlines() == [
        f"read '{tmp_path}/texts.tsv': 130 texts of 13 classes",
        "         all",
        "  train  104",
        "  val     13",
        "  test    13",
    ]


def test_other_ranks_are_silent(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found = data(tmp_path)
    found.trainer = SimpleNamespace(is_global_zero=False)  # type: ignore[assignment]
    found.setup("fit")
    assert capsys.readouterr().err == ""


# What is refused.


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"block_size": 0}, "block_size 0 cannot be"),
        ({"batch_size": 0}, "batch_size 0 cannot be"),
        ({"val_fraction": -0.1}, "val_fraction -0.1 and test_fraction 0.1 cannot be"),
        ({"test_source": "none.tsv"}, r"--data\.test_source must be a file or a Hugging Face data set .*'none\.tsv'"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        data(tmp_path, **settings)


def test_nothing_held_out(tmp_path: Path) -> None:
    found = data(tmp_path, val_fraction=0.0, test_fraction=0.0)
    assert found.val_dataloader() == []
    with pytest.raises(
        ValueError, match=r"no text is held out for 'test'; set --data\.test_fraction, and train with it"
    ):
        found.test_dataloader()
    with pytest.raises(ValueError, match=r"no text is held out for 'val'; set --data\.val_fraction"):
        found.predict_dataloader()


def test_a_source_too_small_to_hold_out_anything(tmp_path: Path) -> None:
    (tmp_path / "texts.tsv").write_text("a\tone\nb\ttwo\n")
    with pytest.raises(ValueError, match=r"texts\.tsv' is too small to hold out a text for 'val'; give more"):
        data(tmp_path).val_dataloader()


@pytest.mark.parametrize("name", ["test_source", "predict_source"])
def test_an_unknown_label_at_test_time(tmp_path: Path, name: str) -> None:
    """D9: the known ones are listed."""
    (tmp_path / "new.tsv").write_text("a\tone\nz\ttwo\n")
    found = data(tmp_path, test_fraction=0.0, **{name: str(tmp_path / "new.tsv")})
    with pytest.raises(ValueError, match=r"new\.tsv' line 2 has the label 'z', which is none of a, b, c; correct it"):
        found.setup("test")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("ham\tone\nspam\ttwo\neggs\tthree\n", "line 3 has the label 'eggs', which is none of ham, spam"),
        (
            "one\tham\ntwo\tspam\n",
            "line 1 has the label 'one', which is none of ham, spam; texts and labels seem to be swa",
        ),
        ("ham\tone\nham\ttwo\n", "has the label 'spam'; a classifier needs texts of each class"),
        ("id\tsms\n1\tone\n", "line 1 has the label 'id', which is none of ham, spam"),
    ],
)
def test_a_bad_file(tmp_path: Path, content: str, told: str) -> None:
    """D9: wherever the classes are known."""
    (tmp_path / "texts.tsv").write_text(content)
    with pytest.raises(ValueError, match=told):
        data(tmp_path, classes=["ham", "spam"]).setup("fit")


def test_a_bad_file_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """D9: one sentence and exit code 2; the class is named in short."""
    (tmp_path / "texts.tsv").write_text("ham\tone\nspam\ttwo\neggs\tthree\n")
    config = tiny_config(tmp_path)
    settings = {"source": str(tmp_path / "texts.tsv"), "classes": ["ham", "spam"], "tokenizer": {"class_path": "Bytes"}}
    config["data"] = {"class_path": "TextClassification", "init_args": settings}
    config["model"]["class_path"] = "lit_llm.modules.Classification"
    said = refusal(call(capsys, "fit", "--config", write_yaml(tmp_path / "run.yaml", config)))
    assert "line 3 has the label 'eggs', which is none of ham, spam" in said


# Going on.


def fit(folder: Path, max_steps: int, ckpt_path: str | None = None) -> list[list]:
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options |= {"enable_checkpointing": False, "limit_val_batches": 0}
    trainer = Trainer(max_steps=max_steps, max_epochs=-1, callbacks=SaveAtTheEnd(), **options)
    recorder = Recorder("rows")
    trainer.fit(recorder, data(folder, batch_size=17), ckpt_path=ckpt_path, weights_only=True)
    return recorder.fed


@pytest.mark.parametrize("stop", [3, 4, 6])
def test_a_run_goes_on_exactly(tmp_path: Path, stop: int) -> None:
    """K17: through Lightning's checkpoint, in the middle of an epoch of four steps, at its border and in the second."""
    whole, before = fit(tmp_path, 10), fit(tmp_path, stop)
    assert before + fit(tmp_path, 10, "last.ckpt") == whole
    assert len({tuple(rows) for rows in whole}) == 10
