"""The figure of a comparison."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_llm.evaluation.groups import Group

CURVE = "val/loss"
MOST_CURVES = 2  # groups whose curves are drawn as well; more would hide each other


def plot(groups: Sequence[Group], metric: str, path: Path) -> None:
    """Draw a metric of each group, a dot a run, with the mean and its 95 % interval; of few groups the curves as well.

    Args:
        groups: In the order of the rows.
        metric: The tag.
        path: The picture to write; its suffix says which format.

    Raises:
        ValueError: If matplotlib is missing, no run has the metric, or the file cannot be written.
    """
    try:
        import matplotlib.figure
    except ImportError as error:
        raise ValueError("--plot needs matplotlib; pip install 'lit-llm[plot]'") from error
    shown = [each for each in groups if each.values(metric)]
    if not shown:
        raise ValueError(f"no run has logged '{metric}', which --plot was to show")
    has_curves = len(shown) <= MOST_CURVES and any(run.curve(CURVE) for each in shown for run in each.runs)
    figure = matplotlib.figure.Figure(figsize=(11 if has_curves else 7, 1.4 + 0.45 * max(len(shown), 4)), dpi=150)
    axes = figure.subplots(1, 2 if has_curves else 1, squeeze=False)[0]
    _dots(axes[0], shown, metric)
    if has_curves:
        _curves(axes[1], shown)
    figure.tight_layout()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:  # of a suffix that is no format
        raise ValueError(f"cannot write the picture '{path}': {error}") from error


def _dots(axes: Any, groups: Sequence[Group], metric: str) -> None:
    for row, each in enumerate(groups):
        values, made = each.values(metric), each.summary(metric)
        assert made is not None  # groups without a value are not shown
        axes.errorbar(made.mean, row, xerr=made.half, fmt="D", color=f"C{row % 10}", capsize=4, markersize=6, zorder=3)
        if len(values) > 1:
            heights = itertools.cycle((-0.2, 0.2))  # beside the interval, which would hide them
            axes.scatter(values, [row + next(heights) for _ in values], s=14, color=f"C{row % 10}", alpha=0.6)
    axes.set_yticks(range(len(groups)), [each.name for each in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)  # the first row of the table on top
    axes.set_xlabel(metric)
    axes.set_title("each run, mean and 95 % interval", fontsize=10)
    axes.grid(axis="x", alpha=0.3)


def _curves(axes: Any, groups: Sequence[Group]) -> None:
    for row, each in enumerate(groups):
        for number, run in enumerate(each.runs):
            curve = run.curve(CURVE)
            label = each.name if number == 0 else None
            steps, values = [point.step + 1 for point in curve], [point.value for point in curve]
            axes.plot(steps, values, color=f"C{row % 10}", alpha=0.7, marker=".", label=label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("step")
    axes.set_ylabel(CURVE)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
