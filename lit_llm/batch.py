"""What passes between data and modules: the batch. Data makes it, modules read it, neither imports the other."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

IGNORE_INDEX = -100  # targets that carry no loss; the default of torch.nn.CrossEntropyLoss


class Batch(NamedTuple):
    """Language-modelling batch; the shift by one is done: `targets[:, t]` is the token after `idx[:, t]`."""

    idx: Tensor  # (B, T)
    targets: Tensor  # (B, T)


class PackedBatch(NamedTuple):
    """Batch whose rows hold several documents; no token may attend across a border."""

    idx: Tensor  # (B, T)
    targets: Tensor  # (B, T)
    documents: Tensor  # (B, T), ids that change at each border


class TextBatch(NamedTuple):
    """Classification batch: whole texts, padded on the right."""

    idx: Tensor  # (B, T)
    targets: Tensor  # (B,) numbers of classes; IGNORE_INDEX where the class is not known
    lengths: Tensor  # (B,) tokens of each text; what follows them in its row is padding
    rows: Tensor  # (B,) the number of each text in its source, from 0


class PreferenceBatch(NamedTuple):
    """Two answers to each of B prompts, padded on the right: first the B chosen ones, then the B rejected ones."""

    idx: Tensor  # (2B, T)
    targets: Tensor  # (2B, T), IGNORE_INDEX but at the tokens of the answers
    rows: Tensor  # (B,) the number of each pair, from 0


def as_batch(batch: Any, kind: type) -> Any:
    """A batch by names; a plain pair of inputs and targets, as any DataLoader gives it, gets them here.

    Args:
        batch: A named batch, which stays as it is, or a tuple or list of two tensors.
        kind: What a pair becomes: `Batch`, or `TextBatch`, whose texts then fill their rows and count from 0.

    Raises:
        ValueError: If it is neither.
    """
    if hasattr(batch, "idx"):
        return batch
    is_pair = isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)
    if not (is_pair and kind in (Batch, TextBatch)):
        pair = "" if kind is PreferenceBatch else " or a pair of inputs and targets"
        raise ValueError(f"a batch must be a {kind.__name__}{pair}, got {type(batch).__name__}")
    idx, targets = batch
    if kind is Batch:
        return Batch(idx, targets)
    return TextBatch(idx, targets, torch.full_like(targets, idx.shape[1]), torch.arange(len(idx), device=idx.device))
