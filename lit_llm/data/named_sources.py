"""Sources as options name them: a path or a data set, how often it is read, and how it alone is read."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from lit_llm.data.rows import Access
from lit_llm.usage import home_path

Sources = str | dict[str, Any] | list[str | dict[str, Any]]
Reading = TypeVar("Reading", bound=Access)

HUB_SPLIT = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*):(.+)")


@dataclass(frozen=True)
class NamedSource:
    """A source that an option names.

    Args:
        path: A file, a folder, or the name of a data set.
        weight: How often each of its rows is read in an epoch.
        how: Fields of the reading that differ for this source.
        files: What is read for it. Empty: `path`.
    """

    path: str
    weight: float = 1.0
    how: dict[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The paths or names to read, in order."""
        return self.files or (self.path,)

    def reading(self, common: Reading) -> Reading:
        """How this source is read."""
        return replace(common, **self.how)

    def __str__(self) -> str:
        return f"{self.path}:{self.how['split']}" if "split" in self.how else self.path


def parse(option: str, value: Sources, reading: Access) -> list[NamedSource]:
    """The sources that an option names.

    Args:
        option: Name of the option, for messages.
        value: A path, `owner/name`, `owner/name:split`, a mapping with `path` and maybe `weight` and fields of the
            reading, or a list of these.
        reading: How sources are read; its fields are those that a mapping may set.

    Raises:
        ValueError: If it names nothing, names a source twice, or a mapping is not as it must be.
    """
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ValueError(f"--data.{option} must name at least one source, got []")
    named = [_named(option, each, reading) for each in values]
    names = list(map(str, named))
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"--data.{option} names '{twice[0]}' twice; give it a weight instead: {{path: …, weight: 2}}")
    return named


def _named(option: str, value: str | dict[str, Any], reading: Access) -> NamedSource:
    if isinstance(value, str):
        found = HUB_SPLIT.fullmatch(value)
        if found and not home_path(value).exists():
            return NamedSource(found[1], how={"split": found[2]})
        return NamedSource(value)
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        raise ValueError(f"--data.{option} must be a path, a mapping with 'path', or a list of these, got {value}")
    known = {each.name for each in fields(reading)}
    how = {name: of for name, of in value.items() if name not in ("path", "weight")}
    if strange := [name for name in how if name not in known]:
        raise ValueError(
            f"--data.{option} must have path, weight, or a field of --data.reading ({', '.join(sorted(known))}) in the "
            f"mapping of '{value['path']}', got '{strange[0]}'"
        )
    named = _named(option, value["path"], reading)
    weight = value.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise ValueError(f"--data.{option} must have a positive number as the weight of '{named}', got {weight}")
    return replace(named, weight=float(weight), how={**named.how, **how})


def listed(named: Sequence[NamedSource]) -> str:
    """Their names, the first three of them."""
    rest = [f"{len(named) - 3} more"] if len(named) > 3 else []
    return ", ".join([*map(str, named[:3]), *rest])
