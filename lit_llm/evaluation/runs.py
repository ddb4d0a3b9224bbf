"""Run folders, read: settings, curves, steps, time, parameters."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from lit_llm.config_files import flat
from lit_llm.evaluation.events import Events, Point, read_events
from lit_llm.usage import home_path

CONFIG = "config.yaml"
FINISHED = "finished"  # beside the run folders of one run of a sweep: which of them has come to the end
# Settings that say where and how a run is shown, not what it is; a name ends at a dot.
SHOWN_NOT_LEARNT = (
    "seed_everything",
    "ckpt_path",
    "trainer.logger",
    "trainer.default_root_dir",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "data.cache_dir",
)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # of libyaml, several times as fast


@dataclass
class Run:
    """A run folder.

    Args:
        folder: Where it lies.
        config: Its config.yaml by dotted names; empty if there is none that can be read.
        events: What it has logged.
        notes: What is missing or damaged, a sentence each.
        before: The run that it went on from, if that was read as well.
    """

    folder: Path
    config: dict[str, Any]
    events: Events
    notes: list[str] = field(default_factory=list)
    before: "Run | None" = None

    @property
    def settings(self) -> dict[str, Any]:
        """What decides about the result, but for the seed."""
        return {name: value for name, value in self.config.items() if not _is_shown_only(name)}

    @property
    def seed(self) -> Any:
        """The seed, or None."""
        return self.config.get("seed_everything")

    @property
    def has_trained(self) -> bool:
        """Whether it is no mere validation or test of another run's checkpoint."""
        return any(tag.startswith("train/") or tag == "tokens" for tag in self.events.scalars)

    def curve(self, tag: str) -> list[Point]:
        """A curve from its very beginning, also where the run went on from another."""
        own = self.events.scalars.get(tag, [])
        earlier = self.before.curve(tag) if self.before else []
        return [point for point in earlier if not own or point.step < own[0].step] + own

    def metric(self, tag: str) -> float | None:
        """The last value that was logged under a tag."""
        # A test is of the weights of its own run: that of a run before says nothing of those that came of it.
        curve = self.events.scalars.get(tag, []) if tag.startswith("test/") else self.curve(tag)
        return curve[-1].value if curve else None

    @property
    def steps(self) -> int | None:
        """Optimizer steps, as far as they were logged; a step is logged by its number, from 0."""
        tags = [tag for tag in self.events.scalars if tag.startswith(("train/", "val/")) or tag == "tokens"]
        return max((point.step + 1 for tag in tags for point in self.events.scalars[tag]), default=None)

    @property
    def minutes(self) -> float | None:
        """Time between the first and the last record, with that of the runs before."""
        if not self.events.times:
            return None
        own = (self.events.times[-1] - self.events.times[0]) / 60
        return own + ((self.before.minutes or 0.0) if self.before else 0.0)

    @cached_property
    def parameters(self) -> int | None:
        """Parameters of the network: as the run says, or of an older one as its checkpoint holds them."""
        if "parameters" in self.events.settings:
            return int(self.events.settings["parameters"])
        if not any((self.folder / "checkpoints").glob("*.ckpt")):
            return None
        from lit_llm.weights.checkpoint import open_checkpoint  # loads torch

        try:
            _, checkpoint = open_checkpoint(self.folder, ("last", "best"))
        except ValueError as error:
            self.notes.append(str(error))
            return None
        tensors = {weight.data_ptr(): weight.numel() for weight in checkpoint["state_dict"].values()}
        return sum(tensors.values())

    @property
    def is_finished(self) -> bool:
        """Whether it took the steps or epochs that its config asks for, as far as the config says how many."""
        wanted, epochs = self.config.get("trainer.max_steps", -1), self.config.get("trainer.max_epochs", -1)
        has_epochs = epochs not in (-1, None)
        if wanted < 1 and not has_epochs:
            return True
        if any("EarlyStopping" in str(value) for value in self.config.values()):
            return True
        # The last steps may have been too few for another record.
        steps = self.steps
        has_steps = steps is not None and steps + self.config.get("trainer.log_every_n_steps", 1) > wanted
        return (wanted >= 1 and has_steps) or (has_epochs and self._took_epochs(epochs))

    def _took_epochs(self, wanted: int) -> bool:
        """Whether its records reach the last epoch and, where it validates, a validation after the last of training."""
        last = self.events.last("epoch")
        if last is None:  # nothing says how many it took
            return True
        ends = {
            split: max(
                (curve[-1].step for tag, curve in self.events.scalars.items() if tag.startswith(split)), default=-1
            )
            for split in ("train/", "val/")
        }
        return last >= wanted or (last == wanted - 1 and (ends["val/"] < 0 or ends["val/"] >= ends["train/"]))

    @property
    def name(self) -> str:
        """The folder without its number, and without a seed at its end."""
        folder = self.folder.parent if re.fullmatch(r"version_\d+", self.folder.name) else self.folder
        return re.sub(r"[/_-]?seed[_=-]?\d+$", "", str(folder)) or str(folder)


