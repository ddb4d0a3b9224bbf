"""Overfitting on purpose: the same few batches again and again, to the loss of a plain loop."""

from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from averaging_runs import equal, fit, last
from lightning import Callback
from python_runs import tiny_data, tiny_module

RATE = 0.003


class Fed(Callback):
    """Keeps what a run is fed, and the loss of each optimizer step."""

    def __init__(self) -> None:
        self.rows, self.losses = list[torch.Tensor](), list[float]()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.rows.append(batch.idx)
        if len(self.losses) < trainer.global_step:
            self.losses.append(float(pl_module.step_loss))


def first_batches(folder: Path, count: int) -> list[Any]:
    """What a run without the flag begins with."""
    L.seed_everything(3, verbose=False)
    data = tiny_data(folder)
    data.prepare_data()
    data.setup("fit")
    return list(islice(iter(data.train_dataloader()), count))


def plain_losses(batches: list[Any], steps: int, accumulated: int) -> list[float]:
    """A loop in plain torch, whose optimizer steps end with an epoch."""
    network, losses = tiny_module().backbone, list[float]()
    vectors = {"params": [p for p in network.parameters() if p.ndim < 2], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([{"params": [p for p in network.parameters() if p.ndim > 1]}, vectors], lr=RATE)
    while len(losses) < steps:
        for start in range(0, len(batches), accumulated):
            group = batches[start : start + accumulated]
            logits = torch.cat([network(batch.idx).flatten(0, 1) for batch in group])
            loss = F.cross_entropy(logits, torch.cat([batch.targets.flatten() for batch in group]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses[:steps]


@pytest.mark.parametrize(
    ("limit", "count", "accumulated", "unit"),
    [(1, 1, 1, "steps"), (3, 3, 1, "epochs"), (0.4, 2, 1, "steps"), (1, 1, 4, "steps"), (3, 3, 2, "steps")],
)
def test_the_loss_is_that_of_a_plain_loop_over_the_same_batches(limit, count, accumulated, unit, tmp_path) -> None:
    steps = 40 if unit == "steps" else 3 * 14
    settings = {"max_steps": 40} if unit == "steps" else {"max_steps": -1, "max_epochs": 14}
    fed, module = Fed(), tiny_module(optimizer=partial(torch.optim.AdamW, lr=RATE))
    fit(tmp_path / "run", fed, module=module, overfit_batches=limit, accumulate_grad_batches=accumulated, **settings)
    wanted = first_batches(tmp_path, count)
    for number, rows in enumerate(fed.rows):
        assert torch.equal(rows, wanted[number % count].idx)
    assert fed.losses == pytest.approx(plain_losses(wanted, steps, accumulated), abs=1e-5)
    assert fed.losses[-1] < 0.7 * fed.losses[0]


def test_it_goes_on_at_the_batch(tmp_path) -> None:
    fit_to = partial(fit, overfit_batches=4, max_steps=15)
    fit_to(tmp_path / "whole")
    for number, cut in enumerate([3, 9, None]):
        fit_to(tmp_path / "parts", resumed=number > 0, cut=cut)
    assert equal(last(tmp_path / "whole"), last(tmp_path / "parts"))
