"""Runs as comparisons read them: whose scores count, what is whole, what is said twice."""

from pathlib import Path

import pytest

from lit_llm.evaluation.events import Events, Point
from lit_llm.evaluation.groups import Group, sort_groups, without_repetitions
from lit_llm.evaluation.paired import read_items
from lit_llm.evaluation.runs import Run


def run(name: str, scalars: dict[str, list[tuple[int, float]]], began: float = 0.0, **config: object) -> Run:
    """A run that has logged that."""
    curves = {tag: [Point(step, value, 0.0) for step, value in points] for tag, points in scalars.items()}
    return Run(Path(name), config, Events(curves, {}, (began, began + 1)))


@pytest.mark.parametrize("score", ["val/balanced_accuracy", "val/f1", "val/auroc", "val/token_accuracy"])
def test_the_greatest_score_comes_first(score: str) -> None:
    """Sorting by a score of which more is better puts the best row first."""
    groups = [Group(name, [run(name, {score: [(0, value)]})]) for name, value in {"bad": 0.1, "good": 0.9}.items()]
    assert [each.name for each in sort_groups(groups, score, [score])] == ["good", "bad"]


def test_a_test_is_of_its_own_run() -> None:
    """A run that went on and was not tested has no test score; its curves begin with the run before."""
    before = run("a", {"val/loss": [(0, 2.0)], "test/loss": [(1, 3.0)]})
    after = run("b", {"val/loss": [(5, 1.0)]})
    after.before = before
    assert (after.metric("test/loss"), after.metric("val/loss")) == (None, 1.0)


def test_a_run_that_stopped_before_its_last_epoch_is_unfinished() -> None:
    """A run whose length is told in epochs is whole with the validation that ends the last of them."""
    whole = {"train/loss": [(9, 1.0), (19, 1.0)], "val/loss": [(12, 1.0), (25, 1.0)], "epoch": [(9, 0.0), (25, 1.0)]}
    torn = {"train/loss": [(9, 1.0), (19, 1.0)], "val/loss": [(12, 1.0)], "epoch": [(9, 0.0), (19, 1.0)]}
    early = {"train/loss": [(9, 1.0)], "val/loss": [(12, 1.0)], "epoch": [(9, 0.0), (12, 0.0)]}
    length = {"trainer.max_steps": -1, "trainer.max_epochs": 2}
    assert [run("a", scalars, **length).is_finished for scalars in (whole, torn, early)] == [True, False, False]


def test_a_repeated_seed_counts_once() -> None:
    """Two runs of equal settings and an equal seed are one draw: the newer one counts, and a note names the other."""
    runs = [
        run(name, {"val/loss": [(0, 1.0)]}, float(name), seed_everything=seed)
        for name, seed in {"0": 1, "1": 2, "2": 1}.items()
    ]
    kept, notes = without_repetitions(runs)
    assert [str(each.folder) for each in kept] == ["1", "2"]
    assert [note.partition(" (")[0] for note in notes] == ["0: it repeats 2"]


@pytest.mark.parametrize("loss", ["nan", "inf"])
def test_losses_that_are_not_finite_are_no_items(tmp_path: Path, loss: str) -> None:
    """A NaN would come out of the bootstrap as its smallest p."""
    (tmp_path / "items.csv").write_text(f"id,loss,tokens\n0,{loss},3\n1,2.0,3\n", encoding="utf-8")
    with pytest.raises(ValueError, match="infinite or NaN"):
        read_items(tmp_path / "items.csv")
