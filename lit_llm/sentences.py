"""The long messages of jsonargparse in one sentence each: what is wrong, in which option, and the nearest right one."""

import difflib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any


def sentence(message: str, options: Iterable[str] = ()) -> str:
    """The innermost cause in a message of jsonargparse, the option it is about, and the nearest right one.

    Args:
        message: What jsonargparse says.
        options: All option strings of the parser.
    """
    for pattern, tell in CAUSES.items():
        if found := re.search(pattern, message):
            with suppress(Exception):  # a message of a form unknown so far had better be shown as it is
                return _in_words(tell(message, found, list(options)))
    text = _in_words(" ".join(message.split()))
    return text if len(text) <= 300 else f"{text[:300]} … (LIT_LLM_DEBUG=1 shows all)"


def _in_words(text: str) -> str:
    """A text without what the library calls its own objects: values as they were typed, types by their last name."""
    for pattern, words in INNER.items():
        text = re.sub(pattern, words, text)
    return text


def _missing(message: str, found: re.Match, options: list[str]) -> str:
    names = [
        re.sub(r"^(fit|validate|test|predict)\.", "", name.strip())
        for name in found[1].split(". Got value")[0].split(",")
    ]
    by_file = ", in a file by --config or by themselves" if "--config" in options else ""
    return f"{' and '.join(f'--{_path(message, found)}{name}' for name in names)} must be given{by_file}"


def _unknown(message: str, found: re.Match, options: list[str]) -> str:
    """An option that no parser and no class has."""
    wrong = found[1].split("=")[0]
    path, owner = _path(message, found), _owner(message, found)
    if owner is None:
        near = _nearest_option(wrong, options)
        return f"there is no option '{path}{wrong}'" + (f"; did you mean '{near}'?" if near else "; see --help")
    *groups, name = wrong.lstrip("-").split(".")
    for group in groups:
        path, owner = f"{path}{group}.", _field(owner, group)
    right = _parameters(owner)
    near = _nearest(name, right)
    hint = f"did you mean '{path}{near}'?" if near else f"'{path.rstrip('.')}' has {', '.join(right) or 'none'}"
    return f"there is no option '{path}{name}'; {hint}"


def _no_class(message: str, found: re.Match, options: list[str]) -> str:
    module, name = found[1], found[2]
    near = _nearest(name, dir(import_module(module)))
    return f"there is no class '{module}.{name}'" + (f"; did you mean '{module}.{near}'?" if near else "")


def _no_module(message: str, found: re.Match, options: list[str]) -> str:
    got = re.match(r"\. Got value: (?:Namespace\(class_path=')?([\w.]+)", message[found.end() :])
    named = [got[1]] if got else re.findall(r"given class_path '([^']+)'", message[: found.start()])
    value = f" is '{named[-1]}', which" if named else ""
    return f"'{_key(message, found)}'{value} is neither a file nor a class that can be imported: {found[0]}"


def _wrong_class(message: str, found: re.Match, options: list[str]) -> str:
    named = re.search(r"path (?:but )?(\S+) (?:either|does not)", message)
    value = f", which '{named[1]}' is not" if named else ""
    return f"'{_key(message, found)}' must be a subclass of {found[1]}{value}"


def _no_file_or_class(message: str, found: re.Match, options: list[str]) -> str:
    value = found[1]
    near = _nearest(value, dict(_classes()))
    hint = f"; did you mean '{near}'?" if near else ""
    return f"'{_key(message, found)}' is '{value}', which is neither a file nor a class that can be imported{hint}"


def _wrong_type(message: str, found: re.Match, options: list[str]) -> str:
    kinds = re.findall(r"Expected a (?:<class '([\w.]+)'>|typing\.Literal\[(.*)\])", message[found.start() :])
    wanted = dict.fromkeys(literal or kind.rpartition(".")[2] for kind, literal in kinds)
    names = [name for name in wanted if name != "NoneType"] or ["null"]
    several = "one of " if any("," in name for name in names) else ""
    if names == ["null"]:  # the last of several forms, of which the others say nothing
        return f"'{_key(message, found)}' cannot be '{_value(message[found.start() :])}'"
    wanted_text = several + (", " if several else " or ").join(names)
    if "list[" in (types := re.findall(r"Subtypes: \[(.*)\]", message[: found.start()])[-1:] or [""])[0]:
        wanted_text = f"{wanted_text}, a list" + (" or a mapping" if "dict[" in types[0] else "")
    value = _value(message[found.start() :])
    return f"'{_key(message, found)}' must be {wanted_text}, not '{value}'{_meaning(message, found, value)}"


def _meaning(message: str, found: re.Match, value: str) -> str:
    """The help of an argument that was given parts which it does not have: which values it takes."""
    if not value.startswith("NestedArg"):
        return ""
    name = _key(message, found).rpartition(".")[2]
    for cls in getattr(_owner_of_key(message, found), "__mro__", ()):
        if told := re.search(rf"^\s+{name}: (.*?)(?:\.\s|\Z)", inspect.getdoc(cls) or "", re.DOTALL | re.MULTILINE):
            return f" ({' '.join(told[1].split())})"
    return ""


def _owner_of_key(message: str, found: re.Match) -> Any:
    """The class whose argument the innermost key of a message is."""
    classes = re.findall(r"given class_path '([\w.]+)'", message[: found.start()])
    return _imported(classes[-1]) if classes else None


