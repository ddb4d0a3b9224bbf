"""Tensors of a folder of safetensors files, by name: mapped from disk, and checked before anything is read.

Stricter than other loaders: a file that is cut short, a name that stands twice, a shard that is missing or that lies
elsewhere are refused, and pickles are not opened at all. Where checksums are known, of our own exports and of what lies
in the hub's cache, no flipped bit gets by; the format itself has none.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lit_llm.weights.checksums import checksum, is_damaged_blob, noted_checksums
from lit_llm.weights.json_file import read_json
from lit_llm.weights.matching import Stored, some

INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle")
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NUMBERED = re.compile(r"(.+)-(\d+)-of-(\d+)\.safetensors")
BEGINNINGS = {  # of what is found under the name of a weights file, lower case
    b"version https://git-lfs": "is the pointer of git-lfs to a file that was not fetched; run git lfs pull there",
    b"<!doctype": "is a web page; download the file itself",
    b"<html": "is a web page; download the file itself",
    b"pk\x03\x04": "is an archive, as pickles are, and no safetensors file",
    b"\x80": "is a pickle, which could run code, and no safetensors file",
}


class TensorFiles:
    """The tensors of a folder: what they are is known at once, what they hold is mapped when asked for.

    Args:
        folder: It holds `model.safetensors`, or several files with or without an index.

    Raises:
        ValueError: If there are none, one is missing or damaged, or a tensor stands twice.
    """

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, tuple[Path, Any]] = {}  # by name of a tensor
        self._checksums: dict[str, int] = {}  # of those that have one
        self._whole: set[Path] = set()  # files that were looked at as wholes
        self.stored: dict[str, Stored] = {}
        index = _index(folder)
        for path in _files(folder, index):
            self._open(path, {name for name, file in index.items() if file == path.name})

    def _open(self, path: Path, expected: set[str]) -> None:
        try:
            file = safe_open(path, framework="pt")
            for name in file.keys():  # noqa: SIM118 (no mapping)
                if name in self.stored:
                    raise ValueError(f"the tensor {name} in '{path}' stands in another file, too; remove one of them")
                part = file.get_slice(name)
                dtype = part.get_dtype()
                self.stored[name] = Stored(tuple(part.get_shape()), DTYPES.get(dtype, dtype))
                self._files[name] = path, file
            self._checksums |= noted_checksums(file.metadata())
        except (SafetensorError, OSError, json.JSONDecodeError) as error:
            raise ValueError(f"'{path}' {_what_it_is(path, error)}") from error
        if missing := sorted(expected - self.stored.keys()):
            raise ValueError(f"'{path}' lacks {some(missing)}, which the index says to be there")

    def __call__(self, name: str) -> Tensor:
        """A tensor, in the memory of its file.

        Raises:
            ValueError: If it, or all of its file, is not what a checksum says.
        """
        path, file = self._files[name]
        if path not in self._whole and is_damaged_blob(path):
            raise ValueError(f"'{path}' is damaged, by its SHA-256; delete '{path.resolve()}', and it is fetched again")
        self._whole.add(path)
        tensor: Tensor = file.get_tensor(name)
        if name in self._checksums and self._checksums[name] != checksum(tensor):
            raise ValueError(f"'{path}' is damaged: {name} is not what was written; export it again")
        return tensor


def _index(folder: Path) -> dict[str, str]:
    """The file of each tensor, by the index of a folder; empty if there is none."""
    path = folder / INDEX
    if not path.exists():
        return {}
    index = read_json(path).get("weight_map")
    if not (isinstance(index, dict) and index and all(isinstance(file, str) for file in index.values())):
        raise ValueError(f"'{path}' names no files (a weight_map)")
    for file in index.values():
        if file != Path(file).name or "\\" in file or not file.endswith(".safetensors"):
            raise ValueError(f"'{path}' points to '{file}', and a shard is a .safetensors file beside it")
    return index


def _files(folder: Path, index: dict[str, str]) -> list[Path]:
    """The weights files of a folder, none of them missing."""
    whole = folder / "model.safetensors"
    if index:
        found = [folder / name for name in sorted(set(index.values()))]
    else:
        found = [whole] if whole.exists() else sorted(folder.glob("*.safetensors"))
    if not found:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        if pickles:
            raise ValueError(f"'{folder}' holds its weights as a pickle ('{pickles[0]}'); {pickle_advice(pickles[0])}")
        raise ValueError(f"'{folder}' holds no weights (model.safetensors)")
    expected = {path.name for path in found}
    for path in found:
        if not index and (parts := NUMBERED.fullmatch(path.name)):
            digits = len(parts[2])
            expected |= {f"{parts[1]}-{n:0{digits}}-of-{parts[3]}.safetensors" for n in range(1, int(parts[3]) + 1)}
    if missing := sorted(name for name in expected if not (folder / name).is_file()):
        raise ValueError(f"'{folder}' lacks the weights file {some(missing)}")
    return found


def pickle_advice(name: str) -> str:
    """Why a file of weights is not opened, and what to do."""
    return (
        f"a {Path(name).suffix} file can run code and is not opened: take a copy in safetensors, or write one with "
        "save_pretrained in the place that you trust"
    )


def _what_it_is(path: Path, error: Exception) -> str:
    """What a file is that is no safetensors file."""
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip().lower()
        size = path.stat().st_size
    except OSError as problem:
        return f"cannot be read: {problem.strerror}"
    known = next((what for beginning, what in BEGINNINGS.items() if start.startswith(beginning)), None)
    cause = str(error).removeprefix("Error while deserializing header: ")
    return known or f"({size:,} bytes) is damaged or was cut short: {cause}"
