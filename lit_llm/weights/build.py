"""A backbone from its settings: plain values, in the form that configs, checkpoints and pretrained families share."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pkgutil import resolve_name
from typing import Any, Protocol

import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from torch import Tensor, nn

from lit_llm.backbone import GPT
from lit_llm.backbone.lora import adapter_names
from lit_llm.sentences import sentence
from lit_llm.usage import reason


class Made(Protocol):
    """How one tensor of a backbone is made of tensors under other names (`families.Entry`)."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def theirs(self) -> tuple[str, ...]:
        """Names of those."""

    def join(self, theirs: list[Tensor]) -> Tensor:
        """The tensor, from those."""


def build(settings: dict[str, Any], device: str | torch.device = "cpu") -> GPT:
    """A backbone in eval mode.

    Args:
        settings: `{"class_path": "lit_llm.GPT", "init_args": {...}}`, parts being said in the same way.
        device: Where its parameters are made; on `meta` they cost nothing and are filled by `fill`.

    Raises:
        ValueError: If the settings name what cannot be built here.
    """
    with _refusal(settings), torch.device(device):
        backbone: GPT = _parser().instantiate(_parsed(settings)).backbone
    backbone.recorded = settings  # jsonargparse gives it functions that make its parts, which have no names
    return backbone.eval()


def complete(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with all that they leave to defaults, so that nothing said before can shine through.

    Args:
        settings: As in `build`.

    Raises:
        ValueError: If they name what cannot be built here.
    """
    with _refusal(settings):
        whole = _parser().dump(_parsed(settings), skip_unset=False, format="json")
    found: dict[str, Any] = json.loads(whole)["backbone"]
    return found


def _parsed(settings: dict[str, Any]) -> Namespace:
    """The settings, checked; every class that they name is a part of a network: a function could do anything."""
    parsed = _parser().parse_object({"backbone": settings})
    for name in _class_paths(parsed):
        cls = resolve_name(name)
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise ValueError(f"'{name}' is no part of a network (a class of torch.nn.Module)")
    return parsed


def _class_paths(content: Any) -> Iterator[str]:
    if isinstance(content, Namespace):
        content = vars(content)
    if isinstance(content, dict):
        if isinstance(name := content.get("class_path"), str):
            yield name
        content = list(content.values())
    if isinstance(content, list):
        for part in content:
            yield from _class_paths(part)


@contextmanager
def _refusal(settings: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except (ArgumentError, ValueError) as error:
        cause = reason(error)  # what a part has refused, beneath what jsonargparse says of it
        own = type(cause) is ValueError and "\n" not in str(cause)
        said = str(cause) if own else sentence(str(error))
        raise ValueError(f"a backbone '{settings.get('class_path')}' cannot be built here: {said}") from error


@cache
def _parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(GPT, "backbone", required=True)
    return parser


def fill(
    backbone: nn.Module, read: Callable[[str], Tensor], entries: Iterable[Made], dtype: torch.dtype | None = None
) -> None:
    """Give a backbone from the meta device its tensors, one after the other, in memory of their own.

    Args:
        backbone: What is filled; what no entry names stays on the meta device.
        read: The tensor that a name stands for.
        entries: How its tensors are made (`Family.entries`).
        dtype: Of the parameters. None: as they are read.

    Raises:
        ValueError: If a tensor has another shape than the backbone's.
    """
    for entry in entries:
        owner, _, name = entry.name.rpartition(".")
        module = backbone.get_submodule(owner)
        empty = getattr(module, name)
        value = entry.join([read(their) for their in entry.theirs])
        if value.shape != empty.shape:
            raise ValueError(
                f"{' and '.join(entry.theirs[:3])} make a {entry.name} of {tuple(value.shape)}, where the config asks "
                f"for {tuple(empty.shape)}"
            )
        is_parameter = isinstance(empty, nn.Parameter)
        kind = dtype or value.dtype if is_parameter else empty.dtype
        own = torch.empty(value.shape, dtype=kind).copy_(value)  # the file may be replaced meanwhile
        setattr(module, name, nn.Parameter(own, empty.requires_grad) if is_parameter else own)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """What of a module is saved: parameters, a tied one once, and those buffers that are not made anew; no adapter."""
    saved, adapters = module.state_dict().keys(), adapter_names(module)
    buffers = {name: own for name, own in module.named_buffers() if name in saved}
    return {name: own for name, own in module.named_parameters() if name not in adapters} | buffers
