"""Whether the tensors that somebody stored are those of a network: all that is wrong, in one sentence."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_llm.weights.families.names import Entry

SHOWN = 3  # names of each kind
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
HEADS = re.compile(r"^(score|classifier|classification_head|qa_outputs|v_head)\.")  # of other tasks


@dataclass(frozen=True)
class Stored:
    """What a file says of one tensor.

    Args:
        shape: Its sizes.
        dtype: Its dtype; a name, where no weight is of that dtype.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | str


def leftovers(
    entries: Iterable[Entry],
    own: Mapping[str, Tensor],
    stored: Mapping[str, Stored],
    is_harmless: Callable[[str], bool],
) -> list[str]:
    """Names of stored tensors that are not used and need not be.

    Args:
        entries: How each tensor of ours is made.
        own: Ours by name, for their shapes.
        stored: What there is.
        is_harmless: Whether a tensor may be left out that is not used: a mask, a table, the head of another task.

    Raises:
        ValueError: If a tensor is missing, unknown, of another shape or of a dtype that no weight has.
    """
    missing, shapes, dtypes, used = [], [], [], set()
    for entry in entries:
        used |= {*entry.theirs, *entry.copies}
        parts = entry.split(own[entry.name].detach().to("meta"))
        for name, part in zip(entry.theirs, parts, strict=True):
            if (found := stored.get(name)) is None:
                missing.append(name)
            elif found.shape != tuple(part.shape):
                shapes.append(f"{name} ({found.shape} instead of {tuple(part.shape)})")
            elif found.dtype not in FLOATS:
                dtypes.append(f"{name} ({found.dtype})")
    rest = [name for name in stored if name not in used]
    unknown = [name for name in rest if not is_harmless(name)]
    kinds = {
        "missing": missing,
        "unknown": unknown,
        "of another shape": shapes,
        "of a dtype that no weight has": dtypes,
    }
    if wrong := [f"{kind} is {some(names)}" for kind, names in kinds.items() if names]:
        raise ValueError("; ".join(wrong))
    return rest


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
