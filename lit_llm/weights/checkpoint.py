"""Our own checkpoints: finding them, reading them safely, and the backbone inside."""

import pickle
import sys
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_llm.backbone import GPT
from lit_llm.usage import home_path
from lit_llm.weights.adapters import is_adapter, merging_entries
from lit_llm.weights.build import tensors_of
from lit_llm.weights.families.names import Entry
from lit_llm.weights.matching import Stored
from lit_llm.weights.source import Classes, Source

PARTS = ("state_dict", "hyper_parameters")  # what every checkpoint is asked for; each a dict


def find_checkpoints(path: str | Path, names: tuple[str, ...] = ("best", "last")) -> list[Path]:
    """The checkpoint files behind a path: the file itself, or those below a run folder or a folder of runs.

    Args:
        path: A `.ckpt` file, a run folder (`logs/nano/version_3`) or a folder of runs (`logs/nano`).
        names: File names without suffix to take from a run, the preferred one first.

    Returns:
        At least one; those of the run that was written to last come first.

    Raises:
        ValueError: If there is none.
    """
    path = home_path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"there is no checkpoint or run folder '{path}'")
    found = [file for depth in ("", "*/") for name in names for file in path.glob(f"{depth}checkpoints/{name}.ckpt")]
    if not found:
        raise ValueError(f"the folder '{path}' holds no run with a checkpoint {' or '.join(names)}.ckpt")
    written: dict[Path, float] = {}
    for file in found:
        written[file.parent] = max(file.stat().st_mtime, written.get(file.parent, 0.0))
    return sorted(found, key=lambda file: (-written[file.parent], names.index(file.stem)))


def open_checkpoint(path: str | Path, names: tuple[str, ...] = ("best", "last")) -> tuple[Path, dict[str, Any]]:
    """The first of the checkpoints behind a path that is whole, and what it holds; damaged ones are told of.

    Args:
        path: A `.ckpt` file, a run folder or a folder of runs.
        names: File names without suffix to take from a run, the preferred one first.

    Raises:
        ValueError: If there is none, or none that is whole.
    """
    files = find_checkpoints(path, names)
    for number, file in enumerate(files, start=1):
        try:
            return file, read_checkpoint(file)
        except ValueError as error:
            if number == len(files):
                raise
            print(f"warning: {error}; '{files[number]}' is tried instead", file=sys.stderr)
    raise AssertionError("there is at least one")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint that this project has written, its tensors mapped from disk; no code in it is run.

    Raises:
        ValueError: If the file is missing, cut short, changed since it was written, or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no checkpoint '{path}'")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"'{path}' ({path.stat().st_size} bytes) is no checkpoint, or one that was cut short")
    if damaged := _damaged_record(path):
        raise ValueError(f"'{path}' is damaged, or no checkpoint: its part {damaged} is not what was written")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"'{path}' holds objects that are not loaded for safety; only checkpoints written by lit-llm can be used"
        ) from error
    except Exception as error:  # a damaged file can trip the reader anywhere
        raise ValueError(f"'{path}' is damaged, or no checkpoint: {str(error).split(chr(10))[0]}") from error
    is_whole = isinstance(checkpoint, dict) and "pytorch-lightning_version" in checkpoint
    if not (is_whole and all(isinstance(checkpoint.setdefault(part, {}), dict) for part in PARTS)):
        raise ValueError(f"'{path}' is no checkpoint of a training run; only those written by lit-llm can be used")
    return {**checkpoint, "state_dict": unwrapped(checkpoint["state_dict"])}


def unwrapped(weights: dict[str, Any]) -> dict[str, Any]:
    """Weights without what torch.compile and DistributedDataParallel put before the names of a module they wrap."""
    return {name.replace("_orig_mod.", "").removeprefix("module."): value for name, value in weights.items()}


def _damaged_record(path: Path) -> str | None:
    """The name of a record that does not have the CRC-32 written with it, which torch itself does not look at."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, EOFError) as error:
        return f"with a broken header ({error})"


def checkpoint_source(path: str | Path, checkpoint: dict[str, Any]) -> Source:
    """What a model can start from in a checkpoint of any task: the backbone, by the settings saved with it.

    Args:
        path: What to call it.
        checkpoint: As `read_checkpoint` gives it.

    Raises:
        ValueError: If it does not say how its backbone is built.
    """
    settings = checkpoint["hyper_parameters"].get("backbone")
    if not isinstance(settings, dict):
        raise ValueError(
            f"the checkpoint '{path}' does not say how its backbone is built (made in Python, of a function or class "
            "that cannot be imported by name); rebuild it there and use load_from_checkpoint(path, backbone=...)"
        )
    weights = {name: value for name, value in checkpoint["state_dict"].items() if isinstance(value, Tensor)}

    try:
        entry = merging_entries(weights, checkpoint["hyper_parameters"].get("lora"))
    except ValueError as error:
        raise ValueError(f"the checkpoint '{path}' cannot be used: {error}") from error

    module, names = module_class(checkpoint), checkpoint["hyper_parameters"].get("class_names")

    def entries(module: nn.Module) -> list[Entry]:
        prefix = "backbone." if isinstance(module, GPT) else ""
        return [entry(name, prefix + name) for name in tensors_of(module)]

    return Source(
        str(path),
        settings,
        {name: Stored(tuple(value.shape), value.dtype) for name, value in weights.items() if not is_adapter(name)},
        weights.__getitem__,
        entries,
        is_harmless=lambda name: not name.startswith("backbone."),  # the head of another task
        tokenizer=checkpoint.get("tokenizer"),
        module=module,
        classes=Classes(tuple(names), "head.weight", "threshold") if names and "head.weight" in weights else None,
        is_language_model=not names and getattr(module, "uses_head", True),
    )


def misfits(module: nn.Module, weights: dict[str, Any]) -> str:
    """Names and shapes that keep weights from fitting a module, the first few; empty if they fit."""
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    theirs = {name: tuple(getattr(value, "shape", ())) for name, value in weights.items()}
    problems = [f"{name} is missing" for name in own.keys() - theirs.keys()]
    problems += [f"{name} is unknown" for name in theirs.keys() - own.keys()]
    problems += [
        f"{name} is {theirs[name]}, not {own[name]}" for name in own.keys() & theirs.keys() if own[name] != theirs[name]
    ]
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(sorted(problems)[:3]) + more


def module_class(checkpoint: dict[str, Any]) -> type | None:
    """The LightningModule that wrote a checkpoint; None if it does not say, or cannot be imported here."""
    module, _, name = str(checkpoint["hyper_parameters"].get("_class_path", "")).rpartition(".")
    try:
        return getattr(import_module(module), name) if module else None
    except (ImportError, AttributeError):
        return None
