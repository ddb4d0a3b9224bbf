"""Drawing ids: from which distribution, and by which random numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """From which distribution an id is drawn; the settings act in this order.

    Args:
        repetition_penalty: Divides the positive scores of ids that have been seen, and multiplies the negative ones
            (CTRL, https://arxiv.org/abs/1909.05858); above 0, 1 leaves them.
        temperature: Divides the scores; 0 takes the best id, 1 samples as trained.
        top_k: Draw among the k best ids. None: among all.
        top_p: Draw among the fewest ids whose probability reaches p, in (0, 1] (nucleus sampling, Holtzman et al.,
            2019, https://arxiv.org/abs/1904.09751). None: among all.
        min_p: Draw among ids with at least this share of the best one's probability, in [0, 1] (Nguyen et al., 2024,
            https://arxiv.org/abs/2407.01082). None: among all.

    Raises:
        ValueError: If a setting is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature {self.temperature} cannot be: it is 0 (greedy) or larger")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k {self.top_k} leaves no id to draw")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} is no probability in (0, 1]")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p {self.min_p} is no share in [0, 1]")
        if not 0 < self.repetition_penalty < float("inf"):
            raise ValueError(f"repetition_penalty {self.repetition_penalty} cannot be: it is above 0; 1 is none")


class Seen:
    """The ids that each row holds so far, kept where a setting asks for them.

    Args:
        rows: The rows' ids.
        vocab_size: Ids V that there are.
        device: Where the logits are.
    """

    def __init__(self, rows: Sequence[Sequence[int]], vocab_size: int, device: torch.device) -> None:
        self.mask = torch.zeros(len(rows), vocab_size, dtype=torch.bool, device=device)
        for row, ids in enumerate(rows):
            self.mask[row, torch.tensor(list(ids), dtype=torch.long, device=device)] = True

    def add(self, ids: Tensor) -> None:
        """Add an id (B,) to each row."""
        self.mask.scatter_(1, ids[:, None], True)


def probabilities(logits: Tensor, sampling: Sampling, seen: Tensor | None = None) -> Tensor:
    """The distribution (B, V) from which `sample` draws.

    Args:
        logits: (B, V) scores.
        sampling: What to make of them.
        seen: (B, V) booleans, True for ids that a row holds. None: for none.
    """
    logits = logits.float()
    if sampling.repetition_penalty != 1 and seen is not None:
        penalty = sampling.repetition_penalty
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / sampling.temperature  # at most 0: no temperature overflows
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        kept, ids = logits.topk(sampling.top_k, dim=-1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, ids, kept)  # ties beyond the k-th are left out
    result = logits.softmax(dim=-1)
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, ids = result.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered  # probability of all better ids
        result = result.masked_fill((before >= sampling.top_p).gather(-1, ids.argsort(dim=-1)), 0)
    if sampling.min_p is not None:
        result = result.masked_fill(result < sampling.min_p * result.amax(dim=-1, keepdim=True), 0)
    return result / result.sum(dim=-1, keepdim=True)


def draw(distribution: Tensor, generators: Sequence[torch.Generator | None]) -> Tensor:
    """Draw an id (B,) of each row of (B, V) by its own random numbers, whatever is drawn beside it."""
    rows = zip(distribution, generators, strict=True)
    return torch.cat([torch.multinomial(row, 1, generator=generator) for row, generator in rows])


def sample(
    logits: Tensor,
    sampling: Sampling,
    generators: Sequence[torch.Generator | None],
    seen: Tensor | None = None,
) -> Tensor:
    """Draw one id per row.

    Args:
        logits: (B, V) scores.
        sampling: From which distribution.
        generators: Source of the randomness of each row. None: torch's own.
        seen: (B, V) booleans, True for ids that a row holds. None: for none.

    Returns:
        (B,) ids.
    """
    if sampling.temperature == 0 and sampling.repetition_penalty == 1:
        return logits.argmax(dim=-1)
    return draw(probabilities(logits, sampling, seen), generators)


def generators_of(seeds: Sequence[int | None], device: torch.device) -> list[torch.Generator]:
    """A source of random numbers for each seed; None: another one each time."""
    generators = [torch.Generator(device) for _ in seeds]
    for generator, seed in zip(generators, seeds, strict=True):
        generator.seed() if seed is None else generator.manual_seed(seed)
    return generators
