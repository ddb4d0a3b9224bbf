"""Functions of texts that know nothing of where text comes from, with results that do."""

import json
import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from lit_llm.data.traced import Part, Traced, concat, is_given, plain, unclear

FIRST_MASK = 0x100000  # private characters, which stand for the parts of given texts in a second computation
JSON_KEYS = re.compile(r"\\u0000(\d+)\\u0000")


def written(value: Any) -> str:
    """A value as a template writes it."""
    text = str(value)
    return unclear(text, value) if not isinstance(value, str) and is_given(value) else text


def followed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with traced results where a text is made of traced ones."""

    @wraps(function)
    def follows(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return follow(function, args, kwargs) if isinstance(result, str) and is_given([args, kwargs]) else result

    return follows


def method(name: str) -> Callable[..., Any]:
    """A method of texts, as a function."""
    return lambda text, *args, **kwargs: getattr(str, name)(text, *args, **kwargs)


def follow(function: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
    """The result of a function that does not know traced texts, traced.

    It is called once more with a private character for each given one. Where that makes the same text but for those,
    they tell where the given characters have gone.
    """
    given = (list(args), dict(kwargs))
    result = function(*_changed(args, plain), **_changed(kwargs, plain))
    if not isinstance(result, str):
        return result
    parts: list[Part] = []

    def mask(text: Traced) -> str:
        masked, place = [], 0
        for part in text._parts:
            piece = str.__getitem__(text, slice(place, place + part.length))
            masked.append(piece if part.given is None else chr(FIRST_MASK + len(parts)) * part.length)
            parts.extend([] if part.given is None else [part])
            place += part.length
        return "".join(masked)

    try:
        second = function(*_changed(args, mask), **_changed(kwargs, mask))
    except Exception:  # it goes by what the text says
        return unclear(result, given)
    if len(second) != len(result):
        return unclear(result, given)
    origin = [
        parts[at]._replace(length=1) if 0 <= (at := ord(c) - FIRST_MASK) < len(parts) else Part(1) for c in second
    ]
    if any(part.given is None and a != b for part, a, b in zip(origin, result, second, strict=True)):
        return unclear(result, given)
    return Traced(result, origin)


def _changed(value: Any, change: Callable[[Traced], str]) -> Any:
    """A value with its traced texts changed, at any depth."""
    if isinstance(value, Traced):
        return change(value)
    if isinstance(value, dict):
        return {_changed(key, change): _changed(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_changed(item, change) for item in value)
    return value


def to_json(value: Any, **how: Any) -> Any:
    """`json.dumps`, traced: texts are put in where it has written a number for each."""
    if not is_given(value):
        return json.dumps(value, **how)
    texts: list[str] = []

    def numbered(item: Any) -> Any:
        if isinstance(item, str):
            texts.append(item)
            return f"\0{len(texts) - 1}\0"
        if isinstance(item, dict):
            pairs = sorted(item.items()) if how.get("sort_keys") else item.items()
            return {numbered(key): numbered(inside) for key, inside in pairs}
        return [numbered(inside) for inside in item] if isinstance(item, list | tuple) else item

    pieces = JSON_KEYS.split(json.dumps(numbered(value), **{**how, "sort_keys": False}))
    escape = json.JSONEncoder(ensure_ascii=how.get("ensure_ascii", True)).encode
    return concat(_escaped(texts[int(piece)], escape) if at % 2 else piece for at, piece in enumerate(pieces))


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    """A text as it stands in JSON, without the quotation marks."""
    whole = escape(plain(text))[1:-1]
    if len(whole) == len(text) or not isinstance(text, Traced):
        return Traced(whole, text._parts) if isinstance(text, Traced) else whole
    made_of, place = [], 0
    for part in text._parts:
        for start in range(part.start, part.start + part.length):
            made = escape(str.__getitem__(text, place))[1:-1]
            made_of.append(Traced(made, (part._replace(length=len(made), start=start, escaped=len(made) > 1),)))
            place += 1
    return concat(made_of, traced=True)
