"""The memory of a step that is never taken, against one that is."""

from functools import partial
from typing import Any

import pytest
import torch
from python_runs import B, C, H, T, V, tiny_backbone, tiny_module, trainer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lit_llm.backbone.layers import CausalSelfAttention, GatedMLP
from lit_llm.backbone.rotary import Rotary
from lit_llm.batch import Batch
from lit_llm.costs.simulation import StepMemory, make_fake, step_memory
from lit_llm.modules import LanguageModeling


class Squares(nn.Module):
    """An MLP that no formula knows: it saves its input twice over."""

    def __init__(self, n_embd: int) -> None:
        super().__init__()
        self.proj = nn.Linear(2 * n_embd, n_embd)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(torch.cat([x.square(), x.sin()], dim=-1))


def planned(module: LanguageModeling, **settings: Any) -> StepMemory:
    optimizer_class = settings.pop("optimizer", partial(torch.optim.AdamW, fused=True))
    with FakeTensorMode(allow_non_fake_inputs=True):
        make_fake(module)
        idx = torch.zeros(B, T, dtype=torch.long)
        optimizer = optimizer_class(module.parameters())
        return step_memory(module, optimizer, Batch(idx, idx), trainer(**settings))


def test_weights_gradients_and_optimizer_by_hand() -> None:
    """Four bytes a parameter, a tied table once; AdamW holds two more of each, and a count of steps."""
    module = tiny_module()
    sizes = [p.numel() for p in module.parameters()]
    assert sum(sizes) == V * C + T * C + 12 * C * C + 13 * C + 2 * C  # tables, one block, the last norm
    step = planned(module)
    held = module.mean_loss.mean_value.numel() + module.mean_loss.weight.numel()
    assert step.weights - 4 * sum(sizes) in (0, 4 * held)  # the metric's sums, where they are buffers
    assert step.gradients == 4 * sum(sizes)
    assert step.optimizer == 8 * sum(sizes) + 4 * len(sizes)


def test_frozen_weights_have_no_gradient() -> None:
    module = tiny_module()
    module.backbone.blocks.requires_grad_(False)
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert planned(module).gradients == 4 * trained


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"mlp": Squares},
        {"mlp": GatedMLP, "norm": nn.RMSNorm, "attention": partial(CausalSelfAttention, n_kv_head=2, rotary=Rotary)},
        {"attention": partial(CausalSelfAttention, window=3)},
    ],
    ids=["gpt2", "own mlp", "llama", "window"],
)
def test_activations_are_what_autograd_saves(parts: dict[str, Any], precision: str) -> None:
    """As much as the storages that a real forward pass on the CPU saves, weights and the ids apart."""
    backbone = tiny_backbone(n_layer=2, **parts)
    own = {p.untyped_storage().data_ptr() for p in backbone.parameters()}
    idx = torch.randint(V, (B, T))
    own.add(idx.untyped_storage().data_ptr())
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        hidden = backbone.hidden_states(idx)
    step = planned(LanguageModeling(backbone), precision=precision)
    del hidden
    # Alive though not saved: the last norm's output, which the head reads, and tensors of a few bytes.
    assert step.activations == pytest.approx(sum(saved.values()), abs=4 * B * T * C + 2000, rel=0.02)


def test_logits_and_their_loss() -> None:
    """(N, V) logits and their logarithms in fp32 are alive together, at least."""
    assert planned(tiny_module()).logits >= 2 * 4 * B * T * V


def test_lists_of_temporaries_count() -> None:
    """An optimizer that works through all tensors at once needs more for a moment than one that has none."""
    big = partial(LanguageModeling, tiny_backbone(n_embd=20 * H))
    foreach, fused = (
        planned(big(), optimizer=partial(torch.optim.AdamW, **{kind: True})) for kind in ("foreach", "fused")
    )
    assert foreach.optimizer == fused.optimizer
    assert foreach.total > fused.total


def test_the_total_is_the_sum() -> None:
    step = planned(tiny_module())
    assert step.total == step.weights + step.gradients + step.optimizer + step.activations + step.logits
    assert min(step) > 0
