"""lit-llm classify: a line for each text, from a checkpoint alone; and what it refuses."""

import io
import sys
from pathlib import Path

import pytest
import torch
from cli_runs import call, refusal, run_folders, write_tiny
from text_runs import BLOCK, TinyTexts, pad, write_classification

from lit_llm.__main__ import main
from lit_llm.data.tokenizer import Characters
from lit_llm.inference.classify import Classifier
from lit_llm.modules import Classification

STEPS = ("--trainer.max_steps=2", "--trainer.val_check_interval=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert main(["fit", "-c", str(write_classification(folder)), *STEPS, "--model.optimizer.lr=0.05"]) == 0
    return run_folders(folder)[0]


def feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))


def test_a_line_for_each_text(run, capsys) -> None:
    """Label, tab, probability: what the module itself says of the same ids."""
    texts = TinyTexts().texts("test")[1]
    result = call(capsys, "classify", "--checkpoint", run, "--batch_size=3", *texts)
    assert result.code == 0, result.err
    module = Classification.load_from_checkpoint(run / "checkpoints" / "best.ckpt").eval()
    expected = []
    for text in texts:
        with torch.no_grad():
            p = module(pad([list(text.encode()[:BLOCK])], [0])).softmax(-1)[0]
        answer = int(p[1] >= module.threshold)
        expected.append(f"{['ham', 'spam'][answer]}\t{p[answer]:.4f}")
    assert result.out.splitlines() == expected
    cut = sum(len(text) > BLOCK for text in texts)
    assert 0 < cut < len(texts)
    assert f"{cut} of {len(texts)} texts are longer than {BLOCK} tokens and were cut" in result.err


def test_lines_of_stdin(run, capsys, monkeypatch) -> None:
    """Answers stand where their texts stand, also that of an empty line; a folder of runs will do; nothing is cut."""
    feed(monkeypatch, b"win now\r\n\nsee you\n  win now  ")
    result = call(capsys, "classify", "--checkpoint", run.parent, "--batch_size=2")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert len(lines) == 4
    assert lines[0] == lines[3]  # white space around a text does not count
    assert [line.split("\t")[0] in ("ham", "spam") for line in lines] == [True] * 4
    single = call(capsys, "classify", "--checkpoint", run, "see you").out
    assert lines[2] == single.strip()


def test_neighbours_change_nothing(run) -> None:
    classifier = Classifier.from_checkpoint(run)
    texts = ["win now", "see you at home", "a", "x" * 30, "", "call us", "thanks mum", "ö"]
    together = classifier.classify(texts)[0]
    for text, (label, probability) in zip(texts, together, strict=True):
        ((alone, p),), _ = classifier.classify([text])
        assert (alone, p) == (label, pytest.approx(probability, abs=1e-5))


def test_refusals(run, tmp_path, capsys, monkeypatch) -> None:
    """One sentence each: another task by the name of its class, nothing there, no text, no UTF-8."""
    assert call(capsys, "fit", "-c", write_tiny(tmp_path), *STEPS).code == 0
    (other,) = run_folders(tmp_path)
    said = refusal(call(capsys, "classify", "--checkpoint", other, "a text"))
    assert "is a checkpoint of LanguageModeling, and only one of Classification tells classes" in said
    assert "there is no checkpoint, run folder or folder of a model" in refusal(
        call(capsys, "classify", "--checkpoint", tmp_path / "x", "a")
    )
    assert "--batch_size 0 cannot be" in refusal(call(capsys, "classify", "--checkpoint", run, "--batch_size=0", "a"))
    feed(monkeypatch, b"caf\xe9\n")
    assert "no text in UTF-8" in refusal(call(capsys, "classify", "--checkpoint", run))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert "there is no text" in refusal(call(capsys, "classify", "--checkpoint", run))


def test_the_text_that_cannot_be_read_is_named(run, capsys, monkeypatch) -> None:
    """By its line, in whichever batch it comes; the answers before it are written."""
    fitted = Characters()
    fitted.fit(["abc"])
    module = Classifier.from_checkpoint(run).module
    monkeypatch.setattr(Classifier, "from_checkpoint", lambda path: Classifier(module, fitted, BLOCK))
    feed(monkeypatch, b"a\nb\nc\naz\n")
    result = call(capsys, "classify", "--checkpoint", run, "--batch_size=3")
    assert len(result.out.splitlines()) == 3
    assert refusal(result).startswith("text 4: the character 'z' is not among the 3 of the corpus")
