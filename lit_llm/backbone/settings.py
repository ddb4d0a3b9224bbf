"""What a network was made of, as plain values in the form of a config: a checkpoint keeps them."""

import inspect
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from functools import partial, wraps
from pkgutil import resolve_name
from typing import Any

from torch import nn


class Recorded(nn.Module):
    """A module that remembers the arguments of its constructor; one of its own in a subclass as well."""

    recorded: dict[str, Any] | None  # as in `plain`; None: they cannot all be said in plain values

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _recording(cls.__init__)  # type: ignore[method-assign]


def _recording(init: Callable[..., None]) -> Callable[..., None]:
    @wraps(init)
    def recording(self: Recorded, *args: Any, **kwargs: Any) -> None:
        if "recorded" not in vars(self):  # else a subclass has said it
            self.recorded = _settings(self, init, args, kwargs)
        init(self, *args, **kwargs)

    return recording


def _settings(
    module: Recorded, init: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any] | None:
    try:
        bound = inspect.signature(init).bind(module, *args, **kwargs).arguments
        own = next(iter(inspect.signature(init).parameters))
        rest = bound.pop("kwargs", {})
        given = {name: value for name, value in {**bound, **rest}.items() if name != own}
        return {**plain(type(module)), "init_args": plain(given)}
    except (TypeError, ValueError):  # the constructor says better what is wrong with its arguments
        return None


def plain(value: Any) -> Any:
    """A value of plain data: classes and partials of them by their names, as a config names them.

    Args:
        value: An argument of a constructor.

    Raises:
        ValueError: If there are no plain values for it: a function, a class inside a function, another object.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {plain(key): plain(part) for key, part in value.items()}
    if isinstance(value, partial) and isinstance(value.func, type) and not value.args:
        return {**plain(value.func), "init_args": plain(value.keywords)}
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, type):
        path = f"{value.__module__}.{value.__qualname__}"
        try:
            is_found = "." not in value.__qualname__ and resolve_name(path) is value
        except (ImportError, AttributeError, ValueError):
            is_found = False
        if is_found:
            return {"class_path": path}
    if isinstance(value, Recorded) and value.recorded is not None:
        return value.recorded
    raise ValueError(f"{value!r:.60} has no name that another process could import")
