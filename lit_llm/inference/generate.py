"""Sampling: one token after the other from a backbone."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lit_llm.backbone import GPT


def sample(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw one id per row.

    Args:
        logits: (B, V) scores.
        temperature: Divides the scores; 0 takes the best id.
        top_k: Draw among the k best ids. None: among all.
        top_p: Draw among the fewest ids whose probability reaches p, in (0, 1] (nucleus sampling, Holtzman et al.,
            2019, https://arxiv.org/abs/1904.09751). None: among all.
        generator: Source of the randomness.

    Returns:
        (B,) ids.

    Raises:
        ValueError: If an argument is out of range.
    """
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature {temperature} cannot be: it is 0 (greedy) or larger")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k {top_k} leaves no id to draw")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p {top_p} is no probability in (0, 1]")
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.float()
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperature  # at most 0: no temperature overflows
    if top_k is not None and top_k < logits.shape[-1]:
        kept, ids = logits.topk(top_k, dim=-1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, ids, kept)  # ties beyond the k-th are left out
    if top_p is not None and top_p < 1:
        ordered, ids = logits.softmax(dim=-1).sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered  # probability of all better ids
        logits = logits.masked_fill((before >= top_p).gather(-1, ids.argsort(dim=-1)), -torch.inf)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]


@torch.inference_mode()
def generate(
    backbone: GPT,
    idx: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    end_of_text: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Continue rows of ids, one token at a time; the window slides once the text is longer than `block_size`.

    Args:
        backbone: The network, in eval mode.
        idx: (B, T) ids to continue, T at least 1.
        max_new_tokens: Tokens to draw at most.
        temperature: As in `sample`.
        top_k: As in `sample`.
        top_p: As in `sample`.
        end_of_text: Stop when every row has drawn this id. None: never.
        generator: Source of the randomness.

    Yields:
        (B,) ids, `max_new_tokens` times or until all rows have ended.

    Raises:
        ValueError: If there is nothing to continue, or an argument is out of range.
    """
    if idx.shape[1] == 0:
        raise ValueError("there is no id to continue; start with the end-of-text token")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens {max_new_tokens} cannot be: it is 0 or larger")
    ended = torch.zeros(idx.shape[0], dtype=torch.bool, device=idx.device)
    for _ in range(max_new_tokens):
        hidden = backbone.hidden_states(idx[:, -backbone.block_size :])
        logits = backbone.logits(hidden[:, -1])  # (B, V): of the last position alone
        new = sample(logits, temperature, top_k, top_p, generator)
        idx = torch.cat((idx, new[:, None]), dim=1)
        yield new
        if end_of_text is not None:
            ended |= new == end_of_text
            if ended.all():
                return
