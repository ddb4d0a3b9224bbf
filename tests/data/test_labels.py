"""Labels as numbers: the order of classes, and what cannot be one."""

from typing import Any

import pytest

from lit_llm.batch import IGNORE_INDEX
from lit_llm.data.labels import class_names, numbers
from lit_llm.data.tables import Columns, Table


def table(labels: list, texts: list[str] | None = None, **settings: Any) -> Table:
    count = range(len(labels))
    texts = texts or [f"text {number}" for number in count]
    places = [number + 1 for number in count]
    return Table(
        "a.tsv",
        Columns("text", "label"),
        "line",
        rows=list(count),
        places=places,
        texts=texts,
        labels=labels,
        **settings,
    )


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["b", "a", "c", "a", "b", "c"], ["a", "b", "c"]),
        (["10", "9", "-1", "9", "10", "-1"], ["-1", "9", "10"]),
        (["10", "9", "x", "9", "10", "x"], ["10", "9", "x"]),
    ],
)
def test_classes_are_sorted_and_numbers_as_numbers(labels: list[str], names: list[str]) -> None:
    assert class_names(table(labels), None) == names


def test_classes_are_as_said() -> None:
    """By the user first, then by the data set."""
    found = table(["b", "a", "a", "b"], class_names=["b", "a"])
    assert class_names(found, None) == ["b", "a"]
    assert class_names(found, ["a", "b"]) == ["a", "b"]
    assert numbers(found, ["b", "a"]).tolist() == [0, 1, 1, 0]


def test_a_text_without_a_label_has_no_number() -> None:
    assert numbers(table(["b", None, "a"]), ["a", "b"]).tolist() == [1, IGNORE_INDEX, 0]


@pytest.mark.parametrize(
    ("labels", "classes", "told"),
    [
        (["ham"] * 3, None, "'a.tsv' has one class only, 'ham', in 'label'; a classifier needs two or more"),
        (["ham"] * 3, ["ham"], "'a.tsv' has one class only, 'ham'"),
        (
            ["ham"] * 3,
            ["ham", "spam"],
            r"no text of 'a\.tsv' has the label 'spam'; a classifier needs .* \(ham, spam\)",
        ),
        (["ham", "spam"] * 2, ["ham", "spam", "ham"], "names 'ham' more than once"),
        (
            ["ham", "spam", "Ham"],
            ["ham", "spam"],
            "'a.tsv' line 3 has the label 'Ham', which is none of ham, spam; corr",
        ),
        ([str(i) for i in range(9)], None, "has 9 different labels in 'label' for 9 texts; if texts and labels are sw"),
        ([str(i // 2) for i in range(2002)], None, "has 1,001 different labels in 'label' for 2,002 texts"),
    ],
)
def test_what_cannot_be_classes(labels: list[str], classes: list[str] | None, told: str) -> None:
    """D9, and one class only."""
    with pytest.raises(ValueError, match=told):
        class_names(table(labels), classes)


def test_columns_that_are_swapped() -> None:
    """D9: known by a text that is a label."""
    swapped = table(["see you at six", "win a car"], ["ham", "spam"])
    with pytest.raises(ValueError, match="which is none of ham, spam; texts and labels seem to be swapped: exchange"):
        class_names(swapped, ["ham", "spam"])


def test_a_first_line_that_names_columns_of_its_own() -> None:
    """Else there would be one class more, of one text."""
    labels = ["class", "ham", "spam", "ham", "spam", "ham"]
    with pytest.raises(
        ValueError, match="line 1 has the label 'class', which no other line has; if the line names the c"
    ):
        class_names(table(labels, nameless=True), None)
    assert class_names(table(labels), None) == ["class", "ham", "spam"]


def test_many_names_are_not_all_told() -> None:
    names = [str(number) for number in range(23)]
    with pytest.raises(ValueError, match=r"none of 0, 1, .* 19, 3 more; correct it"):
        numbers(table(["x"]), names)
