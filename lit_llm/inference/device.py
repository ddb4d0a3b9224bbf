"""Where a network computes that is only used."""

from typing import TYPE_CHECKING, Any

from lit_llm.usage import Parser

if TYPE_CHECKING:
    import torch


def add_device(parser: Parser) -> None:
    """Add the option that says where the network computes."""
    parser.add_argument(
        "--device", type=str | None, default=None, help="cpu, cuda, or one of several as cuda:1; a GPU if there is one"
    )


def device_of(config: Any) -> "torch.device":
    """Where the network computes.

    Raises:
        ValueError: If there is no such device.
    """
    import torch

    count = torch.cuda.device_count()
    if config.device is None:
        return torch.device("cuda" if count else "cpu")
    known = ["cpu", *(["cuda"] if count else []), *(f"cuda:{number}" for number in range(count))]
    if config.device not in known:
        raise ValueError(f"there is no --device '{config.device}' here; choose {' or '.join(known)}")
    return torch.device(config.device)
