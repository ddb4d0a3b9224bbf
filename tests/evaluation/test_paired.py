"""Paired tests on hand-written test items."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lit_llm.evaluation.events import Events, Point
from lit_llm.evaluation.groups import Group
from lit_llm.evaluation.paired import compare, read_items
from lit_llm.evaluation.runs import Run


def write_classes(path: Path, right: Sequence[bool], targets: str = "s") -> None:
    rows = [f"{number},{targets},{targets if is_right else 'x'},0.5" for number, is_right in enumerate(right)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["id,target,prediction,p_s", *rows]) + "\n", encoding="utf-8")


def write_losses(path: Path, losses: Sequence[float], tokens: int = 3) -> None:
    rows = [f"{number},{loss},{tokens}" for number, loss in enumerate(losses)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["id,loss,tokens", *rows]) + "\n", encoding="utf-8")


def group(folder: Path, name: str, runs: int = 1) -> Group:
    events = Events({"train/loss": [Point(0, 1.0, 0.0)]})
    return Group(name, [Run(folder / name / f"version_{number}", {}, events) for number in range(runs)])


def items(made: Group, number: int = 0, name: str = "test_items.csv") -> Path:
    return made.runs[number].folder / name


def test_mcnemar_of_two_runs(tmp_path: Path) -> None:
    """5 items that only the one has right and 15 that only the other has: p = 0.0414, whatever the other 30 are."""
    ours, theirs = group(tmp_path, "ours"), group(tmp_path, "theirs")
    write_classes(items(ours), [True] * 15 + [False] * 5 + [True] * 30)
    write_classes(items(theirs), [False] * 15 + [True] * 5 + [True] * 30)
    (made,), notes = compare([ours, theirs], "theirs")
    assert (made.group, made.kind, made.test, notes) == ("ours", "accuracy", "exact McNemar", [])
    assert made.difference.mean == pytest.approx(10 / 50)
    assert made.p == made.holm == pytest.approx(0.0414, abs=5e-5)
    assert made.difference.low < 0.2 < made.difference.high


def test_several_seeds_give_one_p(tmp_path: Path) -> None:
    """Twice the median over all pairs of runs; the difference is that of the means."""
    ours, theirs = group(tmp_path, "ours", 3), group(tmp_path, "theirs")
    write_classes(items(theirs), [False] * 15 + [True] * 35)
    for number, wins in enumerate((0, 15, 8)):  # p: 1, 6.1e-5, 0.0078
        write_classes(items(ours, number), [True] * wins + [False] * (15 - wins) + [True] * 35)
    (made,), _ = compare([ours, theirs], "theirs")
    assert made.test == "exact McNemar, 2 × median of 3"
    assert made.p == pytest.approx(2 * 2 / 2**8)
    assert made.difference.mean == pytest.approx(23 / 3 / 50)


def test_losses_and_holm(tmp_path: Path) -> None:
    """The loss of a token; of several groups, the adjusted p are no less than their own."""
    groups = [group(tmp_path, name) for name in ("base", "better", "same")]
    for each, shift in zip(groups, (0.0, -0.5, 0.0), strict=True):
        write_losses(items(each), [5 + number % 7 + shift for number in range(40)])
    made = {each.group: each for each in compare(groups, "base")[0]}
    assert made["better"].difference.mean == pytest.approx(-0.5 / 3)
    assert made["better"].test == "paired bootstrap"
    assert made["better"].holm == pytest.approx(2 * made["better"].p)
    assert (made["same"].p, made["same"].holm) == (1, 1)


def test_a_baseline_beside_the_runs(tmp_path: Path) -> None:
    """By the name of its file; every group is compared with it."""
    one, two = group(tmp_path, "one", 2), group(tmp_path, "two")
    for path in (items(one), items(one, 1), items(two)):
        write_classes(path, [True] * 9 + [False])
    write_classes(items(one, 1, "test_items.tfidf.csv"), [True] * 5 + [False] * 5)
    made, notes = compare([one, two], "tfidf")
    assert [each.group for each in made] == ["one", "two"]
    assert [each.difference.mean for each in made] == pytest.approx([0.4, 0.4])
    assert notes == []


def test_a_run_folder_as_baseline(tmp_path: Path) -> None:
    one, two = group(tmp_path, "one"), group(tmp_path, "two")
    for each in (one, two):
        write_classes(items(each), [True, False, True])
        (items(each).parent / "config.yaml").write_text("{}")
    assert [each.group for each in compare([one, two], str(items(two).parent))[0]] == ["one"]


def test_the_order_of_items_is_of_no_account(tmp_path: Path) -> None:
    one, two = group(tmp_path, "one"), group(tmp_path, "two")
    write_classes(items(one), [True, False, False])
    lines = items(one).read_text().splitlines()
    items(two).parent.mkdir(parents=True)
    items(two).write_text("\n".join([lines[0], *reversed(lines[1:])]))
    (made,), _ = compare([one, two], "two")
    assert (made.p, made.difference.low, made.difference.high) == (1, 0, 0)


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    """Other targets, other ids, other kinds, no items: a sentence each, and the rest is compared."""
    names = ("base", "good", "targets", "fewer", "losses", "none")
    groups = {name: group(tmp_path, name) for name in names}
    for name in ("base", "good"):
        write_classes(items(groups[name]), [True, False, True])
    write_classes(items(groups["targets"]), [True, False, True], targets="t")
    write_classes(items(groups["fewer"]), [True, False])
    write_losses(items(groups["losses"]), [1, 2, 3])
    made, notes = compare(list(groups.values()), "base")
    assert [each.group for each in made] == ["good"]
    for name in ("targets", "fewer", "losses"):
        assert (
            f"{name}: its test items are not those of base (other ids or targets), so the two cannot be compared"
            in notes
        )
    assert "none: no run has test items, so it is not compared with base" in notes


def test_a_baseline_that_is_none(tmp_path: Path) -> None:
    one = group(tmp_path, "one")
    write_classes(items(one, 0, "test_items.tfidf.csv"), [True])
    with pytest.raises(ValueError, match=r"--baseline tfdif is no group, run folder or file .*; there are one, tfidf"):
        compare([one], "tfdif")
    with pytest.raises(ValueError, match="the baseline 'one' has no test items to compare with"):
        compare([one], "one")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("id,text\n1,a\n", "neither the columns id,target,prediction nor id,loss,tokens"),
        ("", "neither the columns"),
        ("id,loss,tokens\n", "no item"),
        ("id,loss,tokens\n1,2,3\n1,2,3\n", "an id twice"),
        ("id,loss,tokens\n1,two,3\n", "no number"),
        ("id,loss,tokens\n1,2\n", "no number"),
        ("id,loss,tokens\n1,2,0\n", "counts no token"),
    ],
)
def test_files_that_are_none(content, told, tmp_path: Path) -> None:
    path = tmp_path / "test_items.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=told):
        read_items(path)
