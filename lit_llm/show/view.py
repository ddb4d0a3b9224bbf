"""What is shown of the data, whether on a terminal or on a page: rows of real batches, and counts of many."""

from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lit_llm.batch import IGNORE_INDEX
from lit_llm.data.base import TextDataModule
from lit_llm.data.prompts import Span
from lit_llm.show.counts import Counts
from lit_llm.show.lines import Line, describe, lines
from lit_llm.show.origins import Origin, Origins, origins
from lit_llm.show.spelling import Speller, Token

SPLITS = ("train", "val", "test")
FIRST = 5  # places of a row in the table of the shift


class Step(NamedTuple):
    """What a model reads at a place of a row, and what it is asked for there."""

    place: int
    position: int
    read: Token
    asked: Token | None


@dataclass
class Stretch:
    """One text of a row, and what is said of it.

    Args:
        title: What is said.
        tokens: Those that a model reads, and a last one if it is only asked for.
    """

    title: str
    tokens: list[Token]


@dataclass
class Row:
    """A row of a batch.

    Args:
        title: Where it is.
        stretches: Its texts.
        padding: Places behind them.
        steps: Some of its places, with the shift; None where places are left out.
    """

    title: str
    stretches: list[Stretch]
    padding: int
    steps: list[Step | None]


@dataclass
class View:
    """All that is shown.

    Args:
        title: What of.
        facts: Numbers, by name.
        report: What the data module itself says.
        counts: What was counted.
        rows: Rows of the first batches.
        spans: The conversation of the first of them that has one, as its template renders it.
        kind: What a batch holds.
    """

    title: str
    facts: dict[str, str]
    report: str
    counts: Counts
    kind: str
    rows: list[Row] = field(default_factory=list)
    spans: tuple[Span, ...] = ()


def view(data: TextDataModule, split: str, examples: int, batches: int) -> View:
    """Read batches of a data module, as a training does.

    Args:
        data: It is set up.
        split: train, val or test.
        examples: Rows that are shown.
        batches: Batches that are counted, at most.

    Raises:
        ValueError: If nothing is held out for the split.
    """
    if (loader := _loader(data, split)) is None:
        raise ValueError(f"nothing is held out for --split {split}; set --data.{split}_fraction, or show another split")
    end = data.tokenizer.end_of_text
    counts, found, kind = Counts(end), origins(data, split), ""
    shown = View(f"{type(data).__name__}, {split}", {}, data.report(), counts, kind)
    for number, batch in enumerate(islice(loader, batches), start=1):
        made = lines(batch, end or 0)
        shown.kind = shown.kind or describe(batch)
        counts.add(made)
        for place, line in enumerate(made[: examples - len(shown.rows)], start=1):
            row, spans = _row(line, f"batch {number}, row {place}", data, found)
            shown.rows.append(row)
            shown.spans = shown.spans or spans
    if not counts.batches:
        raise ValueError(f"the {split} split gives no batch; give more data, or lower --data.batch_size")
    shown.facts = {**_sizes(data, split, loader), **_facts(counts, data, len_or_none(loader))}
    return shown


def len_or_none(sized: Any) -> int | None:
    """How many there are, where that is known."""
    try:
        return len(sized)
    except TypeError:
        return None


def _loader(data: TextDataModule, split: str) -> Any:
    """What serves a split; None if there is no such split."""
    try:
        loader = getattr(data, f"{split}_dataloader")()
    except MisconfigurationException:
        return None
    return None if isinstance(loader, list) and not loader else loader


def _sizes(data: TextDataModule, split: str, loader: Any) -> dict[str, str]:
    """Rows and batches of each split that there is."""
    sizes: dict[str, str] = {}
    for name in SPLITS:
        try:
            served = loader if name == split else _loader(data, name)
        except ValueError as error:
            # Nobody has to hold out texts for a test, and a training without them begins all the same.
            sizes |= {} if name == "test" else {name: str(error)}
            continue
        if served is None:
            continue
        rows = getattr(served, "rows", getattr(served, "dataset", None))
        unit, count = getattr(rows, "unit", "rows"), len_or_none(rows)
        batches = len_or_none(served)
        told = [f"{count:,} {unit if count != 1 else unit.removesuffix('s')}"] if count is not None else []
        sizes[name] = ", ".join([*told, "batches of unknown number" if batches is None else _batches(batches)])
    return sizes


