"""Decoding of a random GPT-2 by the project's own loop: an entry point for benchmarks, and what a batch brings.

    python benchmarks/decode.py [--batch_size 16] [--modes fp32 bf16 int8] [--rounds N] [--no-compile]

`make_decode(shape, mode)` returns a function that continues a list of ids greedily by n ids, and the number of
parameters. Shapes are dicts of L H C V, with the positions as `ctx`; modes `fp32`, `bf16`, `int8`. The command prints
tokens per second of one text and of a batch, by turns, at the shape of GPT-2 124M.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from lit_llm.backbone import GPT
from lit_llm.inference.generate import generate
from lit_llm.inference.products import DTYPES, prepare
from lit_llm.inference.sampling import Sampling

SHAPE = {"L": 12, "H": 12, "C": 768, "V": 50304, "ctx": 1024}
PROMPT, NEW = 32, 128  # tokens


def make_network(shape: dict[str, int], mode: str, compile: bool = True, rows: int = 1) -> tuple[GPT, dict[str, int]]:
    """A network ready for so many texts at a time, and its number of parameters."""
    backbone = GPT(shape["V"], shape["ctx"], shape["L"], shape["H"], shape["C"]).eval()
    parameters = backbone.num_parameters()
    return prepare(backbone, mode, compile, rows=(rows,)), {"params": parameters}


def make_decode(
    shape: dict[str, int], mode: str = "fp32", compile: bool = True
) -> tuple[Callable[[Sequence[int], int], list[int]], dict[str, int]]:
    """A function that continues ids, ready to run."""
    backbone, info = make_network(shape, mode, compile)

    def decode(prompt: Sequence[int], n: int) -> list[int]:
        return [int(drawn.ids) for drawn in generate(backbone, [list(prompt)], n, Sampling(temperature=0.0))]

    return decode, info


def rate(backbone: GPT, texts: int, new: int) -> float:
    """New tokens per second of so many texts at a time, prompts included in the time."""
    prompts = torch.randint(SHAPE["V"], (texts, PROMPT)).tolist()
    start = time.perf_counter()
    count = sum(len(drawn.ids) for drawn in generate(backbone, prompts, new, Sampling(temperature=0.0)))
    return count / (time.perf_counter() - start)


def main(args: Sequence[str] | None = None) -> None:
    """Measure by turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--modes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args(args)
    sizes = (1, options.batch_size)
    print(f"tokens/s of {sizes[0]} and {sizes[1]} texts, {PROMPT} + {NEW} tokens each; ratio, median [least..most]")
    for mode in options.modes:
        networks = [make_network(SHAPE, mode, options.compile, size)[0] for size in sizes]
        for network, size in zip(networks, sizes, strict=True):
            rate(network, size, 4)
        rounds = [
            [rate(network, size, NEW) for network, size in zip(networks, sizes, strict=True)]
            for _ in range(options.rounds)
        ]
        ratios = [many / one for one, many in rounds]
        one, many = (statistics.median(rates) for rates in zip(*rounds, strict=True))
        print(f"{mode}: {one:.1f} {many:.1f} {statistics.median(ratios):.2f} [{min(ratios):.2f}..{max(ratios):.2f}]")


if __name__ == "__main__":
    main()
