"""Parameter groups, and Muon beside AdamW."""

import copy
from contextlib import nullcontext
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from lit_llm.backbone import GPT
from lit_llm.backbone.layers import Head
from lit_llm.training.optim import MuonAdamW, WarmupCosine, _InFloat32, parameter_groups, total_norm

B, T, H, C, V, LAYERS = 2, 7, 4, 24, 97, 3


def gpt(**settings: Any) -> GPT:
    torch.manual_seed(0)
    return GPT(V, 11, LAYERS, H, C, **settings)


def loss_of(backbone: GPT, seed: int) -> Tensor:
    idx = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))
    return nn.functional.cross_entropy(backbone(idx).flatten(0, 1), idx.roll(-1, 1).flatten())


def train(backbone: GPT, optimizer: Any, seeds: range) -> None:
    for seed in seeds:
        optimizer.zero_grad()
        loss_of(backbone, seed).backward()
        optimizer.step()


def weights(backbone: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(backbone.parameters()).detach().clone()


# parameter_groups


def test_each_parameter_is_in_exactly_one_group() -> None:
    backbone, extra = gpt(head=lambda v, c: Head(v, c, tied=False)), nn.Linear(C, 2)
    groups = {group["name"]: group for group in parameter_groups(backbone, extra.parameters())}
    found = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in [*backbone.parameters(), *extra.parameters()])

    names = {id(p): name for name, p in backbone.named_parameters()}
    members = {name: {names.get(id(p), "extra") for p in group["params"]} for name, group in groups.items()}
    assert members["tables"] == {"embedding.tokens.weight", "embedding.positions.weight", "head.linear.weight", "extra"}
    assert all(name.startswith("blocks.") and name.endswith("weight") for name in members["matrices"])
    assert len(members["matrices"]) == 4 * LAYERS  # qkv, proj, fc, proj
    assert {name.split(".")[-1] for name in members["vectors"]} == {"weight", "bias", "extra"}


def test_only_vectors_are_not_decayed() -> None:
    optimizer = AdamW(parameter_groups(gpt()), weight_decay=0.3)
    assert {group["name"]: group["weight_decay"] for group in optimizer.param_groups} == {
        "matrices": 0.3,
        "tables": 0.3,
        "vectors": 0.0,
    }
    assert all(
        (p.ndim == 1) == (group["name"] == "vectors") for group in optimizer.param_groups for p in group["params"]
    )


def test_frozen_parameters_and_empty_groups_are_left_out() -> None:
    backbone = gpt().requires_grad_(False)
    backbone.blocks[-1].attention.requires_grad_(True)
    groups = {group["name"]: len(group["params"]) for group in parameter_groups(backbone)}
    assert groups == {"matrices": 2, "vectors": 2}


# MuonAdamW


def test_one_step_is_muons_on_matrices_and_adamws_on_the_rest() -> None:
    ours, theirs = gpt(), gpt()
    optimizer = MuonAdamW(parameter_groups(ours), lr=0.01, muon_lr=0.02, weight_decay=0.3, momentum=0.9)
    matrices, *others = parameter_groups(theirs)
    muon = Muon(matrices["params"], lr=0.02, weight_decay=0.3, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    adamw = AdamW(others, lr=0.01, betas=(0.9, 0.95), weight_decay=0.3, fused=True)
    for seed in range(2):  # the second step reads the averages of the first
        for backbone in (ours, theirs):
            backbone.zero_grad()
            loss_of(backbone, seed).backward()
        optimizer.step()
        adamw.step()
        with _InFloat32():
            muon.step()
        for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.equal(p, q), name
    assert not torch.equal(weights(ours), weights(gpt()))


def test_on_a_cpu_muon_differs_from_torchs_by_the_rounding_alone() -> None:
    """Torch's orthogonalises in bfloat16, 8 bits, in 15 products; ours in fp32, and neither changes the gradient."""
    updates = []
    for step_in in (_InFloat32(), nullcontext()):
        matrix = nn.Parameter(torch.zeros(C, 2 * C))
        matrix.grad = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(0))
        before = matrix.grad.clone()
        with step_in:
            Muon([matrix], lr=1.0, weight_decay=0.0).step()
        assert torch.equal(matrix.grad, before)
        updates.append(matrix.detach())
    assert not torch.equal(*updates)
    assert (updates[0] - updates[1]).norm() < 0.02 * updates[0].norm()


def test_muons_rate_is_adamws_unless_said_otherwise() -> None:
    optimizer = MuonAdamW(parameter_groups(gpt()), lr=0.04)
    assert [group["lr"] for group in optimizer.param_groups] == [0.04, 0.04, 0.04]


def test_a_closure_is_called_once_with_gradients_on() -> None:
    backbone = gpt()
    optimizer, losses = MuonAdamW(parameter_groups(backbone)), []

    def closure() -> Tensor:
        losses.append(loss_of(backbone, 0))
        losses[-1].backward()
        return losses[-1]

    assert optimizer.step(closure) is losses[0]
    assert len(losses) == 1


