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
