"""Wrong usage and wrong input, told in one sentence. Imports nothing heavy: every command starts here."""

import difflib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
import yaml

MAX_NODES = 100_000  # of a config with its aliases written out; a real one has a few hundred


class OneSentence:
    """Mixin for a jsonargparse parser: an error is one sentence on stderr, and exit code 2."""

    prog: str
    exit_on_error: bool

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Tell what was wrong and stop."""
        if not self.exit_on_error:  # a try inside another parser, which may have alternatives
            raise jsonargparse.ArgumentError(None, message) from ex
        fail(self.prog.replace(" [options]", ""), sentence(message, _options(self)), ex)


class Parser(OneSentence, jsonargparse.ArgumentParser):
    """The parser of the commands that train nothing."""


def fail(prog: str, message: str, error: BaseException | None = None) -> NoReturn:
    """Print one line and exit with code 2; with LIT_LLM_DEBUG=1, say where it was found."""
    if error is not None and os.environ.get("LIT_LLM_DEBUG"):
        traceback.print_exception(error)
    print(f"{prog}: error: {message}", file=sys.stderr)
    sys.exit(2)


def guarded(prog: str, command: Callable[[], int]) -> int:
    """Run a command; what this package refuses on purpose becomes one line.

    An error counts as refused on purpose if it is a ValueError raised by a line of this package. Anything else is a
    failure of the run, or a bug, and keeps its traceback (exit code 1).

    Args:
        prog: What to call the command in messages.
        command: Runs it and returns its exit code.

    Returns:
        The exit code.
    """
    try:
        code = command()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has left, as in `| head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:
        # Lightning turns an interrupt into exit code 1.
        if isinstance(stop.__context__, KeyboardInterrupt):
            return 130
        raise
    except ValueError as error:
        if not _raised_here(error):
            raise
        fail(prog, str(error), error)


def _raised_here(error: BaseException) -> bool:
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__", "").startswith("lit_llm.")


def sentence(message: str, options: Iterable[str] = ()) -> str:
    """The innermost cause in a message of jsonargparse, the option it is about, and the nearest right one."""
    if found := re.search(r"unrecognized arguments: (\S+)", message):
        option = found[1].split("=")[0]
        return f"there is no option '{option}'{_nearest(option, options)}"
    if found := re.search(r"[Oo]ption '([^']+)' is not accepted|not accept option '([^']+)'", message):
        wrong = found[1] or found[2]
        return (
            f"there is no option '{_path(message, found.start())}{wrong}'{_nearest(wrong, [*_arguments(), *options])}"
        )
    if found := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message):
        near = _nearest(found[2], dir(import_module(found[1])))
        return f"there is no class '{found[1]}.{found[2]}'{near}"
    found = re.search(r"Expected a path but (\S+) either|Expected a dot import path string: (\S+)", message)
    if found and "<class 'float'>" not in message and "<class 'int'>" not in message:
        key, value = _path(message, found.start()).rstrip("."), found[1] or found[2]
        return f"'{key}' is '{value}', which is neither a file nor a class that can be imported"
    if found := re.search(r"Expected a <class '(\w+)'>", message):
        kinds = dict.fromkeys(re.findall(r"Expected a <class '(\w+)'>", message[found.start() :]))
        value = re.search(r"(?:Given|Got) value: ([^{\n]*?)(?:\. Got value|\n|$)", message[found.start() :])
        key = _path(message, found.start()).rstrip(".")
        wanted = " or ".join(kind for kind in kinds if kind != "NoneType")
        return f"'{key}' must be of type {wanted}, not '{value[1] if value else '?'}'"
    return " ".join(message.split())


def _path(message: str, end: int) -> str:
    """The option that a place in a nested message is about, with a dot at its end."""
    return "".join(f"{key}." for key in re.findall(r"(?:[Kk]ey|Group) [\"']([^\"']+)[\"']", message[:end]))


def _nearest(wrong: str, right: Iterable[str]) -> str:
    near = difflib.get_close_matches(wrong, list(right), n=1)
    if not near and "." in wrong:  # of a dotted path, perhaps only the beginning is misspelt
        near = difflib.get_close_matches(wrong.split(".")[0], [name.split(".")[0] for name in right], n=1)
    return f"; did you mean '{near[0]}'?" if near else "; see --help"


def _options(parser: Any) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action.choices, dict):  # the parsers of subcommands
            for inner in action.choices.values():
                yield from _options(inner)


def _arguments() -> Iterator[str]:
    """Names of the arguments of every class that a config can have named so far."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("lit_llm.", "experiments.", "torch.optim", "lightning.pytorch.callbacks")):
            for cls in vars(module).values():
                if inspect.isclass(cls):
                    with suppress(ValueError, TypeError):  # some built-in classes have no signature
                        yield from inspect.signature(cls).parameters


def check_config(path: Path) -> None:
    """Refuse a config file that would be misread, with the name of the file; files that it refers to as well.

    Raises:
        ValueError: If it cannot be read, is no YAML mapping, has a key twice, or is blown up by aliases.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise ValueError(f"cannot read the config file '{path}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"the config file '{path}' is no text in UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise ValueError(f"the config file '{path}' is no YAML:{place}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"the config file '{path}' is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"the config file '{path}' is {'empty' if root is None else 'no mapping of keys to values'}")
    if _size(root, {}) > MAX_NODES:
        raise ValueError(f"the config file '{path}' grows beyond {MAX_NODES:,} values through its aliases")
    for name in _check_nodes(root, path, set()):
        if name.endswith((".yaml", ".yml")) and (path.parent / name).is_file():
            check_config(path.parent / name)


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Values under a node, an aliased one counted each time; more than allowed if it contains itself."""
    if id(node) not in sizes:
        sizes[id(node)] = MAX_NODES + 1  # stands until the real size is known: an alias to an ancestor meets it
        sizes[id(node)] = 1 + sum(_size(child, sizes) for child in _children(node))
    return sizes[id(node)]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _check_nodes(node: yaml.Node, path: Path, seen: set[int]) -> Iterator[str]:
    """All scalars below a node, each once; a key that stands twice in a mapping is an error."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        yield node.value
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, _ in node.value:
            if key.value in keys:
                raise ValueError(
                    f"the config file '{path}' has the key '{key.value}' twice in one mapping, again in "
                    f"line {key.start_mark.line + 1}"
                )
            keys.add(str(key.value))
    for child in _children(node):
        yield from _check_nodes(child, path, seen)
