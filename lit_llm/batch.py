"""What passes between data and modules: the batch. Data makes it, modules read it, neither imports the other."""

from typing import NamedTuple

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
