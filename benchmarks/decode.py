"""Entry point for benchmarks of decoding: the project's own loop on a random GPT-2 of a shape.

`make_decode(shape, mode)` returns a function that continues a list of ids greedily by n ids, and the number of
parameters. Shapes are dicts of L H C V, with the positions as `ctx`; modes `fp32`, `bf16`, `int8`.
"""

from collections.abc import Callable, Sequence

from lit_llm.backbone import GPT
from lit_llm.inference.generate import generate
from lit_llm.inference.products import prepare
from lit_llm.inference.sampling import Sampling


def make_decode(
    shape: dict[str, int], mode: str = "fp32", compile: bool = True
) -> tuple[Callable[[Sequence[int], int], list[int]], dict[str, int]]:
    """A function that continues ids, ready to run."""
    backbone = GPT(shape["V"], shape["ctx"], shape["L"], shape["H"], shape["C"]).eval()
    parameters = backbone.num_parameters()
    prepare(backbone, mode, compile)

    def decode(prompt: Sequence[int], n: int) -> list[int]:
        return [int(drawn.ids) for drawn in generate(backbone, [list(prompt)], n, Sampling(temperature=0.0))]

    return decode, {"params": parameters}
