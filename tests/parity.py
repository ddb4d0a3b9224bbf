"""A task with a head of its own, small, by which it is tested what trains."""

from functools import partial
from typing import Any

import torch
from python_runs import tiny_backbone
from torch import Tensor, nn
from torch.nn import functional as F

from lit_llm.backbone import GPT
from lit_llm.backbone.gpt import Block
from lit_llm.backbone.layers import Embedding
from lit_llm.modules.base import BaseModule

BLOCKS = 3
DROPOUT = partial(Block, dropout=0.3)


class Parity(BaseModule):
    """A task with a head of its own: whether the last id is even."""

    uses_head = False

    def __init__(self, backbone: GPT, n_class: int = 2, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.output = nn.Linear(backbone.norm.weight.numel(), n_class)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.share_of_step(self.total_loss(batch), torch.tensor(len(batch.idx)), batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self.total_loss(batch) / len(batch.idx))

    def total_loss(self, batch: Any) -> Tensor:
        logits = self.output(self.backbone.hidden_states(batch.idx)[:, -1])
        return F.cross_entropy(logits, batch.idx[:, -1] % 2, reduction="sum")


def parity(trainable: Any = None, **settings: Any) -> Parity:
    parts = {"n_layer": BLOCKS, "block": DROPOUT, "embedding": partial(Embedding, dropout=0.2), "norm": nn.LayerNorm}
    backbone = tiny_backbone(**parts, **settings.pop("backbone", {}))
    return Parity(backbone, trainable=trainable, **settings)
