"""--model.init_from on the command line: what the source says of architecture and tokenizer, among the options."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from lit_llm.config_files import SUFFIXES
from lit_llm.data.base import TextDataModule
from lit_llm.data.new_tokens import with_new_tokens
from lit_llm.data.tokenizer import Tokenizer, from_state
from lit_llm.modules.base import BaseModule
from lit_llm.weights.build import complete
from lit_llm.weights.open import open_source

TOKENIZER = "lit_llm.data.pretrained.tokenizer_of_source"
FROM_SOURCE = ("model.backbone", "data.tokenizer")  # what it says
# For a first look at the options: where --ckpt_path lies is to be known before the architecture is.
PLACEHOLDER = ({"class_path": "lit_llm.GPT", "init_args": {"vocab_size": 1, "block_size": 1}}, {"class_path": "Bytes"})


@dataclass(frozen=True)
class InitFrom:
    """What the arguments say of the weights to start from.

    Args:
        source: Its name.
        place: Where in the arguments its settings belong; what stands later wins.
        open_options: Those that the file which names the source leaves to it.
    """

    source: str
    place: int
    open_options: tuple[str, ...] = FROM_SOURCE

    def among(self, args: Sequence[str], source: str) -> list[str]:
        """The arguments, and in their place the settings of a source.

        Args:
            args: All arguments.
            source: The source itself, or a checkpoint of a run that was started from it.
        """
        opened = open_source(source)
        tokenizer = {"class_path": TOKENIZER, "init_args": {"source": self.source}} if opened.has_tokenizer else None
        return self._insert(args, complete(opened.settings), tokenizer)

    def without(self, args: Sequence[str]) -> list[str]:
        """The arguments with placeholders instead of a source and of all that is said about its parts."""
        left_out = (*(f"--{name}" for name in FROM_SOURCE), "--print_config")
        kept: list[str] = []
        is_value = False
        for number, argument in enumerate(args):
            name, equals, _ = argument.partition("=")
            if is_value or any(name == out or name.startswith(f"{out}.") for out in left_out):
                is_value = not is_value and not equals and name != "--print_config"
                kept += [""] if number < self.place else []  # the place stays where it is
            else:
                kept.append(argument)
        return [argument for argument in self._insert(kept, *PLACEHOLDER) if argument]

    def _insert(self, args: Sequence[str], backbone: Any, tokenizer: Any) -> list[str]:
        values = {"model.backbone": backbone, "data.tokenizer": tokenizer}
        said = [f"--{name}={json.dumps(values[name])}" for name in self.open_options if values[name] is not None]
        return [*args[: self.place], *said, *args[self.place :]]


def find(args: Sequence[str]) -> InitFrom | None:
    """What the arguments say last of --model.init_from, in an option or in a config file.

    The settings of the source stand before what is said later: right after the file that names it, and for an option
    right after the last file. What the file that names it says of the backbone or the tokenizer itself, it keeps: so
    the config.yaml of a run gives the same run.
    """
    found: tuple[str | None, int | None, tuple[str, ...]] = (None, None, ())
    last = 1
    for option, value, after in _options(args):
        if option in ("-c", "--config"):
            last = after
            groups = {group: _group(Path(value), group) for group in ("model", "data")}
            if "init_from" in groups["model"]:
                left = tuple(
                    name for name in FROM_SOURCE if name.partition(".")[2] not in groups[name.partition(".")[0]]
                )
                found = (groups["model"]["init_from"], after, left)
        elif option in ("--model", "--data"):
            last = after
        elif option in ("--model.init_from", "--model.init_args.init_from"):
            found = (yaml.safe_load(value), None, FROM_SOURCE)
    source, place, left = found
    return None if source is None else InitFrom(str(source), last if place is None else place, left)


def names_checkpoint(args: Sequence[str]) -> bool:
    """Whether the arguments say --ckpt_path."""
    return any(option == "--ckpt_path" for option, _, _ in _options(args))


def _options(args: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """Options with their values, and the number of the argument after them."""
    for number, (argument, following) in enumerate(pairwise([*args, ""])):
        option, equals, value = argument.partition("=")
        if option.startswith("-"):
            yield option, value if equals else following, number + (1 if equals else 2)


def _group(file: Path, name: str) -> dict[str, Any]:
    """What a config file says of the model or of the data, by itself or by a file that it names."""
    content = yaml.safe_load(file.read_text(encoding="utf-8")).get(name)
    if isinstance(content, str) and content.endswith(SUFFIXES) and (file.parent / content).is_file():
        content = yaml.safe_load((file.parent / content).read_text(encoding="utf-8"))
    return {**content, **(content.get("init_args") or {})} if isinstance(content, dict) else {}


@contextmanager
def tokenizer_of_checkpoint(config: Any, checkpoint: dict[str, Any]) -> Iterator[None]:
    """While the classes are built: the tokenizer of a run that goes on, instead of that of a source that may be gone.

    Args:
        config: That of the command.
        checkpoint: The one to go on with; empty if there is none.
    """
    settings, state = config.data.init_args, checkpoint.get("tokenizer")
    said = settings.get("tokenizer")
    source = config.model.init_args.get("init_from")
    if state and said and said.class_path == TOKENIZER and said.init_args.source == source:
        settings.tokenizer = from_state(state)
    try:
        yield
    finally:
        settings.tokenizer = said


def make_room(config: Any) -> None:
    """Let the backbone of a source have rows for the tokens that its tokenizer is to be given (--data.new_tokens).

    Args:
        config: That of the command. Its backbone's vocab_size becomes as large as it has to be.

    Raises:
        ValueError: If the tokens cannot be added.
    """
    settings = config.data.init_args
    names, said = settings.get("new_tokens"), settings.get("tokenizer")
    if not names or said is None:
        return
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--tokenizer", type=Tokenizer)
    tokenizer = parser.instantiate_classes(Namespace(tokenizer=said)).tokenizer
    sizes = config.model.init_args.backbone.init_args
    if tokenizer.is_fitted:
        sizes.vocab_size = max(sizes.vocab_size, with_new_tokens(tokenizer, names)[0].vocab_size)


def refuse_misfits(model: BaseModule, data: TextDataModule) -> None:
    """Refuse, before any text is read, data that a pretrained backbone cannot read.

    Raises:
        ValueError: If it is longer than the backbone's, has more ids, or ids that are yet to be learned.
    """
    if not data.has_fitted_tokenizer:
        raise ValueError(
            f"--model.init_from {model.init_from} needs the tokenizer of these weights, and the config's would be "
            "learned from the text: name the one by --data.tokenizer"
        )
    model.refuse_sizes(data.expected_vocab_size, data.block_size)