def _facts(counts: Counts, data: TextDataModule, batches: int | None) -> dict[str, str]:
    of = "" if batches is None or counts.batches == batches else f" of {batches:,}; the rest is not counted here"
    facts = {"counted": f"{_batches(counts.batches)}{of}"}
    if not counts.rows:
        return facts
    padding = counts.places - counts.tokens
    facts["tokens"] = f"{counts.tokens:,} in {counts.rows:,} rows"
    facts["padding"] = f"{padding:,} of {counts.places:,} places ({_share(padding, counts.places)})"
    if counts.has_targets:
        facts["carry loss"] = f"{counts.learnt:,} targets ({_share(counts.learnt, counts.tokens)} of the tokens)"
        facts["shift by one"] = f"{counts.followed:,} of {counts.checked:,} targets are the token that is read next"
    else:
        facts["carry loss"] = f"{counts.labels.total():,} labels, one for each text"
        names = dict(enumerate(data.class_names))
        facts["classes"] = ", ".join(f"{names.get(n, n)} {count:,}" for n, count in sorted(counts.labels.items()))
    if counts.shared:
        full, each = _share(counts.tokens, counts.places), len(counts.lengths) / counts.rows
        facts["packing"] = f"{full} of the places are full; {each:.2f} texts in a row"
    if counts.lengths:
        median, most, longest = counts.percentiles()
        facts["length of a text"] = f"{median:,} (median), {most:,} (95 of 100 have no more), {longest:,} (longest)"
    return facts


def _batches(count: int) -> str:
    return f"{count:,} batch{'es' if count != 1 else ''}"


def _share(part: int, whole: int) -> str:
    return f"{part / max(whole, 1):.2%}"


def _row(line: Line, title: str, data: TextDataModule, found: Origins) -> tuple[Row, tuple[Span, ...]]:
    """A row, and the conversation in it that is the first to be found."""
    speller, stretches = Speller(data.tokenizer), []
    spans: tuple[Span, ...] = ()
    for number, here in enumerate(line.stretches, start=1):
        origin = found.find(line.idx[here], line.number)
        spans = spans or (origin.spans if origin else ())
        tokens = _tokens(line, here, speller)
        stretches.append(Stretch(_title(line, here, number, origin, data), tokens))
    named = "" if line.number is None or line.label is not None else f", number {line.number}"
    title = f"{title}{named}{f', {line.name}' if line.name else ''}"
    return Row(title, stretches, len(line.idx) - line.length, _steps(line, speller)), spans


def _title(line: Line, here: slice, number: int, origin: Origin | None, data: TextDataModule) -> str:
    size = here.stop - here.start
    parts = [f"text {number}"] if line.documents[: line.length].any() else []
    parts += [origin.name] if origin else []
    if line.targets is None:
        label = "not known" if line.label is None else dict(enumerate(data.class_names)).get(line.label, line.label)
        parts += [f"class {label}", f"{size} tokens"]
    else:
        asked = int((line.targets[here] != IGNORE_INDEX).sum())
        parts += [f"places {here.start} to {here.stop - 1}"]
        parts += [f"positions 0 to {size - 1}"] if here.start else []
        parts += [f"{asked} of {size} targets carry loss"]
    if origin and origin.whole > size:
        parts.append(f"cut off: {origin.whole - size} of {origin.whole} tokens are missing")
    return " · ".join(parts)


def _tokens(line: Line, here: slice, speller: Speller) -> list[Token]:
    """The tokens of a text: each marked if the one before it is asked for it, so the first never is."""
    ids = line.idx[here].tolist()
    if line.targets is None:
        return speller.tokens(ids, [False] * len(ids))
    targets = line.targets[here]
    asked = (targets != IGNORE_INDEX).tolist()
    wanted = np.where(asked, targets, [*ids[1:], IGNORE_INDEX]).tolist()
    last = slice(None) if asked[-1] else slice(-1)  # the last one is read, and nothing is asked for behind it
    return speller.tokens([ids[0], *wanted[last]], [False, *asked[last]])


def _steps(line: Line, speller: Speller) -> list[Step | None]:
    """The first places of a row, those where loss begins, and those where a second text does."""
    if line.targets is None:
        return []
    asked = np.flatnonzero(line.targets[: line.length] != IGNORE_INDEX)
    start = max(int(asked[0]) - 2, 0) if len(asked) else 0
    texts = list(line.stretches)
    border = texts[1].start if len(texts) > 1 else 0
    chosen = {*range(FIRST), *range(start, start + FIRST + 1), *range(border - 2, border + 2)}
    places = sorted(chosen & set(range(line.length)))
    starts = {place: here.start for here in texts for place in range(here.start, here.stop)}
    steps: list[Step | None] = []
    for place, before in zip(places, [-1, *places], strict=False):
        steps += [None] if place > before + 1 else []
        target = int(line.targets[place])
        wanted = None if target == IGNORE_INDEX else speller.token(target, True)
        steps.append(Step(place, place - starts[place], speller.token(int(line.idx[place])), wanted))
    return steps
