"""Pictures of a classification: drawn for any number of classes and any names, with what stands in them."""

import builtins

import pytest
import torch
from python_runs import trainer
from text_runs import TinyTexts, tiny_classification

from lit_llm.training.figures import ClassifierFigures, figures

pytest.importorskip("matplotlib")


def axes(count: int, names: list[str], threshold: float | None = None) -> dict:
    draw = torch.Generator().manual_seed(0)
    targets = torch.randint(len(names), (count,), generator=draw)
    p = torch.randn(count, len(names), generator=draw).softmax(-1)
    made = {}
    for name, figure in figures(p, targets, names, threshold):
        figure.canvas.draw()  # what cannot be drawn fails here
        made[name] = figure.axes[0]
    return {**made, "p": p, "targets": targets}


def test_two_classes() -> None:
    """Counts in the cells, by row the true class; the threshold on the curve; the diagonal."""
    made = axes(50, ["ham", "spam"], 0.4)
    cells = [int(text.get_text()) for text in made["confusion"].texts]
    answers = made["p"].argmax(-1)
    assert cells == [int(((made["targets"] == t) & (answers == a)).sum()) for t in (0, 1) for a in (0, 1)]
    assert made["confusion"].get_ylabel() == "true class"
    (point,) = (line for line in made["roc"].lines if line.get_label() == "threshold 0.400")
    above = made["p"][:, 1] >= 0.4
    expected = [float(above[made["targets"] == number].float().mean()) for number in (0, 1)]
    assert [float(point.get_xdata()[0]), float(point.get_ydata()[0])] == pytest.approx(expected)
    assert sum(int(text.get_text()) for text in made["reliability"].texts) == 50


@pytest.mark.parametrize("names", [["_a$b", "$x^$ {", "a" * 60], [f"class {n}" for n in range(30)]])
def test_any_names_and_numbers(names) -> None:
    """Signs of formulas, names that legends would hide, long ones, and more classes than cells can hold numbers."""
    made = axes(200, names)
    assert len(made["confusion"].texts) == (9 if len(names) == 3 else 0)
    assert (made["roc"].get_legend() is None) == (len(names) > 20)


def test_texts_of_one_class() -> None:
    (_, _), (_, figure), _ = figures(torch.full((3, 2), 0.5), torch.zeros(3, dtype=torch.long), ["a", "b"])
    assert figure.axes[0].get_title() == "no ROC: all texts are of one class"


def test_without_matplotlib(monkeypatch, capsys) -> None:
    """One line, and the run goes on."""
    real = builtins.__import__

    def missing(name: str, *args: object, **kwargs: object) -> object:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", missing)
    trainer(callbacks=[ClassifierFigures()], max_steps=1).fit(tiny_classification(), TinyTexts())
    assert "no figures: they need matplotlib (pip install 'lit-llm[classify]')" in capsys.readouterr().err