def test_a_restored_state_goes_on_bit_for_bit() -> None:
    """Through a file, as a checkpoint is, and with the rates that a schedule had set."""
    ours = gpt()
    optimizer = MuonAdamW(parameter_groups(ours), lr=0.01)
    train(ours, optimizer, range(2))
    optimizer.param_groups[0]["lr"] = 0.005
    saved, start = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(ours.state_dict())
    train(ours, optimizer, range(2, 4))

    resumed = gpt()
    resumed.load_state_dict(start)
    optimizer = MuonAdamW(parameter_groups(resumed), lr=0.01)
    optimizer.load_state_dict(saved)
    train(resumed, optimizer, range(2, 4))
    assert torch.equal(weights(resumed), weights(ours))


def test_the_state_of_another_optimizer_is_refused() -> None:
    backbone = gpt()
    with pytest.raises(ValueError, match="not MuonAdamW's"):
        MuonAdamW(parameter_groups(backbone)).load_state_dict(AdamW(backbone.parameters()).state_dict())


def test_a_schedule_scales_both_also_after_a_restore() -> None:
    optimizer = MuonAdamW(parameter_groups(gpt()), lr=0.01, muon_lr=0.02)
    for _ in range(2):
        schedule = LambdaLR(optimizer, lambda step: 0.5**step)
        optimizer.step()
        schedule.step()
        assert [group["lr"] for group in optimizer.muon.param_groups] == [0.01]
        assert [group["lr"] for group in optimizer.adamw.param_groups] == [0.005, 0.005]
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def test_without_matrices_or_without_others_it_is_the_wrong_optimizer() -> None:
    matrices, *others = parameter_groups(gpt())
    for groups in ([matrices], others):
        with pytest.raises(ValueError, match="'matrices'"):
            MuonAdamW(groups)


class Module(L.LightningModule):
    """The smallest system with a backbone, a schedule and a clipped gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = gpt()
        self.rates: list[list[float]] = []
        self.norms: list[float] = []

    def training_step(self, idx: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.backbone(idx).flatten(0, 1), idx.roll(-1, 1).flatten())

    def on_before_zero_grad(self, optimizer: Any) -> None:
        self.rates.append([group["lr"] for group in optimizer.param_groups])

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.norms.append(float(total_norm(self.parameters())))  # of the gradients as they were stepped with

    def configure_optimizers(self) -> Any:
        optimizer = MuonAdamW(parameter_groups(self.backbone), lr=0.01, muon_lr=0.02)
        schedule = WarmupCosine(optimizer, warmup_steps=1, max_steps=3, floor=0.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def test_lightning_sees_one_optimizer(tmp_path: Any) -> None:
    """Three steps by the trainer, interrupted after an epoch of two, equal three steps by hand."""
    batches = torch.randint(V, (2, B, T), generator=torch.Generator().manual_seed(0))

    def fit(module: Module, max_steps: int, ckpt_path: Any = None) -> L.Trainer:
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=max_steps,
            gradient_clip_val=0.1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(batches, batch_size=None), ckpt_path=ckpt_path, weights_only=True)
        return trainer

    whole, first, resumed, by_hand = Module(), Module(), Module(), Module()
    fit(whole, 3)
    fit(first, 2).save_checkpoint(tmp_path / "two.ckpt")
    fit(resumed, 3, tmp_path / "two.ckpt")

    configured = by_hand.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    in_groups = [p for group in optimizer.param_groups for p in group["params"]]  # as Lightning adds up their norms
    for idx in (*batches, batches[0]):
        optimizer.zero_grad()
        by_hand.training_step(idx).backward()
        assert total_norm(by_hand.parameters()) > 0.1
        nn.utils.clip_grad_norm_(in_groups, 0.1)
        optimizer.step()
        schedule.step()

    assert torch.equal(weights(whole), weights(by_hand))
    assert torch.equal(weights(resumed), weights(whole))
    assert whole.norms == pytest.approx([0.1] * 3, rel=1e-4)  # the clipping divides by the norm plus 1e-6
    assert whole.rates[0] == pytest.approx([0.01, 0.005, 0.005])
    assert whole.rates[1] == pytest.approx([0.02, 0.01, 0.01])
    assert whole.rates[2] == pytest.approx([0.01, 0.005, 0.005])


def test_total_norm_is_of_all_gradients_together() -> None:
    linear = nn.Linear(3, 2)
    assert total_norm(linear.parameters()) == 0
    linear.weight.grad, linear.bias.grad = torch.full((2, 3), 2.0), torch.full((2,), 5.0)
    assert total_norm(linear.parameters()) == pytest.approx((6 * 4 + 2 * 25) ** 0.5)
