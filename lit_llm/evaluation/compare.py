"""lit-llm compare."""

import sys
from pathlib import Path

from lit_llm.usage import Parser

FORMATS = ("table", "md", "csv", "json")


def run(args: list[str]) -> int:
    """Print runs side by side; the report alone goes to stdout, and what is missing is told on stderr."""
    config = parser().parse_args(args[1:])
    if config.format not in FORMATS:
        raise ValueError(f"--format {config.format} is not known; it is one of {', '.join(FORMATS)}")

    from lit_llm.evaluation.groups import choose_metrics, group, sort_groups, without_repetitions
    from lit_llm.evaluation.paired import compare
    from lit_llm.evaluation.report import Report, show
    from lit_llm.evaluation.runs import read_runs

    runs, notes = read_runs(config.paths)
    runs, repetitions = without_repetitions(runs)
    for note in [*notes, *repetitions]:
        print(note, file=sys.stderr)
    if not runs:
        raise ValueError(f"there is nothing to compare in {' '.join(config.paths)}: no run has logged anything")
    groups = group(runs)
    metrics = choose_metrics(groups, config.metrics)
    groups = sort_groups(groups, config.sort_by, metrics)
    comparisons, notes = compare(groups, config.baseline) if config.baseline is not None else ([], [])
    for note in dict.fromkeys(notes):
        print(note, file=sys.stderr)
    report = Report(groups, metrics, config.baseline, comparisons, config.settings)
    if config.plot is not None:
        from lit_llm.evaluation.plot import plot

        plot(groups, _shown_in_plot(config.sort_by, metrics), Path(config.plot))
    if config.write_hparams:
        from lit_llm.evaluation.hparams import write_hparams

        write_hparams(groups, metrics)
    show(report, config.format)
    return 0


def _shown_in_plot(sort_by: str | None, metrics: list[str]) -> str:
    if sort_by in metrics:
        return str(sort_by)
    if not metrics:
        raise ValueError("--plot has no metric to show; name one by --metrics")
    return metrics[0]


def parser() -> Parser:
    """The options."""
    parser = Parser(
        prog="lit-llm compare",
        description="Runs side by side: which settings differ, metrics, steps, tokens, time, parameters. Runs that "
        "differ by their seed only are one row: mean and 95 % interval. Values are the last ones logged.",
    )
    add = parser.add_argument
    add("paths", type=str, nargs="+", help="run folders, folders of runs, or folders of those")
    add("--metrics", type=str | None, default=None, help="tags to show, with commas between them")
    add("--sort_by", type=str | None, default=None, help="column that orders the rows; the first metric, or name")
    against = "a row, a run folder, or a baseline beside the runs (tfidf): paired tests on the same test items"
    add("--baseline", type=str | None, default=None, help=against)
    add("--settings", type=bool, default=True, help="whether to show the settings that differ")
    add("--format", type=str, default="table", help=f"one of {', '.join(FORMATS)}")
    add("--plot", type=str | None, default=None, help="picture to draw the metric of the rows' order into")
    shown = "whether to write settings and metrics of this table for TensorBoard's HParams page, a small file a run"
    add("--write_hparams", type=bool, default=False, help=shown)
    return parser
