"""Own names of the fields of records: --data.fields."""

from collections.abc import Mapping
from typing import Any

from lit_llm.data.fields import ANSWERS, QUESTIONS, TALKS, says_something
from lit_llm.data.messages import RecordError
from lit_llm.data.notes import MAPPED_AWAY, Notes

MAPPABLE = (
    *("instruction", "input", "output", "system", "history", "messages", "tools", "prompt", "completion"),
    *("chosen", "rejected", "role", "content"),
)
REPLACED = (  # where --data.fields gives one of the first names, the others are not looked at
    ({"instruction", "prompt"}, {*QUESTIONS} - {"input"}),
    ({"output", "completion"}, {*ANSWERS}),
    ({"instruction", "prompt", "output", "completion"}, {*TALKS}),
)
OPTIONAL = ("input", "system", "history", "tools")
OF_MESSAGES = ("role", "content")


class FieldNames:
    """Gives the fields of records the names that are used here.

    Args:
        fields: Their own names, by ours.

    Raises:
        ValueError: If a name is not one of those that can be given.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        refuse_fields(fields)
        self.of_messages = {ours: theirs for ours, theirs in fields.items() if ours in OF_MESSAGES}
        self._names = {ours: theirs for ours, theirs in fields.items() if ours not in OF_MESSAGES}
        self._unseen = dict(self._names)
        self._passed = {key for names, others in REPLACED if not names.isdisjoint(self._names) for key in others}
        self._first: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._names)

    def renamed(self, name: str, content: dict[str, Any], notes: Notes) -> dict[str, Any]:
        """A record with our names; fields that take the place of others are counted.

        Raises:
            RecordError: If it lacks one that is needed.
        """
        self._first = self._first or [str(key) for key in content]
        theirs = set(self._names.values())
        found = {}
        for key, value in content.items():
            if key in theirs:
                continue
            if key not in self._passed and key not in self._names:
                found[key] = value
            elif says_something(value):
                notes.add(MAPPED_AWAY, f"'{key}'")
        for ours, own in self._names.items():
            if own in content:
                self._unseen.pop(ours, None)
                found[ours] = content[own]
            elif ours not in OPTIONAL:
                fields = ", ".join(map(str, content)) or "none"
                raise RecordError(
                    f"without {own}",
                    f"{name} has no '{own}', which --data.fields names as {ours} (its fields: {fields})",
                )
        return found

    def finish(self) -> None:
        """Refuse a name that no record has.

        Raises:
            ValueError: If there is one.
        """
        for ours, theirs in self._unseen.items():
            if self._first:
                raise ValueError(
                    f"--data.fields must name fields of the records, got '{theirs}' as {ours}, which none has; the "
                    f"fields of the first are {', '.join(self._first)}"
                )


def refuse_fields(fields: Mapping[str, str]) -> None:
    """Refuse a mapping that cannot be.

    Raises:
        ValueError: If it has names that are not known here, values that are no names, or one of them twice.
    """
    for ours, theirs in fields.items():
        if ours not in MAPPABLE:
            raise ValueError(f"--data.fields must map names out of {', '.join(MAPPABLE)}, got '{ours}'")
        if not isinstance(theirs, str) or not theirs:
            raise ValueError(f"--data.fields must name a field of the records for {ours}, got {theirs!r}")
    if len(set(fields.values())) < len(fields):
        raise ValueError(f"--data.fields must name different fields, got {dict(fields)}")
