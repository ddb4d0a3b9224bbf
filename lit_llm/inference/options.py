"""What the commands that write text have in common: options, and what is made of them."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from lit_llm.inference.device import add_device, device_of
from lit_llm.usage import MAX_SEED, Parser

if TYPE_CHECKING:
    from lit_llm.inference.sampling import Sampling
    from lit_llm.inference.text import TextModel

SOURCE = "a .ckpt file, a run folder or a folder of runs; or a model of the Hugging Face hub, or a folder of one"
TEMPLATE = "alpaca, chatml, gemma, llama3, phi3, plain, zephyr, the path of a .jinja file, or source: the model's own"
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def add_sampling(parser: Parser) -> None:
    """Add the options that say how tokens are drawn and where a text ends."""
    add = parser.add_argument
    add("--temperature", type=float, default=0.8, help="0 is greedy, 1 samples as trained")
    add("--top_k", type=int | None, default=None, help="draw among the k best tokens")
    add("--top_p", type=float | None, default=None, help="draw among the best tokens that reach p")
    add("--min_p", type=float | None, default=None, help="draw among tokens with this share of the best one's odds")
    add("--repetition_penalty", type=float, default=1.0, help="above 1: makes tokens that came before less likely")
    add("--stop", type=list[str] | None, default=None, help="strings at which a text ends, as '[one, two]'")
    add("--seed", type=int | None, default=None, help="repeats a text; the next texts have the next seeds")


def add_storage(parser: Parser) -> None:
    """Add the options that say how weights are stored and multiplied."""
    add = parser.add_argument
    add("--dtype", type=str, default="fp32", help="how weights are stored: fp32, bf16 or int8")
    add("--compile", type=bool, default=False, help="compile the products of decoding on a CPU; takes some seconds")
    add_device(parser)


def check(config: Any, *counts: str) -> None:
    """Refuse a seed, and counts, that cannot be.

    Raises:
        ValueError: If a count is below 1, or the seed out of range.
    """
    for name in counts:
        if config[name] is not None and config[name] < 1:
            raise ValueError(f"--{name} {config[name]} cannot be: it is at least 1")
    if config.seed is not None and not 0 <= config.seed <= MAX_SEED:
        raise ValueError(f"--seed {config.seed} cannot be: it lies in [0, {MAX_SEED}]")


def sampling_of(config: Any) -> "Sampling":
    """How tokens are drawn."""
    from lit_llm.inference.sampling import Sampling

    return Sampling(**{name: config[name] for name in SAMPLING})


def open_model(source: str, config: Any, rows: Collection[int] = (1,)) -> "TextModel":
    """A model, its weights stored as the options say; rows: those of its steps, as for `prepare`."""
    from lit_llm.inference.products import prepare
    from lit_llm.inference.text import TextModel

    device = device_of(config)
    model = TextModel.from_source(source)
    model.backbone.to(device)
    prepare(model.backbone, config.dtype, config.compile, rows)
    return model
