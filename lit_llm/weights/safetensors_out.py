"""Tensors into safetensors files, and into several above a size, with the index that Hugging Face's loaders read."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from lit_llm.weights.checksums import with_checksums

METADATA = {"format": "pt"}  # without it transformers refuses the file


class Parted(Protocol):
    """How tensors under other names are made of one of a backbone (`families.Entry`)."""

    @property
    def name(self) -> str:
        """Its name in the backbone."""

    @property
    def theirs(self) -> tuple[str, ...]:
        """The other names."""

    def split(self, ours: Tensor) -> list[Tensor]:
        """Those tensors."""


def write_tensors(
    folder: Path, state: Mapping[str, Tensor], entries: Sequence[Parted], dtype: torch.dtype, shard_size: int
) -> None:
    """Write the tensors of a backbone, one file in memory at a time.

    Args:
        folder: Where `model.safetensors` goes, or `model-00001-of-0000N.safetensors` and their index.
        state: The tensors, by our names.
        entries: What is made of each.
        dtype: Of what is written.
        shard_size: Bytes of a file at most; a larger tensor has a file of its own.
    """
    shards = _shards(state, entries, dtype, shard_size)
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        # Copies: parts of one tensor share its memory, which the format has no word for.
        tensors = {
            their: part.to(dtype, copy=True).contiguous()
            for entry in shard
            for their, part in zip(entry.theirs, entry.split(state[entry.name]), strict=True)
        }
        save_file(tensors, folder / name, with_checksums(METADATA, tensors))
        index |= dict.fromkeys(tensors, name)
    if len(shards) > 1:
        total = sum(math.prod(tensor.shape) for tensor in state.values()) * dtype.itemsize
        content: dict[str, Any] = {"metadata": {"total_size": total}, "weight_map": index}
        (folder / "model.safetensors.index.json").write_text(json.dumps(content, indent=2), encoding="utf-8")


def _shards(
    state: Mapping[str, Tensor], entries: Sequence[Parted], dtype: torch.dtype, shard_size: int
) -> list[list[Parted]]:
    shards: list[list[Parted]] = [[]]
    room = shard_size
    for entry in entries:
        size = state[entry.name].numel() * dtype.itemsize
        if shards[-1] and size > room:
            shards.append([])
            room = shard_size
        shards[-1].append(entry)
        room -= size
    return shards
