"""A pretrained backbone with rows for new tokens."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from lit_llm.backbone import GPT
from lit_llm.weights.source import Filled, Source


def fill_grown(source: Source, module: nn.Module, backbone: GPT, dtype: torch.dtype, new_ids: range) -> Filled:
    """Give a module the parameters of a source that knows fewer ids; the rows of new ones start at the mean of others.

    So a new token begins as likely as the average one, and what was learnt keeps its probabilities up to the share of
    the new ones (Hewitt, 2021, https://nlp.stanford.edu/~johnhew/vocab-expansion.html).

    Args:
        source: Where the parameters come from.
        module: What is filled.
        backbone: The network in it, which has a row for each new id.
        dtype: Of the parameters.
        new_ids: Ids that nobody has trained, behind all that are known.

    Raises:
        ValueError: As in `Source.fill`.
    """
    init_args = source.settings["init_args"]
    multiple = init_args.get("vocab_multiple", 1)
    known = math.ceil(init_args["vocab_size"] / multiple) * multiple  # padding included
    tables = list(_tables(backbone))
    rows = backbone.embedding.tokens.weight.shape[0]
    for part, name in tables:
        _replace(part, name, min(known, rows))
    filled = source.fill(module, dtype)
    for part, name in tables:
        old = getattr(part, name).detach()
        mean = old[: new_ids.start].float().mean(dim=0)
        grown = _replace(part, name, rows).detach()
        grown[: len(old)] = old
        grown[len(old) :] = mean
        grown[new_ids.start : new_ids.stop] = mean  # of a padded table some are there, and hold nothing
    return filled


def _tables(backbone: GPT) -> Iterator[tuple[nn.Module, str]]:
    """The parameters that have a row for each id: the token table, and a head of its own."""
    yield backbone.embedding.tokens, "weight"
    linear: Any = getattr(backbone.head, "linear", None)
    if linear is not None:
        yield linear, "weight"
        if linear.bias is not None:
            yield linear, "bias"


def _replace(part: nn.Module, name: str, rows: int) -> nn.Parameter:
    """An empty parameter of so many rows in the place of one."""
    old = getattr(part, name)
    new = nn.Parameter(old.detach().new_empty(rows, *old.shape[1:]), old.requires_grad)
    setattr(part, name, new)
    return new
