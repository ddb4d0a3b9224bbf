"""What a comparison says, as tables for people and as csv or json for programs."""

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lit_llm.evaluation.groups import FIGURES, Group, differences, short_value
from lit_llm.evaluation.intervals import Summary
from lit_llm.evaluation.paired import Comparison

NONE = "–"
LONGEST = 60  # characters of a setting in a table


@dataclass
class Report:
    """Groups side by side.

    Args:
        groups: In the order of the rows.
        metrics: Tags of the columns.
        baseline: What the groups are compared with, or None.
        comparisons: Against the baseline.
        with_settings: Whether the settings that differ are shown.
    """

    groups: Sequence[Group]
    metrics: Sequence[str]
    baseline: str | None
    comparisons: Sequence[Comparison]
    with_settings: bool = True

    @property
    def columns(self) -> list[str]:
        """Metrics and figures that some run has."""
        return [name for name in (*self.metrics, *FIGURES) if any(each.values(name) for each in self.groups)]


@dataclass
class Table:
    """Rows of words under a title; all columns but the first `left` are numbers."""

    title: str
    header: list[str]
    rows: list[list[str]]
    left: int = 1


def tables(report: Report) -> list[Table]:
    """The groups, what differs between them, and the comparison with the baseline."""
    columns = report.columns
    rows = [
        [each.name, str(len(each.runs)), *(_cell(name, each.summary(name)) for name in columns)]
        for each in report.groups
    ]
    made = [Table("mean ± 95 % interval", ["name", "runs", *columns], rows)]
    if report.with_settings and (different := differences(report.groups)):
        header = ["setting", *(each.name for each in report.groups)]
        rows = [[name, *_settings(values)] for name, values in different.items()]
        made.append(Table("settings that differ", header, rows, left=len(header)))
    if report.comparisons:
        made.append(_comparison_table(report))
    return made


def _comparison_table(report: Report) -> Table:
    number = len(report.comparisons)
    tests = "1 test" if number == 1 else f"{number} tests; p (Holm) holds for all of them together"
    rows = []
    for each in report.comparisons:
        ends = f"{each.difference.low:+.4f} to {each.difference.high:+.4f}"
        difference = f"{each.difference.mean:+.4f}"
        rows.append([each.group, each.kind, each.test, difference, ends, _p(each.p), _p(each.holm)])
    header = ["name", "of", "test", "difference", "95 % interval", "p", "p (Holm)"]
    return Table(f"against {report.baseline}, item by item: {tests}", header, rows, left=3)


def _cell(name: str, made: Summary | None) -> str:
    if made is None:
        return NONE
    if name in FIGURES:
        digits = 0 if name != "minutes" else 1 if made.mean >= 10 else 2
        return f"{made.mean:,.{digits}f}"
    size = abs(made.mean)
    digits = 0 if size >= 1000 else 1 if size >= 100 else 3 if size >= 0.1 or size == 0 else 5
    half = NONE if made.half is None else f"{made.half:,.{digits}f}"
    return f"{made.mean:,.{digits}f} ± {half}"


def _settings(values: Sequence[Any]) -> list[str]:
    """Values of one setting, short where the short forms still differ."""
    words = [NONE if value is None else str(value) for value in values]
    short = list(map(short_value, values))
    shown = short if len(set(short)) == len(set(words)) else words
    return [text if len(text) <= LONGEST else f"{text[:LONGEST]} …" for text in shown]


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def show(report: Report, form: str) -> None:
    """Print a report.

    Args:
        report: What to print.
        form: `table`, `md`, `csv` or `json`.
    """
    if form == "json":
        print(json.dumps(_plain(report), indent=2, ensure_ascii=False))
    elif form == "csv":
        print(_csv(report), end="")
    elif form == "md":
        print("\n\n".join(_markdown(table) for table in tables(report)))
    else:
        _terminal(tables(report))


def _terminal(made: Sequence[Table]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    # What is no terminal has no width to keep to.
    console = Console(width=None if sys.stdout.isatty() else 10_000, highlight=False)
    for table in made:
        drawn = Drawn(title=Text(table.title), box=box.SIMPLE, title_justify="left")
        for number, name in enumerate(table.header):
            drawn.add_column(Text(name), justify="left" if number < table.left else "right", overflow="fold")
        for row in table.rows:
            drawn.add_row(*map(Text, row))  # plain: a bracket in a name is no markup
        console.print(drawn)


def _markdown(table: Table) -> str:
    rules = ["---" if number < table.left else "---:" for number in range(len(table.header))]
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (table.header, *table.rows)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"{table.title}:", "", lines[0], f"|{'|'.join(rules)}|", *lines[1:]])


def _csv(report: Report) -> str:
    against = {each.group: each for each in report.comparisons}
    different = differences(report.groups)
    metrics = [name for name in report.columns if name not in FIGURES]
    header = ["name", "runs", *(f"{name}{what}" for name in metrics for what in ("", " deviation", " interval"))]
    header += [name for name in report.columns if name in FIGURES]
    header += [*different, *(("difference", "low", "high", "test", "p", "p_holm") if against else ())]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for number, each in enumerate(report.groups):
        row: list[Any] = [each.name, len(each.runs)]
        for name in metrics:
            made = each.summary(name)
            row += [made.mean, made.deviation, made.half] if made else [None] * 3
        row += [made.mean if (made := each.summary(name)) else None for name in report.columns if name in FIGURES]
        row += [values[number] for values in different.values()]
        if found := against.get(each.name):
            row += [found.difference.mean, found.difference.low, found.difference.high, found.test, found.p, found.holm]
        writer.writerow(row + [None] * (len(header) - len(row)))
    return out.getvalue()


def _plain(report: Report) -> dict[str, Any]:
    groups = []
    for each in report.groups:
        runs = [
            {"folder": str(run.folder), "seed": run.seed, "steps": run.steps, "minutes": run.minutes}
            | {"tokens": run.metric("tokens"), "parameters": run.parameters}
            | {name: run.metric(name) for name in report.metrics}
            for run in each.runs
        ]
        made = {name: each.summary(name) for name in report.columns}
        numbers = {name: asdict(one) for name, one in made.items() if one}
        groups.append({"name": each.name, "runs": runs, "numbers": numbers})
    different = {
        name: dict(zip((each.name for each in report.groups), values, strict=True))
        for name, values in differences(report.groups).items()
    }
    comparisons = [asdict(each) for each in report.comparisons]
    return {"groups": groups, "settings": different, "baseline": report.baseline, "comparisons": comparisons}
