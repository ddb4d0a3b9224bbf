"""What the values of a chat template cost, and which cost too much."""

import re
from typing import Any

import jinja2

MAX_SIZE = 10_000_000  # characters of one value, or of one rendering
MAX_NUMBER = 100_000  # an argument, which may be a width or a count
MAX_BITS = 4096  # of a whole number
ELEMENT = 100  # what an element costs beside a character


class CostError(jinja2.TemplateError):
    """A template that would cost too much."""


def weight(value: Any, room: int = MAX_SIZE) -> int:
    """Characters that a value would be written with, elements dearer; no more is counted than there is room for."""
    if isinstance(value, str | bytes | range):
        return len(value)
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if not isinstance(value, list | tuple):
        return 1
    total = ELEMENT
    for item in value:
        total += ELEMENT + weight(item, room - total)
        if total > room:
            break
    return total


def sized(value: Any) -> Any:
    """The value, unless it is too large."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise CostError(f"a number of more than {MAX_BITS} bits")
    if weight(value) > MAX_SIZE:
        raise CostError(f"a value of more than {MAX_SIZE:,} characters")
    return value


def check_widths(text: Any, values: Any) -> None:
    """Refuse "%1000000000d" and its like."""
    inside = values if isinstance(values, list | tuple) else [values]
    numbers = [value for value in inside if isinstance(value, int)]
    if re.search(r"\d{5,}", str(text)) or any(abs(number) > MAX_NUMBER for number in numbers if "*" in str(text)):
        raise CostError("a width of more than four digits")
    if re.search(r"\{[^{}]*:[^{}]*\{", str(text)):
        raise CostError("a width that is another value")
    fields = str(text).count("{") + str(text).count("%")
    if len(str(text)) + fields * weight(values) > MAX_SIZE + fields * 2 * ELEMENT:
        raise CostError(f"a value of more than {MAX_SIZE:,} characters")


def margin(given: list[Any]) -> str:
    """What `indent` writes before a line."""
    texts = [value for value in given if isinstance(value, str)]
    return max(texts, key=len, default=" " * max((value for value in given if isinstance(value, int)), default=4))


def check_growth(name: str, values: list[Any]) -> None:
    """Refuse a `replace` or a `join` whose result is too long; `values` are the text and its arguments."""
    text, rest = str(values[0]), values[1:]
    if name == "replace" and len(rest) > 1:
        size = len(text) + text.count(str(rest[0])) * len(str(rest[1]))
    else:
        size = sum(
            weight(list(value)) + len(value) * len(text) for value in rest[:1] if isinstance(value, list | tuple)
        )
    if size > MAX_SIZE:
        raise CostError(f"a value of more than {MAX_SIZE:,} characters")
