"""Labels as numbers: which classes there are, in which order, and which of them each text belongs to."""

import re
from collections import Counter

import numpy as np

from lit_llm.batch import IGNORE_INDEX
from lit_llm.data.tables import Table, as_label

MANY = 1000  # classes; a column with more is hardly one of labels


def class_names(table: Table, classes: list[str] | None) -> list[str]:
    """Names of the classes in the order of their numbers.

    Args:
        table: Texts with their labels.
        classes: The names, where they are said. None: as the source says, or else those that occur, sorted by name;
            numbers sort as numbers.

    Raises:
        ValueError: If there are less than two, a name is said twice, a class has no text, or the column holds so many
            different labels that it can hardly be one of labels.
    """
    classes = classes and [as_label(name) for name in classes]
    if classes is not None and len(set(classes)) < len(classes):
        raise ValueError(f"--data.classes names '{Counter(classes).most_common(1)[0][0]}' more than once")
    found = Counter(label for label in table.labels if label is not None)
    if classes is None and table.class_names is None:
        _refuse_texts(table, found)
    names = classes or table.class_names or _sorted(found)
    if classes is not None:
        numbers(table, names)  # a label that is not among them is to be told first
    if len(names) > 1 and (missing := [name for name in names if not found[name]]):
        raise ValueError(
            f"no text of '{table.name}' has the label '{missing[0]}'; a classifier needs texts of each class "
            f"({_listed(names)}): give more, or name the classes that there are by --data.classes"
        )
    if len(names) < 2:
        raise ValueError(
            f"'{table.name}' has one class only, '{names[0]}', in '{table.columns.label}'; a classifier needs two or "
            "more: name another --data.label_column, or give texts of others"
        )
    return list(names)


def numbers(table: Table, names: list[str]) -> np.ndarray:
    """(N,) the class of each text; IGNORE_INDEX where it has no label.

    Raises:
        ValueError: If a label is none of the names.
    """
    number_of: dict[str | None, int] = {name: number for number, name in enumerate(names)}
    for at, label in enumerate(table.labels):
        if label is not None and label not in number_of:
            swapped = table.texts[at] in number_of
            advice = (
                "texts and labels seem to be swapped: exchange --data.text_column and --data.label_column, or the "
                "columns of a file without names"
                if swapped
                else "correct it, or name the classes by --data.classes and the columns by --data.text_column and "
                "--data.label_column"
            )
            raise ValueError(
                f"{table.place(at)} has the label '{label[:40]}', which is none of {_listed(names)}; {advice}"
            )
    return np.array([number_of.get(label, IGNORE_INDEX) for label in table.labels], dtype=np.int64)


def _refuse_texts(table: Table, found: Counter[str]) -> None:
    """Refuse a column that holds something else than labels."""
    column = table.columns.label
    if len(found) > MANY or (len(found) > 2 and 2 * len(found) > len(table.labels)):
        raise ValueError(
            f"'{table.name}' has {len(found):,} different labels in '{column}' for {len(table.labels):,} texts; if "
            "texts and labels are swapped, exchange --data.text_column and --data.label_column, or the columns of a "
            "file without names"
        )
    first = table.labels[0]
    if table.nameless and len(table.labels) > 2 and first is not None and found[first] == 1:
        raise ValueError(
            f"{table.place(0)} has the label '{first[:40]}', which no other line has; if the line names the columns, "
            "tell them by --data.text_column and --data.label_column, and if not, give more texts of that class"
        )


def _sorted(found: Counter[str]) -> list[str]:
    names = sorted(found)
    return sorted(names, key=int) if all(re.fullmatch(r"-?\d+", name) for name in names) else names


def _listed(names: list[str]) -> str:
    rest = [f"{len(names) - 20} more"] if len(names) > 20 else []
    return ", ".join([*names[:20], *rest])
