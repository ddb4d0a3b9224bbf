"""What the user names as a source: found, and understood."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_llm.backbone import GPT
from lit_llm.usage import home_path
from lit_llm.weights.adapters import SETTINGS as ADAPTER
from lit_llm.weights.adapters import StoredAdapter
from lit_llm.weights.build import tensors_of
from lit_llm.weights.checkpoint import checkpoint_source, open_checkpoint
from lit_llm.weights.classes import HEAD, THRESHOLD, classes_of, is_language_model
from lit_llm.weights.families import Entry, family_of
from lit_llm.weights.families.names import Same
from lit_llm.weights.hub import is_hub_name, snapshot
from lit_llm.weights.json_file import read_json
from lit_llm.weights.lit_folder import SETTINGS, read_lit_folder
from lit_llm.weights.matching import HEADS, Stored
from lit_llm.weights.source import Source
from lit_llm.weights.tensor_files import PICKLES, TensorFiles, pickle_advice


def open_source(name: str | Path) -> Source:
    """What a model can start from; no weight is read yet.

    Args:
        name: A model of the Hugging Face hub (`owner/name`, `owner/name@revision`), a folder of one (config.json and
            safetensors files, or what `lit-llm export` wrote: `--format lit`, or an adapter, whose base is then
            opened, too), a checkpoint of ours, a run folder, or a folder of runs.

    Raises:
        ValueError: If there is none, its family is not known, or a file is missing, damaged, or one that is not opened
            for safety.
    """
    return open_with_checkpoint(name)[0]


def open_with_checkpoint(name: str | Path) -> tuple[Source, dict[str, Any]]:
    """A source, and all that a checkpoint of ours holds beside the weights; nothing for others.

    Args:
        name: As in `open_source`.

    Raises:
        ValueError: As in `open_source`.
    """
    path = find_folder(name)
    if (path / ADAPTER).exists():
        return _adapter(path), {}
    if (path / "config.json").exists():
        return _huggingface(str(name), path), {}
    if (path / SETTINGS).exists():
        return _own_layout(str(name), path), {}
    file, checkpoint = open_checkpoint(path)
    return checkpoint_source(file, checkpoint), checkpoint


def is_model_folder(path: Path) -> bool:
    """Whether a folder is itself a model or an adapter, not a run or a folder of runs."""
    return any((path / name).exists() for name in (ADAPTER, "config.json", SETTINGS))


def find_folder(name: str | Path, with_weights: bool = True) -> Path:
    """The folder or file of a source, fetched from the hub if it is nowhere here.

    Args:
        name: As in `open_source`.
        with_weights: Whether more than its settings and its tokenizer is fetched.

    Raises:
        ValueError: If there is none, or it is of a kind that is not opened.
    """
    path = home_path(name)
    try:
        if path.is_dir():
            next(path.iterdir(), None)  # which tells whether it may be read
            return path
        if path.is_file():
            return _single(path)
        is_there = path.exists()
    except OSError as error:
        raise ValueError(f"cannot read '{name}': {error.strerror}") from error
    if is_there:
        raise ValueError(f"'{name}' is no folder and no file")
    if is_hub_name(str(name)):
        return snapshot(str(name), with_weights)
    raise ValueError(
        f"there is no checkpoint, run folder or folder of a model '{name}' (a model of the hub is named owner/name)"
    )


def _single(path: Path) -> Path:
    if path.suffix in PICKLES:
        raise ValueError(f"'{path}' is not read: {pickle_advice(path.name)}")
    if path.suffix in (".safetensors", ".json"):
        raise ValueError(f"'{path}' is a part of a model; name its folder")
    return path


def _adapter(folder: Path) -> Source:
    stored = StoredAdapter.read(folder)
    try:
        base = open_source(stored.base)
    except ValueError as error:
        raise ValueError(
            f"the base of the adapter '{folder}' is missing: {error}; say in its {ADAPTER} where it is"
        ) from error
    return stored.source(base)


def _own_layout(name: str, folder: Path) -> Source:
    settings, tokenizer = read_lit_folder(folder)
    files = TensorFiles(folder)

    def entries(module: nn.Module) -> list[Entry]:
        return [Entry(own, (own,), Same()) for own in tensors_of(module)]

    return Source(name, settings, files.stored, files, entries, lambda tensor: False, tokenizer=tokenizer)


def _huggingface(name: str, folder: Path) -> Source:
    try:
        config = read_json(folder / "config.json")
        family = family_of(config)
        settings = family.settings(config)
    except ValueError as error:
        raise ValueError(f"'{name}' cannot be used: {error}") from error
    files = TensorFiles(folder)
    stored, threshold = dict(files.stored), config.get(THRESHOLD)
    writes, classes = is_language_model(config, stored), classes_of(config, stored)
    if isinstance(threshold, float):
        stored[THRESHOLD] = Stored((), torch.float32)

    def read(tensor: str) -> Tensor:
        return torch.tensor(threshold) if tensor == THRESHOLD else files(tensor)

    def of_backbone(backbone: GPT) -> list[Entry]:
        made = family.entries(backbone, stored.keys())
        return [one for one in made if writes or one.name not in HEAD or stored.keys() >= {*one.theirs}]

    def entries(module: nn.Module) -> list[Entry]:
        if isinstance(module, GPT):
            return of_backbone(module)
        assert classes is not None  # a module that takes its own output layer from here as well
        backbone = cast(GPT, module.backbone)
        own = {"head.weight": classes.head, "threshold": classes.threshold}
        return [
            *(replace(entry, name=f"backbone.{entry.name}") for entry in of_backbone(backbone)),
            *(Entry(name, (their,), Same()) for name, their in own.items() if their in stored),
        ]

    def is_harmless(tensor: str) -> bool:
        return family.ignores(tensor) or HEADS.search(tensor) is not None or tensor == THRESHOLD

    return Source(
        name,
        settings,
        stored,
        read,
        entries,
        is_harmless,
        folder,
        model_type=family.model_type,
        classes=classes,
        is_language_model=writes,
        max_length=_max_length(folder),
    )


def _max_length(folder: Path) -> float:
    """Tokens of a text at most, where the tokenizer's settings say it; without end where they do not."""
    path = folder / "tokenizer_config.json"
    said = read_json(path).get("model_max_length") if path.is_file() else None
    return said if isinstance(said, int | float) and said > 0 else math.inf
