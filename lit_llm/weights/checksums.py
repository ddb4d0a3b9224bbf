"""Checksums of weights files: what a flipped bit changes shows, where somebody noted what was there."""

import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

KEY = "crc32"  # in the metadata of our safetensors files, beside what their readers look for
BLOB = re.compile(r"[0-9a-f]{64}")  # a large file in the hub's cache is called by the SHA-256 of its content


def checksum(tensor: Tensor) -> int:
    """The CRC-32 of the bytes of a tensor."""
    return zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def with_checksums(metadata: dict[str, str], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The metadata of a file, and the checksums of its tensors."""
    return {**metadata, KEY: json.dumps({name: checksum(tensor) for name, tensor in tensors.items()})}


def noted_checksums(metadata: Mapping[str, str] | None) -> dict[str, int]:
    """The checksums in the metadata of a file; none, if it was written by somebody else.

    Raises:
        JSONDecodeError: If they cannot be read.
    """
    return dict(json.loads((metadata or {}).get(KEY, "{}")))


def is_damaged_blob(path: Path) -> bool:
    """Whether a file lies in the hub's cache under the SHA-256 of another content than its own."""
    blob = path.resolve()
    if blob.parent.name != "blobs" or not BLOB.fullmatch(blob.name):
        return False
    with blob.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() != blob.name
