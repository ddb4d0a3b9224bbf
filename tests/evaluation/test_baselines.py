"""What simple means achieve: majority and TF-IDF, what a run says of them, and what it leaves out."""

import builtins
import csv
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from python_runs import trainer
from text_runs import TinyTexts, tiny_classification

from lit_llm.evaluation.baselines import ClassifierBaselines, Majority, Tfidf

TEXTS = ["win a prize", "win it now", "see you at home", "at home now", "home at six"]
TARGETS = torch.tensor([1, 1, 0, 0, 0])


def test_majority_by_hand() -> None:
    """The share of each class, whatever the text; also of a class without a text."""
    p = Majority(TEXTS, TARGETS, 3).probabilities(["x", "y"])
    assert p.tolist() == [pytest.approx([0.6, 0.4, 0])] * 2


def test_tfidf_reads_words() -> None:
    """Unknown words leave the shares of the classes, more or less; words decide; a third class gets nothing."""
    pytest.importorskip("sklearn")
    p = Tfidf(TEXTS, TARGETS, 3).probabilities(["you win a prize", "home", ""])
    assert p.shape == (3, 3)
    torch.testing.assert_close(p.sum(dim=1), torch.ones(3))
    assert (p[0, 1] > 0.6, p[1, 0] > 0.6, p[:, 2].any()) == (True, True, False)


@pytest.mark.parametrize(
    ("texts", "targets", "words"),
    [
        (TEXTS, torch.zeros(5), "the training texts are of one class"),
        (["?", "!"], torch.tensor([0, 1]), "hold no word"),
    ],
)
def test_what_cannot_be_fitted(texts, targets, words) -> None:
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match=words):
        Tfidf(texts, targets, 2)


def fitted(folder: Path, **data: object) -> tuple:
    """A run of an epoch and its test, with the baselines."""
    run = trainer(callbacks=[ClassifierBaselines()], logger=CSVLogger(folder), max_steps=5)
    module, texts = tiny_classification(), TinyTexts(**data)
    run.fit(module, texts)
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    return logged, run.test(module, texts, verbose=False)[0]


def test_a_run_says_what_counting_achieves(tmp_path, capsys) -> None:
    """Beside the model's scores in validation and test, in a table at the end, and text by text."""
    pytest.importorskip("sklearn")
    logged, values = fitted(tmp_path)
    _, _, targets = TinyTexts().texts("val")
    assert logged["baseline/majority/accuracy"] == pytest.approx(targets.count(0) / len(targets))
    assert (logged["baseline/majority/balanced_accuracy"], logged["baseline/majority/f1"]) == (0.5, 0)
    assert logged["baseline/tfidf/balanced_accuracy"] > 0.9  # words say it all
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    wanted = [["the", "model"], ["most", "frequent", "class"], ["TF-IDF"]]
    for words, name in zip(wanted, ("val", "baseline/majority", "baseline/tfidf"), strict=True):
        shown = [f"{logged[f'{name}/{score}']:.3f}" for score in ("balanced_accuracy", "f1")]
        assert [*words, *shown] in rows
    for name in ("majority", "tfidf"):
        (path,) = tmp_path.rglob(f"test_items.{name}.csv")
        with path.open(newline="") as file:
            items = list(csv.DictReader(file))
        assert [int(item["id"]) for item in items] == TinyTexts().texts("test")[0]
        right = sum(item["target"] == item["prediction"] for item in items) / len(items)
        assert values[f"test/baseline/{name}/accuracy"] == pytest.approx(right)
        assert list(items[0]) == ["id", "target", "prediction", "p_ham", "p_spam"]


def test_a_missing_library_costs_one_line(tmp_path, monkeypatch, capsys) -> None:
    real = builtins.__import__

    def missing(name: str, *args: object, **kwargs: object) -> object:
        if name.partition(".")[0] == "sklearn":
            raise ImportError(name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", missing)
    logged, _ = fitted(tmp_path)
    said = "the baseline TF-IDF is left out: it needs scikit-learn (pip install 'lit-llm[classify]')"
    result = capsys.readouterr()
    assert result.err.count(said) == 1
    assert "baseline/majority/f1" in logged
    assert ["TF-IDF", "-", "-"] in [line.split() for line in result.out.splitlines()]
