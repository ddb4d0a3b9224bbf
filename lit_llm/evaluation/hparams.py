"""The table of a comparison, for TensorBoard's HParams page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_llm.evaluation.groups import Group, differences
from lit_llm.evaluation.runs import Run

# TensorBoard reads the files of a run in the order of their names and keeps what the first says of the page's columns.
FILE = "events.out.tfevents.0.compare"


def write_hparams(groups: Sequence[Group], metrics: Sequence[str]) -> None:
    """Put a file into each run that makes settings and metrics of this comparison the columns of the HParams page.

    The page takes the columns from any one of the runs, and the metrics of each from its curves, by their tags. A run
    names those known when it began; this is for metrics that came later, for settings that not all runs have, and for
    runs of other loggers. Nothing that a run wrote is changed: without the file, all is as before.

    Args:
        groups: Those of the table.
        metrics: Their metrics.

    Raises:
        ValueError: If a file cannot be written.
    """
    runs = [run for each in groups for run in each.runs]
    columns: dict[str, dict[Path, Any]] = {}  # by setting and run
    for name in ("seed_everything", *differences(groups)):
        found = {run.folder: run.config[name] for run in runs if name in run.config}
        columns[name] = found if _are_alike(list(found.values())) else {key: str(value) for key, value in found.items()}
    examples = {name: next(iter(found.values())) for name, found in columns.items() if found}
    for run in runs:
        own = {name: found[run.folder] for name, found in columns.items() if run.folder in found}
        try:
            _write(run, examples, own, metrics)
        except OSError as error:
            raise ValueError(f"cannot write into '{run.folder}': {error.strerror}") from error


def _are_alike(values: list[Any]) -> bool:
    """Whether all are of one kind that a column can hold, other than words."""
    return any(all(isinstance(value, kind) for value in values) for kind in (bool, int | float))


def _write(run: Run, examples: dict[str, Any], settings: dict[str, Any], metrics: Sequence[str]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter
    from torch.utils.tensorboard.summary import hparams

    columns, *_ = hparams(examples, dict.fromkeys(metrics, 0.0))
    _, started, ended = hparams(settings, {})
    time = run.events.times[0]  # that of the run, so that it began when it began
    with (run.folder / FILE).open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=time, file_version="brain.Event:2").SerializeToString())
        for content in (columns, started, ended):
            writer.write(Event(wall_time=time, summary=content).SerializeToString())
