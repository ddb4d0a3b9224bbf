"""Our own checkpoints: finding them, reading them safely, and the backbone inside."""

import pickle
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch import nn

from lit_llm.backbone import GPT
from lit_llm.sentences import sentence

PARTS = ("state_dict", "hyper_parameters")  # what every checkpoint is asked for; each a dict


def find_checkpoint(path: str | Path, names: tuple[str, ...] = ("best", "last")) -> Path:
    """The checkpoint file behind a path: the file itself, or the newest below a run folder or a folder of runs.

    Args:
        path: A `.ckpt` file, a run folder (`logs/nano/version_3`) or a folder of runs (`logs/nano`).
        names: File names without suffix to take from a run, the preferred one first.

    Raises:
        ValueError: If there is none.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise ValueError(f"there is no checkpoint or run folder '{path}'")
    found = [file for depth in ("", "*/") for name in names for file in path.glob(f"{depth}checkpoints/{name}.ckpt")]
    if not found:
        raise ValueError(f"the folder '{path}' holds no run with a checkpoint {' or '.join(names)}.ckpt")
    newest = max(found, key=lambda file: file.stat().st_mtime).parent
    return next(newest / f"{name}.ckpt" for name in names if (newest / f"{name}.ckpt") in found)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint that this project has written, its tensors mapped from disk; no code in it is run.

    Raises:
        ValueError: If the file is missing, cut short, or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no checkpoint '{path}'")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"'{path}' ({path.stat().st_size} bytes) is no checkpoint, or one that was cut short")
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
    return checkpoint


def load_backbone(checkpoint: dict[str, Any]) -> GPT:
    """The backbone inside a checkpoint of any task, built from the settings saved with it, in eval mode.

    Raises:
        ValueError: If the checkpoint does not say how its backbone is built, or the weights do not fit that.
    """
    config = checkpoint["hyper_parameters"].get("backbone")
    if not isinstance(config, dict):
        raise ValueError(
            "the checkpoint does not say how its backbone is built (a module made in Python, not by "
            "lit-llm fit); rebuild it there and use load_from_checkpoint(path, backbone=...)"
        )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(GPT, "backbone", required=True)
    try:
        backbone = parser.instantiate(parser.parse_object({"backbone": config})).backbone
    except (ArgumentError, ValueError) as error:
        raise ValueError(
            f"the backbone of the checkpoint, a '{config.get('class_path')}', cannot be built here: "
            f"{sentence(str(error))}"
        ) from error
    prefix = "backbone."
    weights = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    if problems := misfits(backbone, weights):
        raise ValueError(f"the checkpoint's weights do not fit its own settings: {problems}")
    backbone.load_state_dict(weights)  # a copy: the file may be replaced while we work
    return backbone.eval()


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
