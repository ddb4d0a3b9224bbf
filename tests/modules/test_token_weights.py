"""Each target of an optimizer step weighs the same, however its batches and ranks divide them."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule
from python_runs import Call, T, V, tiny_backbone, tiny_module, trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lit_llm.backbone.layers import Head
from lit_llm.batch import IGNORE_INDEX, Batch
from lit_llm.modules import LanguageModeling
from lit_llm.training.losses import LinearCrossEntropy

ROWS, LENGTHS = 8, (1, T, 0, 3, T, T, 2, 0)  # targets that each row has: none in two of them


def rows() -> Batch:
    idx, targets = torch.randint(V, (2, ROWS, T), generator=torch.Generator().manual_seed(1))
    return Batch(idx, targets.masked_fill(torch.arange(T) >= torch.tensor(LENGTHS)[:, None], IGNORE_INDEX))


def gradients(folder: Path, module: LightningModule, batch_size: int, ranks: int = 1) -> list[Tensor]:
    """Those of one optimizer step over all rows, in batches of so many rows."""

    def keep(trainer, module, optimizer) -> None:
        if trainer.is_global_zero:
            torch.save([parameter.grad for parameter in module.parameters()], folder / "gradients.pt")

    batches = [Batch(*(part[start : start + batch_size] for part in rows())) for start in range(0, ROWS, batch_size)]
    run = trainer(
        max_steps=1,
        devices=ranks,
        strategy="ddp_fork" if ranks > 1 else "auto",
        accumulate_grad_batches=len(batches) // ranks,
        limit_val_batches=0,
        callbacks=[Call("on_before_optimizer_step", keep)],
    )
    loader = DataLoader(batches, batch_size=None)
    run.fit(module, loader, loader)
    return torch.load(folder / "gradients.pt")


def by_hand() -> list[Tensor]:
    backbone, batch = tiny_backbone(6.0), rows()
    F.cross_entropy(backbone(batch.idx).flatten(0, 1), batch.targets.flatten()).backward()
    return [parameter.grad for parameter in backbone.parameters()]


def distance(first: list[Tensor], second: list[Tensor]) -> float:
    """Relative, over all parameters."""
    flat = [torch.cat([tensor.flatten() for tensor in tensors]) for tensors in (first, second)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


class Plain(LanguageModeling):
    """What Lightning's users write: the mean of a batch."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if (batch.targets == IGNORE_INDEX).all():
            return self(batch).sum() * 0
        return F.cross_entropy(self(batch).flatten(0, 1), batch.targets.flatten())


@pytest.mark.parametrize(("batch_size", "ranks"), [(8, 1), (4, 1), (2, 1), (1, 1), (4, 2), (2, 2), (1, 2)])
def test_no_division_changes_the_gradients(tmp_path, batch_size, ranks) -> None:
    """N7: 1 x 8, 2 x 4, 4 x 2 and 8 x 1 rows, on one device or two: those of the mean over all targets, to rounding."""
    found = gradients(tmp_path, tiny_module(backbone=tiny_backbone(6.0)), batch_size, ranks)
    assert distance(found, by_hand()) < 1e-6


def test_the_mean_of_means_is_another_gradient(tmp_path) -> None:
    """What the test above would find without the weights: it can tell."""
    assert distance(gradients(tmp_path, Plain(tiny_backbone(6.0)), 8), by_hand()) < 1e-6
    assert distance(gradients(tmp_path, Plain(tiny_backbone(6.0)), 2), by_hand()) > 0.1


@pytest.mark.parametrize("batch_size", [8, 2])
@pytest.mark.parametrize("head", [Head, partial(Head, tied=False)], ids=["tied", "untied"])
@pytest.mark.parametrize("vocab_multiple", [1, 64])
def test_a_loss_that_makes_its_own_logits_trains_alike(tmp_path, batch_size, head, vocab_multiple) -> None:
    """The same gradients of one step, that of the rows beyond the vocabulary (0) included."""
    backbone = partial(tiny_backbone, 6.0, head=head, vocab_multiple=vocab_multiple)
    found, expected = (
        gradients(tmp_path, tiny_module(backbone=backbone(), loss=loss), batch_size)
        for loss in (partial(LinearCrossEntropy, chunk_size=5), torch.nn.CrossEntropyLoss)
    )
    assert distance(found, expected) < 1e-6
