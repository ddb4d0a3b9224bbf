"""The fields of a record, and which of them were used."""

from typing import Any

from lit_llm.data.fields import QUESTIONS, TALKS
from lit_llm.data.messages import RecordError, from_json, text_of

TALK_NAMES = frozenset(TALKS)


class Row:
    """A record whose fields are counted as they are read.

    Args:
        name: Where it lies.
        content: Its fields.
    """

    __slots__ = ("content", "name", "taken")

    def __init__(self, name: str, content: dict[str, Any]) -> None:
        self.name, self.content = name, content
        self.taken: set[str] = set()

    def has(self, key: str) -> bool:
        """Whether a field is there, and not null."""
        return self.content.get(key) is not None

    def says(self, key: str) -> bool:
        """Whether a field is there, and neither null nor empty."""
        value = self.content.get(key)
        return bool(value.strip()) if isinstance(value, str) else value not in (None, [], {}, ())

    def take(self, key: str) -> Any:
        """A field, which is used by that."""
        self.taken.add(key)
        return self.content.get(key)

    def take_list(self, key: str) -> list[Any]:
        """A list, also as a JSON string.

        Raises:
            RecordError: If it is none.
        """
        value = self.take(key)
        if isinstance(value, str):
            value = from_json(self.name, f"'{key}'", value)
        if not isinstance(value, list | tuple):
            shown = f"the {type(value).__name__} {str(value)[:40]!r}"
            raise RecordError("no list", f"{self.name} holds {shown} in '{key}', where a list belongs")
        return list(value)

    def text(self, key: str) -> str:
        """A text.

        Raises:
            RecordError: If it is none.
        """
        return text_of(self.name, key, self.take(key))

    def demand(self, key: str, forms: str) -> None:
        """Refuse a record without a field."""
        if self.content.get(key) is None:
            fields = ", ".join(map(str, self.content)) or "none"
            raise RecordError(f"without {key}", f"{self.name} has no '{key}' (its fields: {fields}); {forms}")


def talk_key(row: Row) -> str | None:
    """The field that holds the messages of a record, or None."""
    if TALK_NAMES.isdisjoint(row.content):
        return None
    for key in TALKS:
        value = row.content.get(key)
        if isinstance(value, list | tuple) and value:
            return key
        if isinstance(value, str) and value.strip() and (key in TALKS[:2] or value.lstrip().startswith("[")):
            return key
    is_empty = not any(map(row.has, QUESTIONS))
    return next((key for key in TALKS if is_empty and row.content.get(key) == []), None)
