"""Text that remembers where each character comes from, through all that a chat template does to it."""

# ruff: noqa: D102 (the methods of str)
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple, Self

UNKNOWN = -1  # the number of a given text, where it cannot be told which one


class Part(NamedTuple):
    """A stretch of a text.

    Args:
        length: Characters.
        given: Number of the given text that it was taken from. None: the template wrote it.
        start: Its place in that text.
        generated: Whether it stands in a {% generation %} block.
        escaped: Whether all of it stands for one character of that text.
    """

    length: int
    given: int | None = None
    start: int = 0
    generated: bool = False
    escaped: bool = False

    @property
    def end(self) -> int:
        """Where it ends in the given text."""
        return self.start + (1 if self.escaped else self.length)


class Traced(str):
    """A string with the origin of its characters; methods give what those of `str` give, traced.

    Args:
        text: The string.
        parts: Its origin. None: of nobody knows which given text.
    """

    _parts: tuple[Part, ...]
    looks: ClassVar[int] = 0  # how often somebody has gone by what such a string says

    def __new__(cls, text: str, parts: Iterable[Part] | None = None) -> Self:
        """A string of the same characters."""
        self = super().__new__(cls, str.__str__(text))
        self._parts = (Part(len(text), UNKNOWN),) if parts is None else tuple(parts)
        return self

    def __str__(self) -> "Traced":
        return self

    def __add__(self, other: str) -> "Traced":
        return concat((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> "Traced":
        return concat((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, count: Any) -> "Traced":
        return Traced(str.__mul__(self, count), self._parts * max(count, 0))

    __rmul__ = __mul__

    def __iter__(self) -> Iterator["Traced"]:
        return (self[place] for place in range(len(self)))

    def __hash__(self) -> int:
        Traced.looks += 1
        return str.__hash__(self)

    def __getitem__(self, key: Any) -> "Traced":
        Traced.looks += 1
        if isinstance(key, slice):
            places = range(*key.indices(len(self)))
            if places.step == 1:
                return self._cut(places.start, max(places.stop, places.start))
            return concat([self._cut(place, place + 1) for place in places], traced=True)
        place = range(len(self))[key]
        return self._cut(place, place + 1)

    def _cut(self, start: int, stop: int) -> "Traced":
        parts, place = [], 0
        for part in self._parts:
            first, last = max(start - place, 0), min(stop - place, part.length)
            if first < last:
                parts.append(part._replace(length=last - first, start=part.start + first))
            place += part.length
        return Traced(str.__getitem__(self, slice(start, stop)), parts)

    def _located(self, pieces: Iterable[str], gap: int = 0) -> list["Traced"]:
        """Pieces of the text, which come in order, `gap` characters or white space apart."""
        found, place = [], 0
        for piece in pieces:
            start = str.find(self, piece, place)
            found.append(self._cut(start, start + len(piece)))
            place = start + len(piece) + gap
        return found

    def lstrip(self, chars: str | None = None) -> "Traced":
        return self._cut(len(self) - len(str.lstrip(self, chars)), len(self))

    def rstrip(self, chars: str | None = None) -> "Traced":
        return self._cut(0, len(str.rstrip(self, chars)))

    def strip(self, chars: str | None = None) -> "Traced":
        return self.lstrip(chars).rstrip(chars)

    def removeprefix(self, prefix: str) -> "Traced":
        return self._cut(len(self) - len(str.removeprefix(self, prefix)), len(self))

    def removesuffix(self, suffix: str) -> "Traced":
        return self._cut(0, len(str.removesuffix(self, suffix)))

    def split(self, sep: str | None = None, maxsplit: int = -1) -> list["Traced"]:  # type: ignore[override]
        return self._located(str.split(self, sep, maxsplit), len(sep or ""))

    def rsplit(self, sep: str | None = None, maxsplit: int = -1) -> list["Traced"]:  # type: ignore[override]
        return self._located(str.rsplit(self, sep, maxsplit), len(sep or ""))

    def splitlines(self, keepends: bool = False) -> list["Traced"]:  # type: ignore[override]
        return self._located(str.splitlines(self, keepends))

    def partition(self, sep: str) -> tuple["Traced", ...]:  # type: ignore[override]
        return tuple(self._located(str.partition(self, sep)))

    def rpartition(self, sep: str) -> tuple["Traced", ...]:  # type: ignore[override]
        return tuple(self._located(str.rpartition(self, sep)))

    def replace(self, old: str, new: str, count: Any = -1) -> "Traced":
        if not old:
            return unclear(str.replace(self, old, new, count), (self, new))
        return lifted(new).join(self.split(old, count))

    def join(self, items: Iterable[str]) -> "Traced":
        texts = list(items)
        str.join(self, texts)  # refuses what is no text
        return concat([text for item in texts for text in (self, item)][1:], traced=True)

    def _in_case(self, text: str) -> "Traced":
        return Traced(text, self._parts) if len(text) == len(self) else unclear(text, self)

    def lower(self) -> "Traced":
        return self._in_case(str.lower(self))

    def upper(self) -> "Traced":
        return self._in_case(str.upper(self))

    def title(self) -> "Traced":
        return self._in_case(str.title(self))

    def capitalize(self) -> "Traced":
        return self._in_case(str.capitalize(self))


OWN_METHODS = frozenset(name for name in vars(Traced) if not name.startswith("_"))


def lifted(text: str) -> Traced:
    """A text of the template, unless it is traced already."""
    return text if isinstance(text, Traced) else Traced(text, (Part(len(text)),) if text else ())


def concat(texts: Iterable[str], traced: bool = False) -> Any:
    """Texts in a row; traced if one of them is, or if that is asked for."""
    texts = list(texts)
    whole = "".join(texts)
    if not traced and Traced not in map(type, texts):
        return whole
    parts: list[Part] = []
    own = 0  # characters of the template since the last part
    for text in texts:
        if not isinstance(text, Traced):
            own += len(text)
            continue
        if own:
            parts.append(Part(own))
            own = 0
        parts.extend(text._parts)
    return Traced(whole, [*parts, Part(own)] if own else parts)


def generated(text: str) -> Traced:
    """A text that stands in a {% generation %} block."""
    return Traced(text, [part._replace(generated=True) for part in lifted(text)._parts])


def parts_in(value: Any) -> Iterator[Part]:
    """The parts of given texts in a value, at any depth."""
    if isinstance(value, Traced):
        yield from (part for part in value._parts if part.given is not None)
    elif isinstance(value, dict):
        for item in value.items():
            yield from parts_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from parts_in(item)


def is_given(value: Any) -> bool:
    """Whether a value holds characters of a given text."""
    return next(parts_in(value), None) is not None


def unclear(text: str, value: Any) -> Traced:
    """A text that was made of a value in a way that cannot be followed: all of it counts as given."""
    part = next(parts_in(value), Part(0))
    return Traced(text, (part._replace(length=len(text)),) if text else ())


def plain(text: str) -> str:
    """The characters alone."""
    return str.__getitem__(text, slice(None))
