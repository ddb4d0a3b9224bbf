"""What a user is told of labelled texts before a run: how many of each class, what repeats, what is cut off."""

from typing import TYPE_CHECKING

import numpy as np

from lit_llm.data.class_split import leaked, normalised, split_rows
from lit_llm.data.tables import Table

if TYPE_CHECKING:
    from lit_llm.data.text_classification import TextClassification

PURPOSES = {"val": "validate", "test": "test"}
SHOWN = 12  # classes that have a column of their own


def report(data: "TextClassification") -> str:
    """Rows by class and split; texts left out, repeated, cut off. It is made of what a run needs in any case."""
    table = data.table
    lines = [f"read {data.describe()}: {len(table.texts):,} texts of {len(data.class_names)} classes{_empty(table)}"]
    lines += [f"  {line}" for line in data.sources.lines()]
    if (mix := data.mix()) is not None:
        lines.append(f"  {mix.report(list(map(str, data.sources.train)), 'texts')}")
    splits = [split for split in ("train", "val", "test") if data.has(split)]
    lines += _counts(data, splits)
    lines += _repetitions(data)
    if (others := data.apart.get("predict")) is not None:
        lines.append(f"  to predict: {len(others[0].texts):,} texts of '{others[0].name}'{_empty(others[0])}")
        splits.append("predict")
    cut = {split: data.tokens(split).truncated for split in splits}
    told = ", ".join(f"{count:,} of {len(data.tokens(split)):,} for {split}" for split, count in cut.items() if count)
    if told:
        lines.append(f"  cut off at {data.block_size} tokens: {told}")
    return "\n".join(lines)


def _empty(table: Table) -> str:
    return f"; {table.empty:,} rows without text are left out" if table.empty else ""


def _counts(data: "TextClassification", splits: list[str]) -> list[str]:
    """A table with a row for each split and a column for each class, if there are not too many."""
    names = data.class_names if len(data.class_names) <= SHOWN else []
    cells = [["", *(name[:20] for name in names), "all"]]
    for split in splits:
        counts = data.class_counts(split)
        cells.append([split, *(f"{count:,}" for count in counts if names), f"{sum(counts):,}"])
    if data.balance == "undersample":
        before = np.bincount(data.targets[data.splits == "train"], minlength=len(data.class_names)).tolist()
        cells.append(["train, all", *(f"{count:,}" for count in before if names), f"{sum(before):,}"])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]


def _repetitions(data: "TextClassification") -> list[str]:
    """How many texts occur again, and what a split that does not look would have let into the test."""
    texts = [normalised(text) for text in data.table.texts]
    again = len(texts) - len(set(texts))
    told = [_in_both(data, split) for split in data.sources.own]
    if not again:
        return told
    line = f"  {again:,} texts repeat another one, and stay on its side"
    if held_out := next((split for split, share in data.shares.items() if share), None):
        drawn = split_rows(len(texts), data.shares, data.split_seed)
        what = f"{leaked(texts, drawn, held_out):,} of {np.count_nonzero(drawn == held_out):,}"
        line += f"; drawn row by row, {what} for {held_out} would have been trained on"
    return [line, *told]


def _in_both(data: "TextClassification", split: str) -> str:
    """How many texts of a split with a source of its own are trained on."""
    table = data.apart[split][0]
    texts = [normalised(text) for text in (*data.texts("train")[1], *table.texts)]
    names = np.repeat(["train", split], [len(texts) - len(table.texts), len(table.texts)])
    seen = leaked(texts, names, split)
    return f"  to {PURPOSES[split]}: {seen:,} texts of '{table.name}' are also trained on{_empty(table)}"
