"""What each split is read from: shares of the sources that are trained on, or sources of its own."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lit_llm.data.named_sources import NamedSource, Sources, listed, parse
from lit_llm.data.rows import Access, names_data_set
from lit_llm.data.split_folders import split_folder
from lit_llm.data.splits import refuse_shares
from lit_llm.usage import home_path


@dataclass
class SplitSources:
    """The sources of each split.

    Args:
        train: Those that are trained on, and that shares are held out of.
        shares: Of them, for testing and for validation; 0 where a split has sources of its own.
        own: By split, val and test, its own sources; no key where there are none.
        notes: What was found in folders, in a few lines.
    """

    train: list[NamedSource]
    shares: dict[str, float]
    own: dict[str, list[NamedSource]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def weights(self) -> tuple[float, ...] | None:
        """How often the rows of each source are read in an epoch. None: once, all of them."""
        weights = tuple(each.weight for each in self.train)
        return None if set(weights) == {1.0} else weights

    def has(self, split: str) -> bool:
        """Whether there is something in a split: train, val or test."""
        return split == "train" or split in self.own or bool(self.shares.get(split))

    def settings(self) -> dict[str, Any]:
        """What decides which rows train and how often, and what they are validated on."""
        source = [str(each) for each in self.train]
        return {
            "source": source[0] if len(source) == 1 else source,
            **self.shares,
            "weights": list(self.weights or ()),
            "val_source": [str(each) for each in self.own.get("val", ())],
            "val_content": _content(self.own.get("val", ())),
            "test_source": [str(each) for each in self.own.get("test", ())],
        }

    def lines(self) -> list[str]:
        """Lines of a report: what was found in folders, and which splits have sources of their own."""
        own = [f"{split}: '{listed(named)}', and no share of '{self}'" for split, named in self.own.items()]
        return [*self.notes, *own]

    def __str__(self) -> str:
        return listed(self.train)


def find_sources(
    source: Sources,
    own: dict[str, Sources | None],
    shares: dict[str, float],
    reading: Access,
    suffixes: Sequence[str],
    keeps_folders: bool = False,
) -> SplitSources:
    """Find what each split is read from.

    Args:
        source: What is trained on. Folders in it may be divided by names, see `split_folder`.
        own: By split, val and test, the sources that options name for it. They count before those of folders, and
            before shares.
        shares: Of the source, for testing and for validation.
        reading: How sources are read.
        suffixes: Of files that can be read.
        keeps_folders: Whether a folder, a glob or another name may be a source as it is.

    Raises:
        ValueError: If shares are out of range, a source of a split is not there, has a weight, or is trained on.
    """
    found = SplitSources([], dict(shares))
    for named in parse("source", source, reading):
        found.train.append(_divided(named, found, suffixes, keeps_folders))
    for split, value in own.items():
        if value is not None:
            found.own[split] = parse(f"{split}_source", value, reading)
            _refuse_unfit(f"{split}_source", found.own[split], keeps_folders)
    found.shares |= dict.fromkeys(found.own, 0.0)
    found.own = {split: found.own[split] for split in ("val", "test") if split in found.own}
    refuse_shares(found.shares["val"], found.shares["test"])
    _refuse_trained(found, reading)
    return found


def _divided(named: NamedSource, found: SplitSources, suffixes: Sequence[str], keeps_folders: bool) -> NamedSource:
    """A source without what its folder has for other splits, which is taken note of."""
    folder = home_path(named.path)
    if not (named.path and folder.is_dir()):
        return named
    splits, note = split_folder(folder, suffixes)
    if note is not None and keeps_folders:
        found.notes.append(note)
    if not splits:
        return named
    files = {split: tuple(map(str, paths)) for split, paths in splits.items()}
    for split in files.keys() - {"train"}:
        part = replace(named, weight=1.0, files=files[split], path=_shown(folder, splits[split]))
        found.own.setdefault(split, []).append(part)
    told = ", ".join(
        f"{split} {_inside(folder, splits[split])}" for split in ("train", "val", "test") if split in files
    )
    found.notes.append(f"'{named.path}' is divided by names: {told}")
    return replace(named, files=files["train"])


def _shown(folder: Path, paths: list[Path]) -> str:
    return str(folder / _inside(folder, paths))


def _inside(folder: Path, paths: list[Path]) -> str:
    """What a folder's files of one split are called: their file, or what comes first on the way to them."""
    return paths[0].relative_to(folder).parts[0] + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def _refuse_unfit(option: str, sources: Sequence[NamedSource], is_text: bool) -> None:
    for named in sources:
        if named.weight != 1:
            raise ValueError(
                f"--data.{option} must have no weight, got {named.weight:g} for '{named}': what is measured counts once"
            )
        is_there = is_text or named.path == "sample" or home_path(named.path).is_file()  # texts are looked for later
        if not is_there and not names_data_set(named.path):
            raise ValueError(
                f"--data.{option} must be a file or a Hugging Face data set (owner/name), got '{named}', which is none"
            )


def _refuse_trained(found: SplitSources, reading: Access) -> None:
    """Refuse a source of its own that is trained on, too."""
    trained = {_identity(part, named, reading) for named in found.train for part in named.parts}
    for split, sources in found.own.items():
        for named in sources:
            if any(_identity(part, named, reading) in trained for part in named.parts):
                raise ValueError(
                    f"--data.{split}_source must not be trained on, got '{named}', which --data.source names as well; "
                    f"leave it out of one of them{_advice(named, reading)}"
                )


def _identity(part: str, named: NamedSource, reading: Access) -> tuple[Any, ...]:
    path, how = home_path(part), named.reading(reading)
    return (str(path.resolve()),) if path.exists() else (part, how.subset, how.split)


def _advice(named: NamedSource, reading: Access) -> str:
    if home_path(named.path).exists():
        return ""
    return f", or name another split than {named.reading(reading).split}, as {named.path}:validation does"


def _content(sources: Sequence[NamedSource]) -> str:
    """Equal for sources that hold the same, as far as names and sizes of files tell, wherever they lie."""
    parts: list[Any] = []
    for named in sources:
        for part in named.parts:
            path = home_path(part)
            within = sorted(path.rglob("*")) if path.is_dir() else [path]
            parts += [[each.name, each.stat().st_size] if each.is_file() else str(named) for each in within]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16] if parts else ""
