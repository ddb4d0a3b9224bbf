"""Runs that differ by their seed only, as one group; what groups are called, and which settings differ between them."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_llm.evaluation.intervals import Summary, summary
from lit_llm.evaluation.runs import Run

FIGURES = ("steps", "tokens", "minutes", "parameters")  # columns of every table, after the metrics
# Unless others are asked for.
SHOWN = ("test/accuracy", "test/balanced_accuracy", "test/f1", "test/loss", "val/accuracy", "val/loss")
# Ends of the names of scores of which more is better.
RISING = ("accuracy", "f1", "auroc", "average_precision", "reward_margin", "rouge_l", "exact_match", "per_second")
LONGEST = 60  # characters of a name that is made of settings


@dataclass
class Group:
    """Runs of the same settings.

    Args:
        name: What it is called in tables.
        runs: Its runs, by their seeds.
    """

    name: str
    runs: list[Run]

    @property
    def settings(self) -> dict[str, Any]:
        """What all its runs have in common."""
        return self.runs[0].settings

    def values(self, name: str) -> list[float]:
        """One number of each run that has it: a metric by its tag, or one of `FIGURES`."""
        known = name in ("steps", "minutes", "parameters")
        found = [getattr(run, name) if known else run.metric(name) for run in self.runs]
        return [float(value) for value in found if value is not None]

    def summary(self, name: str) -> Summary | None:
        """That number over all runs; None if no run has it."""
        values = self.values(name)
        return summary(values) if values else None


def without_repetitions(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Of finished runs with equal settings and an equal seed the newest, and a note of each that is left out.

    They are one draw said twice: counted as two, they would make intervals narrower than they are.

    Args:
        runs: Those to compare.
    """
    newest: dict[tuple[str, str], Run] = {}
    countable = [run for run in runs if run.config and run.seed is not None and run.is_finished]
    for run in sorted(countable, key=lambda run: run.events.times[:1]):
        newest[_settings_key(run), str(run.seed)] = run
    others = {id(run): newest[_settings_key(run), str(run.seed)] for run in countable}
    repeated = [run for run in countable if others[id(run)] is not run]
    why = "(same settings and seed), and is left out"
    notes = [f"{run.folder}: it repeats {others[id(run)].folder} {why}" for run in repeated]
    return [run for run in runs if others.get(id(run), run) is run], notes


def _settings_key(run: Run) -> str:
    return json.dumps(run.settings, sort_keys=True, default=str) if run.config else str(run.folder)


def group(runs: Sequence[Run]) -> list[Group]:
    """Put runs together that differ by their seed only, and name the groups.

    Runs that have not taken all their steps are a group of their own, which says so: their numbers are of another
    moment. A group has the name of its runs' folder where no other group has it, without what all have in common; else,
    or beside it, the settings that differ.

    Args:
        runs: Those to compare.
    """
    alike: dict[tuple[str, bool], list[Run]] = defaultdict(list)
    for run in runs:
        alike[_settings_key(run), run.is_finished].append(run)
    groups = [Group("", sorted(members, key=lambda run: _seed_order(run.seed))) for members in alike.values()]
    folders = _without_common(["+".join(dict.fromkeys(run.name for run in each.runs)) for each in groups])
    same: dict[str, list[Group]] = defaultdict(list)
    for each, folder in zip(groups, folders, strict=True):
        same[folder].append(each)
    for folder, members in same.items():
        _name(members, folder, beside=len(same) > 1)
    return groups


def _seed_order(seed: Any) -> tuple[bool, Any]:
    return (False, seed) if isinstance(seed, int) else (True, 0)


def _without_common(names: list[str]) -> list[str]:
    """Paths without the folders that all of them begin with; the last part stays."""
    parts = [Path(name).parts for name in names]
    common = 0
    while all(len(path) > common + 1 for path in parts) and len({path[common] for path in parts}) == 1:
        common += 1
    return ["/".join(path[common:]) for path in parts]


def _name(groups: list[Group], folder: str, beside: bool) -> None:
    """Name the groups whose runs lie in folders of one name."""
    differing = differences(groups)
    short = dict(zip(differing, _shortest(list(differing)), strict=True))
    taken: dict[str, int] = {}
    for number, each in enumerate(groups):
        told = ", ".join(f"{short[name]}={short_value(values[number])}" for name, values in differing.items())
        base = folder if beside or not told else ""
        name = " ".join(filter(None, (base, told if len(told) <= LONGEST else "")))
        if not each.runs[0].is_finished:
            name = f"{name or folder} (unfinished)"
        name = name or folder
        taken[name] = taken.get(name, 0) + 1
        each.name = name if taken[name] == 1 else f"{name} #{taken[name]}"


def differences(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """The settings in which groups differ: of each its value in every group, None where it has none.

    Args:
        groups: Those to compare. A group without settings is left out of the comparison and has None.
    """
    known = [each.settings for each in groups if each.settings]
    names = dict.fromkeys(name for settings in known for name in settings)
    different = [name for name in names if any(settings.get(name) != known[0].get(name) for settings in known)]
    return {name: [each.settings.get(name) for each in groups] for name in different}


def _shortest(names: list[str]) -> list[str]:
    """The last words of dotted names, as many as tell them apart."""
    shortened = []
    for name in names:
        words = name.split(".")
        ends = [".".join(words[-number:]) for number in range(1, len(words) + 1)]
        tells = [end for end in ends if sum(f".{other}".endswith(f".{end}") for other in names) == 1]
        shortened.append(tells[0] if tells else name)
    return shortened


def short_value(value: Any) -> str:
    """A value in a name or table: a class without its package, a file without its folder."""
    if value is None:
        return "–"
    text = str(value)
    if "/" in text:
        return text.rstrip("/").rpartition("/")[2]
    return text.rpartition(".")[2] if isinstance(value, str) and text.replace(".", "").isidentifier() else text


def sort_groups(groups: list[Group], sort_by: str | None, metrics: Sequence[str]) -> list[Group]:
    """Groups in the order of a column, the best first where one end is the better one.

    Args:
        groups: Those of a table.
        sort_by: A column; None: the first metric, if there is one.
        metrics: The metrics of the table.

    Raises:
        ValueError: If there is no such column.
    """
    column = sort_by or (metrics[0] if metrics else "name")
    if column == "name":
        return sorted(groups, key=lambda each: each.name)
    if not any(each.values(column) for each in groups):
        columns = ", ".join(["name", *metrics, *FIGURES])
        raise ValueError(f"--sort_by {column} is no column that has a value; there are {columns}")
    sign = -1 if column.endswith(RISING) else 1
    found = {id(each): each.summary(column) for each in groups}
    return sorted(groups, key=lambda each: sign * made.mean if (made := found[id(each)]) else float("inf"))


def choose_metrics(groups: Sequence[Group], asked: str | None) -> list[str]:
    """The metrics of a table.

    Args:
        groups: Those to compare.
        asked: Tags with commas between them. None: those of `SHOWN` that were logged.

    Raises:
        ValueError: If one was logged by no run.
    """
    logged = sorted({tag for each in groups for run in each.runs for tag in run.events.scalars})
    if asked is None:
        return [tag for tag in SHOWN if tag in logged]
    metrics = [tag.strip() for tag in asked.split(",") if tag.strip()]
    for tag in metrics:
        if tag not in logged:
            from difflib import get_close_matches

            near = get_close_matches(tag, logged, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(logged)}"
            raise ValueError(f"no run has logged '{tag}' of --metrics; {hint}")
    return metrics
