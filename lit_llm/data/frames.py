"""What a template writes around the words of all conversations of one shape.

Following each character through a template takes longer than rendering it. So it is done once for each shape, with
other words in place of what is said, and from then on these are put where they have gone. That is right where the
template goes by nothing of the words but whether there are any, which is seen while they are followed; and each text
that is put together so is compared with what the template makes of the conversation itself.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lit_llm.data.spans import NO_WORDS, TRAIN, Message, Span, named, says_more

MAX_SHAPES = 1000  # that are kept for a template
FORMS = (str, str.strip, str.lstrip, str.rstrip)  # what a template may do to words, so that it counts as writing them
Shape = tuple[tuple[tuple[str, Any], ...], ...]


def shape_of(messages: Sequence[Message]) -> Shape | None:
    """Roles, names of fields, and whether these are empty or white space; None if one is no text."""
    shape = []
    for message in messages:
        fields: list[tuple[str, Any]] = []
        for key, value in message.items():
            if key == "role":
                fields.append((key, value))
            elif key == TRAIN:
                fields.append((key, bool(value)))
            elif isinstance(value, str):
                fields.append((key, 2 if value and not value.isspace() else len(value[:1])))
            else:
                return None
        shape.append(tuple(fields))
    return tuple(shape)


def in_place(shape: Shape) -> list[Message]:
    """Messages of a shape, in which no two texts are equal, nor what is left of them without white space."""
    messages, number = list[Message](), 0
    for fields in shape:
        messages.append({})
        for key, value in fields:
            if key in ("role", TRAIN):
                messages[-1][key] = value
            else:
                messages[-1][key] = ("", " " * (number + 1), f" ?{number} ")[value]
                number += 1
    return messages


class Piece(NamedTuple):
    """A stretch of what is written: a span of the template, or where the text of a number goes, and in which form."""

    span: Span
    number: int | None = None
    form: Callable[[str], str] = str


class Frame:
    """What a template writes for a shape.

    Args:
        messages: Those of `in_place`.
        spans: What it writes for them.

    Raises:
        LookupError: If it changes them.
    """

    def __init__(self, messages: Sequence[Message], spans: Sequence[Span]) -> None:
        places: dict[str, tuple[int, Callable[[str], str]]] = {}
        for number, text in enumerate(_texts(messages)):
            for form in FORMS:
                places.setdefault(form(text), (number, form))
        self._pieces = [Piece(span, *places[span.text]) if span.is_content else Piece(span) for span in spans]
        written = {piece.number for piece in self._pieces}
        fields = [(key, message["role"]) for message in messages for key in message if key not in ("role", TRAIN)]
        self._unwritten = [
            (number, named(*field))
            for number, field in enumerate(fields)
            if number not in written and field[0] not in NO_WORDS
        ]

    def filled(self, messages: Sequence[Message], text: str) -> tuple[list[Span], Counter[str]] | None:
        """The spans of messages of the shape, and their fields that are not written; None if that is not the text."""
        texts = _texts(messages)
        spans = [
            span if number is None else Span(form(texts[number]), True, span.carries_loss)
            for span, number, form in self._pieces
        ]
        if "".join([span.text for span in spans]) != text:
            return None
        return spans, Counter(name for number, name in self._unwritten if says_more(texts[number], []))


def _texts(messages: Sequence[Message]) -> list[str]:
    return [value for message in messages for key, value in message.items() if key not in ("role", TRAIN)]
