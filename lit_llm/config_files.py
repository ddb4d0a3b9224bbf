"""Config files and environment variables before a parser sees them: which there are, and what cannot be trusted."""

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

MAX_NODES = 100_000  # of a config with its aliases written out; a real one has a few hundred
MAX_DEPTH = 100  # of its lists and mappings; a real one has about ten
SUFFIXES = (".yaml", ".yml")  # of parts; a .json that an option names may be a tokenizer of megabytes
SECRET_NAME = re.compile(
    r"(^|_)(api_?key|(access|private|secret)_key|passwd|password|passphrase|secret|credentials?|(api|access|auth|hf|hub|bearer)_token)$",
    re.IGNORECASE,
)
# As hubs and clouds begin theirs, or a user and a password in a URL.
SECRET_VALUE = re.compile(r"\b(hf_|sk-|ghp_|github_pat_|xox[bp]-|AKIA)[A-Za-z0-9_-]{16,}|://[^/\s:@]+:[^/\s@]+@")


def with_environment(args: list[str], environment: Mapping[str, str]) -> list[str]:
    """Arguments with the environment's among them: PL_FIT__TRAINER__MAX_STEPS=3 is `fit --trainer.max_steps=3`.

    What stands later wins: the environment has its place right after the last config file.

    Args:
        args: The command and its options.
        environment: Names and values of all variables.
    """
    prefix = f"PL_{args[0].upper()}__"
    mine = {name.removeprefix(prefix): value for name, value in sorted(environment.items()) if name.startswith(prefix)}
    files = [f"--config={mine.pop('CONFIG')}"] if "CONFIG" in mine else []
    options = [f"--{name.lower().replace('__', '.')}={value}" for name, value in mine.items()]
    place = 1
    for number, argument in enumerate(args):
        option, equals, _ = argument.partition("=")
        if option in ("-c", "--config"):
            place = number + (1 if equals else 2)
    return [args[0], *files, *args[1:place], *options, *args[place:]]


def named_files(args: list[str]) -> Iterator[tuple[Path, bool]]:
    """The config files that arguments name, and whether each is a part (--model.backbone x.yaml) of a whole one."""
    for option, value in pairwise([*args, ""]):
        option, equals, joined = option.partition("=")
        value = joined if equals else value
        is_whole = option in ("-c", "--config")
        if value and (is_whole or (value.endswith(SUFFIXES) and Path(value).is_file())):
            yield Path(value), not is_whole


def secret_name(values: Mapping[str, Any]) -> str | None:
    """The first option that by its name or its value holds a secret.

    Args:
        values: Values of a configuration by the dotted names of their options.
    """
    for name, value in values.items():
        if SECRET_VALUE.search(str(value)) or (isinstance(value, str) and SECRET_NAME.search(name.rpartition(".")[2])):
            return name
    return None


def check_config(path: Path, is_part: bool = False, within: tuple[Path, ...] = ()) -> None:
    """Refuse a config file that would be misread, with the name of the file; files that it refers to as well.

    Args:
        path: The file.
        is_part: Whether it may be a list, as that of the callbacks, and not only a mapping.
        within: The files that refer to it, the outermost first.

    Raises:
        ValueError: If it cannot be read, is no YAML mapping, has a key twice, is blown up by aliases, or names itself.
    """
    if path.resolve() in within:
        raise ValueError(f"the config file '{path}' refers to itself")
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=_ShallowLoader)
        size = _size(root, {}) if root else 0
    except OSError as error:
        raise ValueError(f"cannot read the config file '{path}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"the config file '{path}' is no text in UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" line {mark.line + 1} column {mark.column + 1}:" if mark else ""
        raise ValueError(f"the config file '{path}' is no YAML:{place} {error.problem}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"the config file '{path}' is no YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ValueError(f"the config file '{path}' is nested too deeply to be read") from error
    if not isinstance(root, yaml.MappingNode | yaml.SequenceNode if is_part else yaml.MappingNode):
        raise ValueError(f"the config file '{path}' is {'empty' if root is None else 'no mapping of keys to values'}")
    if size > MAX_NODES:
        raise ValueError(f"the config file '{path}' grows beyond {MAX_NODES:,} values through its aliases")
    for name in _check_nodes(root, path, set()):
        if name.endswith(SUFFIXES) and (path.parent / name).is_file():
            check_config(path.parent / name, True, (*within, path.resolve()))


class _ShallowLoader(yaml.SafeLoader):
    """Stops at the depth that no config has: what PyYAML spends on a value grows with the brackets that are open."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise RecursionError
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


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
    """All scalars below a node, each once; a key that is no word or stands twice, or a tag, is an error."""
    if id(node) in seen:
        return
    seen.add(id(node))
    line = f"the config file '{path}' line {node.start_mark.line + 1}"
    if node.tag not in yaml.SafeLoader.yaml_constructors:
        raise ValueError(f"{line} has the tag '{node.tag}'; only plain values are read")
    if isinstance(node, yaml.ScalarNode):
        yield node.value
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, _ in node.value:
            line = f"the config file '{path}' line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"{line} has a list or mapping as a key; a key is a word")
            if key.value in keys:
                raise ValueError(f"{line} has the key '{key.value}' a second time in one mapping")
            keys.add(key.value)
    for child in _children(node):
        yield from _check_nodes(child, path, seen)


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """What is set below a nested mapping, each value with the dotted name of its option; plain lists stay whole."""
    if isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, inner in value.items():
            own = key in ("init_args", "class_path")  # levels of the file that the command line leaves out
            yield from flat(inner, name if own else f"{name}.{key}" if name else str(key))
    elif value is not None:
        yield name, value
