"""Entry point for benchmarks of the training step: the project's network, loss and groups of parameters in a bare loop.

`make_train(shape, mode, get_batch)` returns a function that does one optimizer step, and the number of parameters.
Shapes are dicts of L H C T B V; modes `fp32`, `fp32-c` (compiled), `bf16`, `bf16-c`. Nothing of Lightning is loaded;
what its Trainer adds to a step is for `trainer.py` and for `lit-llm bench --bare`.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from lit_llm.backbone import GPT
from lit_llm.training.float32 import matmul_precision
from lit_llm.training.heap import APART, KEEP, tune_heap
from lit_llm.training.losses import LinearCrossEntropy
from lit_llm.training.optim import parameter_groups

# Numbers in the stream of a batch from which on a block computed twice costs more than the memory is worth.
LARGE_BATCH = 2**18

GetBatch = Callable[[], tuple[Tensor, Tensor]]


def make_network(shape: dict[str, int]) -> GPT:
    """GPT-2's parts in a shape."""
    return GPT(shape["V"], shape["T"], shape["L"], shape["H"], shape["C"])


def recomputing(shape: dict[str, int], compiles: bool) -> bool | Literal["mlp"]:
    """What the backward pass computes again, so that no shape needs more memory than its leanest peer."""
    if compiles:
        return False  # a compiler finds what is cheap to compute again
    return "mlp" if shape["B"] * shape["T"] * shape["C"] >= LARGE_BATCH else True


def make_train(
    shape: dict[str, int], mode: str, get_batch: GetBatch, device: str = "cpu"
) -> tuple[Callable[[], Tensor], dict[str, int]]:
    """A function that does forward, backward, clipping and AdamW, and returns the loss."""
    tune_heap(APART)
    torch.set_float32_matmul_precision(matmul_precision(torch.device(device)))
    network, compiles = make_network(shape).to(device), mode.endswith("-c")
    in_chunks = shape["V"] > shape["C"]  # logits weigh more than what they are made of
    loss_of = LinearCrossEntropy() if in_chunks else nn.CrossEntropyLoss(reduction="sum")
    network.recompute(recomputing(shape, compiles))
    for part in (*network.blocks, loss_of) if compiles else ():
        part.compile()
    optimizer = AdamW(parameter_groups(network), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    parameters = list(network.parameters())

    def step() -> Tensor:
        idx, targets = get_batch()
        with torch.autocast(device, torch.bfloat16, enabled="bf16" in mode):
            hidden = network.hidden_states(idx).flatten(0, 1)
            scored = (hidden, network.output_matrix()) if in_chunks else (network.logits(hidden),)
            loss = loss_of(*scored, targets.flatten()) / targets.numel()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tune_heap(KEEP)
        return loss.detach()

    return step, {"params": network.num_parameters()}
