"""What every optimizer step does beside learning: the norm of its gradients, clipping, and what stops a run."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from cli_runs import same
from python_runs import Call, tiny_backbone, tiny_data, tiny_module, trainer
from torch import Tensor, nn
from torch.optim import SGD

CLIP = 1e-3


def norm_by_hand(module: nn.Module) -> float:
    return math.sqrt(sum(p.grad.double().square().sum().item() for p in module.parameters()))


@pytest.mark.parametrize("accumulated", [1, 2])
def test_gradient_norm_is_that_before_clipping(tmp_path, accumulated) -> None:
    """All parameters of all batches of a step, as a sum of squares by hand; the update is that of the clipped ones."""
    before: list[float] = []
    watch = Call("on_before_optimizer_step", lambda trainer, module, optimizer: before.append(norm_by_hand(module)))
    module = tiny_module(optimizer=partial(SGD, lr=1.0))
    start = {name: parameter.clone() for name, parameter in module.named_parameters()}
    settings = {"gradient_clip_val": CLIP, "accumulate_grad_batches": accumulated, "limit_val_batches": 0}
    run = trainer(callbacks=[watch], max_steps=1, **settings)
    run.fit(module, tiny_data(tmp_path))
    assert run.callback_metrics["train/gradient_norm"] == pytest.approx(before[-1], rel=1e-5)
    assert before[-1] > 100 * CLIP
    moved = sum((p - start[name]).double().square().sum().item() for name, p in module.named_parameters())
    assert math.sqrt(moved) == pytest.approx(CLIP, rel=1e-3)  # fp32 weights far larger than what they move by


def test_clipping_by_value(tmp_path) -> None:
    """Lightning's other way of clipping: no gradient is larger."""
    module = tiny_module(optimizer=partial(SGD, lr=1.0))
    start = {name: parameter.clone() for name, parameter in module.named_parameters()}
    own = {"gradient_clip_val": CLIP, "gradient_clip_algorithm": "value", "limit_val_batches": 0}
    trainer(max_steps=1, **own).fit(module, tiny_data(tmp_path))
    moved = max(float((p.detach() - start[name].detach()).abs().max()) for name, p in module.named_parameters())
    assert moved == pytest.approx(CLIP, rel=1e-3)


class Spoilt(nn.CrossEntropyLoss):
    """A loss that is what it should be, but for one factor at one step."""

    def __init__(self, at: int, factor: float) -> None:
        super().__init__()
        self.left, self.factor = at, factor

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        self.left -= 1
        return super().forward(logits, targets) * (self.factor if self.left == 0 else 1.0)


def spoil_gradient(trainer: Any, module: nn.Module) -> None:
    if trainer.global_step == 2:
        next(module.parameters()).grad[0] = math.inf


BROKEN = {
    "a loss that is NaN": ({"loss": partial(Spoilt, 3, math.nan)}, []),
    "a loss that is infinite": ({"loss": partial(Spoilt, 3, -math.inf)}, []),
    "an infinite gradient": ({}, [Call("on_after_backward", spoil_gradient)]),
}


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("case", BROKEN)
def test_a_step_that_would_ruin_the_weights_is_not_taken(tmp_path, case, clip) -> None:
    """N1, N2: the run stops before the update, with clipping and without; the weights are those of the step before."""
    settings, callbacks = BROKEN[case]
    module, whole = (tiny_module(backbone=tiny_backbone(), **made) for made in (settings, {}))
    own = {"limit_val_batches": 0, "gradient_clip_val": clip}
    trainer(max_steps=2, **own).fit(whole, tiny_data(tmp_path))
    with pytest.raises(FloatingPointError, match=r"at step 3; the weights were not updated"):
        trainer(max_steps=5, callbacks=callbacks, **own).fit(module, tiny_data(tmp_path))
    assert same(module.state_dict(), whole.state_dict())
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_batches_draw_by_their_place_and_rank(tmp_path) -> None:
    """The random numbers of a batch depend on the seed, the epoch, its number and its rank, not on those before it."""
    drawn: dict[tuple, float] = {}
    for epoch, rank, seed in ((0, 0, 1), (0, 1, 1), (1, 0, 1), (0, 0, 2)):
        for batch in (0, 1):
            module = tiny_module()
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PL_GLOBAL_SEED", str(seed))
                patch.setattr(type(module), "current_epoch", epoch)
                patch.setattr(type(module), "global_rank", rank)
                torch.manual_seed(9 + batch)
                module.on_train_batch_start(None, batch)
                drawn[epoch, rank, seed, batch] = float(torch.rand(()))
                torch.manual_seed(0)
                module.on_train_batch_start(None, batch)
                assert float(torch.rand(())) == drawn[epoch, rank, seed, batch]
    assert len(set(drawn.values())) == len(drawn)
