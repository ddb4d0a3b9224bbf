"""Groups against a baseline on the same test items."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lit_llm.evaluation.groups import Group
from lit_llm.evaluation.intervals import Difference, holm, mcnemar, paired_bootstrap, twice_the_median
from lit_llm.evaluation.runs import find_runs

CLASSES, LOSSES = ("id", "target", "prediction"), ("id", "loss", "tokens")


@dataclass(frozen=True)
class Items:
    """What a model made of the test items.

    Args:
        kind: `accuracy` or `loss`.
        keys: What an item is: its id, and its target or its tokens.
        sums: (items,) whether it is right, or its loss in nats.
        weights: (items,) 1, or its tokens.
    """

    kind: str
    keys: tuple[tuple[str, str], ...]
    sums: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """A group against the baseline.

    Args:
        group: Name of the group.
        kind: What differs: `accuracy` or `loss`.
        test: The test that p is of.
        difference: Group minus baseline, with its interval.
        p: p of this comparison alone.
        holm: p such that all comparisons together keep the error rate.
    """

    group: str
    kind: str
    test: str
    difference: Difference
    p: float
    holm: float


def read_items(path: Path) -> Items:
    """A file of test items: `id,target,prediction,…` of classes or `id,loss,tokens` of losses, in the order of ids.

    Args:
        path: The file.

    Raises:
        ValueError: If it cannot be read, or has other columns, an id twice, no item, or a number that is none or not
            finite.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            names, rows = set(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"'{path}' cannot be read: {error}") from error
    kind = "accuracy" if names.issuperset(CLASSES) else "loss" if names.issuperset(LOSSES) else None
    if kind is None:
        raise ValueError(f"'{path}' has neither the columns {','.join(CLASSES)} nor {','.join(LOSSES)}")
    rows.sort(key=lambda row: str(row["id"]))
    label = "target" if kind == "accuracy" else "tokens"
    keys = tuple((str(row["id"]), str(row[label])) for row in rows)
    if not rows or len({identity for identity, _ in keys}) < len(keys):
        raise ValueError(f"'{path}' has {'an id twice' if rows else 'no item'}")
    if kind == "accuracy":
        sums = np.array([row["prediction"] == row["target"] for row in rows], dtype=float)
        return Items(kind, keys, sums, np.ones(len(rows)))
    try:
        sums = np.array([float(row["loss"]) for row in rows])
        weights = np.array([float(row["tokens"]) for row in rows])
    except (TypeError, ValueError) as error:
        raise ValueError(f"'{path}' has a loss or a count of tokens that is no number") from error
    if not (np.isfinite(sums).all() and np.isfinite(weights).all()):  # no test says anything of them
        raise ValueError(f"'{path}' has a loss or a count of tokens that is infinite or NaN")
    if not weights.sum() > 0:
        raise ValueError(f"'{path}' counts no token")
    return Items(kind, keys, sums, weights)


def compare(groups: Sequence[Group], baseline: str) -> tuple[list[Comparison], list[str]]:
    """All groups against one baseline, and why some could not be compared.

    Args:
        groups: Those of the table.
        baseline: The name of one of them, a run folder, or the NAME of files `test_items.NAME.csv` beside the runs.

    Raises:
        ValueError: If nothing is called that, or the baseline has no test items.
    """
    notes: list[str] = []
    name, files = _find(groups, baseline)
    theirs = _read(files, notes)
    if not theirs:
        why = f" ({notes[0]})" if notes else "; lit-llm fit --test_best true writes them"
        raise ValueError(f"the baseline '{baseline}' has no test items to compare with{why}")
    made: list[tuple[str, str, str, Difference, float]] = []
    for each in groups:
        if each.name == name:
            continue
        ours = _read([run.folder / "test_items.csv" for run in each.runs], notes)
        if not ours:
            notes.append(f"{each.name}: no run has test items, so it is not compared with {baseline}")
        elif any(items.keys != theirs[0].keys or items.kind != theirs[0].kind for items in [*ours, *theirs]):
            why = f"its test items are not those of {baseline} (other ids or targets), so the two cannot be compared"
            notes.append(f"{each.name}: {why}")
        else:
            made.append((each.name, *_test(ours, theirs)))
    adjusted = holm([row[-1] for row in made])
    return [Comparison(*row, total) for row, total in zip(made, adjusted, strict=True)], notes


def _find(groups: Sequence[Group], baseline: str) -> tuple[str | None, list[Path]]:
    """Which group is meant, if it is one, and the files of the baseline."""
    for each in groups:
        if each.name == baseline:
            return each.name, [run.folder / "test_items.csv" for run in each.runs]
    if Path(baseline).is_dir():
        folders = find_runs([baseline])
        known = {folder.resolve() for folder in folders}
        inside = [each for each in groups if any(run.folder.resolve() in known for run in each.runs)]
        return inside[0].name if len(inside) == 1 else None, [folder / "test_items.csv" for folder in folders]
    folders = [run.folder for each in groups for run in each.runs]
    found = [path for folder in folders if (path := folder / f"test_items.{baseline}.csv").is_file()]
    if found:
        return None, found[:1]  # a baseline makes the same of the same items beside every run
    others = {path.name.split(".")[1] for folder in folders for path in folder.glob("test_items.*.csv")}
    names = ", ".join([*(each.name for each in groups), *sorted(others)])
    raise ValueError(f"--baseline {baseline} is no group, run folder or file of test items; there are {names}")


def _read(files: Sequence[Path], notes: list[str]) -> list[Items]:
    found = []
    for path in files:
        if not path.is_file():
            notes.append(f"{path.parent}: there is no {path.name}")
            continue
        try:
            found.append(read_items(path))
        except ValueError as error:
            notes.append(str(error))
    return found


def _test(ours: Sequence[Items], theirs: Sequence[Items]) -> tuple[str, str, Difference, float]:
    """Each run of the group against each of the baseline, for they share the items and nothing else."""
    first, second = (np.stack([items.sums for items in side]) for side in (ours, theirs))  # (runs, items)
    difference = paired_bootstrap(first, second, ours[0].weights)
    if ours[0].kind == "loss":
        return "loss", "paired bootstrap", difference, difference.p
    single = [mcnemar(int((one > two).sum()), int((two > one).sum())) for one in first for two in second]
    test = "exact McNemar" if len(single) == 1 else f"exact McNemar, 2 × median of {len(single)}"
    return "accuracy", test, difference, twice_the_median(single)
