"""What frozen layers save: time, and the memory of what a backward pass would need."""

import time
from functools import partial
from typing import Any

import pytest
import torch
from parity import Parity
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW

from lit_llm.backbone import GPT


@pytest.mark.slow
def test_the_last_block_alone_takes_half_the_time() -> None:
    """At shape b of the benchmarks; the gain in memory is that of what is not saved for a backward pass."""
    from torch.autograd.graph import saved_tensors_hooks

    steps, saved = {}, {}
    idx = torch.randint(512, (8, 256))
    for rule in ("all", "last_1_blocks"):
        torch.manual_seed(0)
        module = Parity(GPT(512, 256, 6, 6, 384), trainable=rule, optimizer=partial(AdamW, fused=True))
        steps[rule] = partial(take_step, module, module.configure_optimizers()["optimizer"], idx)
        held: dict[int, int] = {}

        def pack(tensor: Tensor, held: dict[int, int] = held) -> Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            steps[rule]()
        saved[rule] = sum(held.values())
    ratios = []
    for _ in range(5):
        times = {}
        for rule, step in steps.items():
            began = time.perf_counter()
            step()
            times[rule] = time.perf_counter() - began
        ratios.append(times["last_1_blocks"] / times["all"])
    assert sorted(ratios)[2] <= 0.55
    assert saved["last_1_blocks"] <= 0.3 * saved["all"]


def take_step(module: Parity, optimizer: Any, idx: Tensor) -> None:
    loss = F.cross_entropy(module.output(module.backbone.hidden_states(idx)[:, -1]), idx[:, -1] % 2)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