def _not_a_subclass(message: str, found: re.Match, options: list[str]) -> str:
    return f"'{_key(message, found)}' must be a subclass of {found[1]}, not '{found[2][:80]}'"


def _wrong_length(message: str, found: re.Match, options: list[str]) -> str:
    return f"'{_key(message, found)}' must be a list of {found[1]} values, not '{found[2]}'"


# The first that matches tells what is wrong: causes before the consequences that jsonargparse lists beside them.
CAUSES: dict[str, Callable[[str, re.Match, list[str]], str]] = {
    r"unrecognized arguments: (\S+)": _unknown,
    r"(?:does not accept option|[Oo]ption) '([^']+)'(?: is not accepted)?": _unknown,
    r"arguments are required: (.+)": _missing,
    r"module '([\w.]+)' has no attribute '(\w+)'": _no_class,
    r"No module named '[^']+'": _no_module,
    r"does not correspond to a subclass of (\w+)": _wrong_class,
    r"Unable to load config ['\"](.+?)['\"]": lambda message, found, options: (
        f"'{_key(message, found)}' is '{found[1]}', which is no config file that can be read"
    ),
    r"Expected a tuple with (\d+) elements\. Got value: (\[.*?\]|\(.*?\))": _wrong_length,
    r"Expected a <class '(?:int|float|str)'>": _wrong_type,
    r"Not a valid subclass of (\w+)\. Got value: (.+)": _not_a_subclass,
    r"Expected a path but (\S+) either": _no_file_or_class,
    r"Expected a (?:<class|typing\.Literal)": _wrong_type,
}
INNER = {
    r"NestedArg\(key='([^']*)', val='?(.*?)'?\)": r"\1: \2",
    r"Namespace\(class_path='([^']*)'.*\)": r"\1",
    r"Namespace\((.*)\)": r"\1",
    r"Namespace\(class_path='([^']*)'.*": r"\1",  # cut short
    r"<class '(?:\w+\.)*(\w+)'>": r"\1",
    r"<class '(\w*)": r"\1",
    r"\b(?:typing|collections\.abc|jsonargparse\.\w+)\.": "",
    r"\bOptional\[([^\[\]]*)\]": r"\1 or null",
    r"\bUnion\[([^\[\]]*)\]": r"one of \1",
    r"\bNoneType\b": "null",
}
KEY = r"(?:[Kk]ey|Group) [\"']([^\"']+)[\"']"


def _path(message: str, found: re.Match) -> str:
    """The option that a place in a nested message is about, with a dot at its end."""
    return "".join(f"{key}." for key in re.findall(KEY, message[: found.start()]))


def _key(message: str, found: re.Match) -> str:
    return _path(message, found).rstrip(".")


def _value(message: str) -> str:
    found = re.search(r"(?:Given|Got) value: (.{,80})", message)
    return found[1].partition(". Got value")[0] if found else "?"


def _owner(message: str, found: re.Match) -> Any:
    """The class that has no such option; None if the message is about the parser's own."""
    before, after = message[: found.start()], message[found.start() :].split("\n")[0]
    if factory := re.search(r"class_path='([\w.]+)'", after):
        return _imported(factory[1])
    classes = list(re.finditer(r"given class_path '([\w.]+)'", before))
    if not classes:
        return None
    owner = _imported(classes[-1][1])
    for group in re.findall(KEY, before[classes[-1].end() :]):
        owner = _field(owner, group)
    return owner


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def _field(cls: Any, name: str) -> Any:
    """The dataclass behind an argument of a class: its fields are options as well."""
    return getattr(inspect.signature(cls).parameters.get(name), "annotation", object)


def _parameters(cls: Any) -> list[str]:
    """Arguments of a class, and of its base if it hands on what it does not know."""
    names: dict[str, None] = {}
    for base in getattr(cls, "__mro__", ()):
        own: list[inspect.Parameter] = []
        with suppress(ValueError, TypeError):  # some built-in classes have no signature
            own = list(inspect.signature(base).parameters.values())
        names |= dict.fromkeys(p.name for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
        if not any(p.kind == p.VAR_KEYWORD for p in own):
            break
    return list(names)


def _classes() -> Iterator[tuple[str, type]]:
    """Names by which a config can call the classes imported so far."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("lit_llm.", "torch.optim", "lightning.pytorch.callbacks")):
            yield from ((key, value) for key, value in vars(module).items() if inspect.isclass(value))


def _nearest(wrong: str, right: Iterable[str]) -> str | None:
    right = list(right)
    longer = [name for name in right if name.startswith(wrong)]  # an abbreviation
    return min(longer, key=len) if longer else next(iter(difflib.get_close_matches(wrong, right, n=1)), None)


def _nearest_option(wrong: str, options: Iterable[str]) -> str | None:
    """The option meant by a dotted name: only its first wrong part is replaced."""
    dashes = "--" if wrong.startswith("-") else ""
    parts = wrong.lstrip("-").split(".")
    known = [option.lstrip("-").split(".") for option in options]
    for place, part in enumerate(parts):
        siblings = [name[place] for name in known if len(name) > place and name[:place] == parts[:place]]
        if part in siblings:
            continue
        near = _nearest(part, siblings)
        deeper = [name for name in known if place == 0 and name[-1] == part]  # only its beginning was left out
        start = [*parts[:place], near] if near else deeper[0] if deeper else None
        return dashes + ".".join([*start, *parts[place + 1 :]]) if start else None
    return None