def _is_shown_only(name: str) -> bool:
    return any(name == shown or name.startswith(f"{shown}.") for shown in SHOWN_NOT_LEARNT)


def find_runs(paths: Iterable[str | Path]) -> list[Path]:
    """The run folders at and below some paths, each once, `version_10` after `version_9`.

    Args:
        paths: Run folders, folders of runs, or folders of those.

    Raises:
        ValueError: If a path is no folder, or holds no run.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise ValueError(f"there is no run folder '{path}'")
        below = sorted(_runs_below(home_path(path)), key=_natural)
        if not below:
            raise ValueError(f"the folder '{path}' holds no run: none below it has a {CONFIG} or events")
        found |= dict.fromkeys(below)
    return list(found)


def _runs_below(path: Path) -> Iterator[Path]:
    for folder, inner, files in os.walk(path):
        if CONFIG in files or any(name.startswith("events.out.tfevents.") for name in files):
            inner.clear()  # a run holds no other
            yield Path(folder)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path)) if part]


def read_run(folder: Path) -> Run:
    """One run folder; whatever is wrong with it becomes a note.

    Args:
        folder: The run folder.
    """
    notes: list[str] = []
    config: dict[str, Any] = {}
    try:
        content = yaml.load((folder / CONFIG).read_text(encoding="utf-8"), LOADER)
        if not (isinstance(content, dict) and {"trainer", "model", "data"} <= content.keys()):
            raise ValueError("it is not whole")
        config = dict(flat(content))
    except FileNotFoundError:
        notes.append(f"there is no {CONFIG}, so its settings are unknown")
    except (OSError, ValueError, yaml.YAMLError) as error:
        notes.append(f"its {CONFIG} cannot be read ({str(error).splitlines()[0]}), so its settings are unknown")
    events = read_events(folder)
    notes += events.damage
    if not events.scalars:
        notes.append("it has logged nothing" if events.times else "it has no events")
    return Run(folder, config, events, notes)


def read_runs(paths: Iterable[str | Path]) -> tuple[list[Run], list[str]]:
    """The trainings among the runs below some paths, and what is to be said about them.

    A run that another one went on from becomes a part of that one. Left out are attempts that a sweep had to repeat,
    and validations and tests of a checkpoint in a folder of their own, which train nothing.

    Args:
        paths: As of `find_runs`.

    Raises:
        ValueError: As `find_runs`.
    """
    runs = {folder.resolve(): read_run(folder) for folder in find_runs(paths)}
    continued = set()
    for run in runs.values():
        source = run.config.get("ckpt_path")
        before = Path(str(source)).resolve().parent.parent if source and run.has_trained else None
        if before is not None and before in runs and runs[before].events.times[:1] < run.events.times[:1]:
            run.before = runs[before]
            continued.add(before)
    kept, notes = [], []
    for folder, run in runs.items():
        notes += [f"{run.folder}: {note}" for note in run.notes]
        if folder in continued or _is_earlier_attempt(folder):
            continue
        if run.events.scalars and not run.has_trained and run.config.get("ckpt_path"):
            notes.append(f"{run.folder}: it trained nothing, being a validation or a test, and is left out")
        elif run.events.scalars:
            kept.append(run)
    return kept, notes


def _is_earlier_attempt(folder: Path) -> bool:
    """Whether a sweep has started it, and then again, to the end."""
    marker = folder.parent / FINISHED
    return marker.is_file() and marker.read_text(encoding="utf-8").strip() not in ("", folder.name)
