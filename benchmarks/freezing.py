"""What it saves to train a part of a classifier: seconds of a step and memory, by what trains.

    python benchmarks/freezing.py [--rounds N]

Steps of all kinds take turns in one process, so that what else the machine does falls on each alike; the ratio is the
median over the rounds. Memory is the peak above that of a process which trains nothing, of each kind in a fork of its
own (Linux).
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.optim import AdamW

from lit_llm.backbone import GPT
from lit_llm.backbone.lora import LoRA
from lit_llm.batch import TextBatch
from lit_llm.costs.device import forget_peak_memory, peak_memory, process_memory
from lit_llm.modules import Classification

V = 512
KINDS: dict[str, dict[str, Any]] = {
    "trainable all": {"trainable": "all"},
    "trainable last_2_blocks": {"trainable": "last_2_blocks"},
    "trainable last_1_blocks": {"trainable": "last_1_blocks"},
    "trainable head": {"trainable": "head"},
    "lora": {"lora": LoRA()},
    "lora, targets *": {"lora": LoRA(targets=["*"])},
}


def make_step(kind: str, shape: dict[str, int]) -> Callable[[], None]:
    """An optimizer step of a classifier, on the same batch each time; shapes are dicts of L H C T B."""
    torch.manual_seed(0)
    backbone = GPT(V, shape["T"], shape["L"], shape["H"], shape["C"])
    module = Classification(backbone, ["no", "yes"], optimizer=partial(AdamW, fused=True), **KINDS[kind])
    optimizer = module.configure_optimizers()["optimizer"]
    module.train()
    rows, length = shape["B"], shape["T"]
    idx, targets = torch.randint(V, (rows, length)), torch.randint(2, (rows,))
    batch = TextBatch(idx, targets, torch.full((rows,), length), torch.arange(rows))

    def step() -> None:
        total, weight = module.weighted_loss(module(batch), targets)
        optimizer.zero_grad()
        (total / weight).backward()
        optimizer.step()

    return step


def memory(kind: str, shape: dict[str, int]) -> int:
    """Bytes at the peak of three steps, above those of a process that trains nothing."""
    before, device = process_memory(), torch.device("cpu")
    forget_peak_memory(device)
    step = make_step(kind, shape)
    for _ in range(3):
        step()
    return peak_memory(device) - before


def times(shape: dict[str, int], rounds: int) -> dict[str, list[float]]:
    """Seconds of a step of each kind, round by round, after one that is not counted."""
    steps = {kind: make_step(kind, shape) for kind in KINDS}
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(1 + rounds):
        for kind, step in steps.items():
            began = time.perf_counter()
            step()
            taken[kind].append(time.perf_counter() - began)
    return {kind: each[1:] for kind, each in taken.items()}


def main(args: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Seconds of a step and memory of a classifier, by what trains.")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each kind that are timed")
    sizes = {"n_layer": ("L", 6), "n_head": ("H", 6), "n_embd": ("C", 384), "block_size": ("T", 256)}
    for name, (letter, size) in {**sizes, "batch_size": ("B", 8)}.items():
        parser.add_argument(f"--{name}", dest=letter, type=int, default=size, help=f"{size} by default")
    shape = vars(parser.parse_args(args))
    rounds = shape.pop("rounds")
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as fork:  # before this process has threads
        peaks = {kind: fork.apply(memory, (kind, shape)) for kind in KINDS}
    taken = times(shape, rounds)
    print("| what trains | ms a step | of all | MB | of all |\n|---|---|---|---|---|")
    every = next(iter(KINDS))
    for kind, each in taken.items():
        ratio = statistics.median(own / whole for own, whole in zip(each, taken[every], strict=True))
        middle, peak = statistics.median(each), peaks[kind]
        print(f"| `{kind}` | {middle * 1e3:,.0f} | {ratio:.2f} | {peak / 1e6:,.0f} | {peak / peaks[every]:.2f} |")


if __name__ == "__main__":
    main()
