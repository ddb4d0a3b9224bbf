"""The loop of generation: rows of ids that grow by one id at a time, with a cache."""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_llm.backbone import GPT
from lit_llm.backbone.cache import Cache
from lit_llm.backbone.context import Context
from lit_llm.inference.sampling import Sampling, Seen, generators_of, sample


class Drawn(NamedTuple):
    """One new id of each row.

    Args:
        ids: (B,).
        logprobs: (B,) logarithms of the probabilities that the backbone gives them, before any setting of the
            sampling. None: not asked for.
    """

    ids: Tensor
    logprobs: Tensor | None = None


class Reader:
    """Reads rows of ids with a backbone, bit by bit, and tells the logits of what comes next.

    An attention that keeps nothing in the cache (`Context.remember`) makes it read all of a row again each time.

    Args:
        backbone: The network, in eval mode.
        size: Tokens of the longest row in the end.
        spare: Tokens that are read at once after the beginning beyond one, and may be taken back.
    """

    def __init__(self, backbone: GPT, size: int, spare: int = 0) -> None:
        self.backbone, self.device = backbone, next(backbone.parameters()).device
        self.cache: Cache | None = Cache(size, spare, self.device)
        self._rows = torch.zeros(0, 0, dtype=torch.long)  # all ids so far, where there is no cache
        self._lengths = torch.zeros(0, dtype=torch.long)

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read the beginnings of all rows; the logits (B, V) of what follows each."""
        counts = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        idx = torch.zeros(len(prompts), int(counts.max()), dtype=torch.long)  # padded on the right
        for row, prompt in enumerate(prompts):
            idx[row, : len(prompt)] = torch.tensor(list(prompt))
        idx = idx.to(self.device)
        assert self.cache is not None
        self.cache.expect(idx.shape[1], None if all(len(p) == idx.shape[1] for p in prompts) else counts)
        hidden = self.backbone.hidden_states(idx, Context(cache=self.cache))
        if len(self.cache) < len(self.backbone.blocks):
            self.cache, self._rows, self._lengths = None, idx, counts
        rows = torch.arange(len(prompts), device=self.device)
        return self.backbone.logits(hidden[rows, counts - 1])

    def read(self, idx: Tensor) -> Tensor:
        """Read the next ids (B, T) of each row; the logits (B, T, V) of what follows each."""
        if self.cache is not None:
            self.cache.expect(idx.shape[1])
            return self.backbone(idx, Context(cache=self.cache))
        places = self._lengths[:, None] + torch.arange(idx.shape[1], device=self.device)  # (B, T)
        self._lengths = self._lengths + idx.shape[1]
        missing = int(self._lengths.max()) - self._rows.shape[1]
        self._rows = torch.nn.functional.pad(self._rows, (0, max(missing, 0))).scatter(1, places, idx)
        hidden = self.backbone.hidden_states(self._rows)
        return self.backbone.logits(hidden.take_along_dim(places[:, :, None], dim=1))

    def rewind(self, length: int) -> None:
        """Forget all but the first tokens; rows are equally long."""
        if self.cache is not None:
            self.cache.rewind(length)
        else:
            self._lengths = torch.full_like(self._lengths, length)
            self._rows = self._rows[:, :length]


def check_room(backbone: GPT, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Refuse what the backbone has no positions for.

    Raises:
        ValueError: If a prompt is empty, or too long together with what is to follow. The last new token is drawn and
            not read, so it needs no position.
    """
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens {max_new_tokens} cannot be: it is 0 or larger")
    if not all(map(len, prompts)):
        raise ValueError("there is no id to continue; start with the end-of-text token")
    longest = max(map(len, prompts), default=0)
    if longest + max(max_new_tokens - 1, 0) > backbone.block_size:
        raise ValueError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones do not fit the model's {backbone.block_size} "
            "positions (block_size); shorten the prompt, or ask for fewer"
        )


@torch.inference_mode()
def generate(
    backbone: GPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    seeds: Sequence[int | None] | None = None,
    ends: Collection[int] = (),
    logprobs: bool = False,
) -> Iterator[Drawn]:
    """Continue rows of ids, one token at a time; each is what it would be alone.

    Args:
        backbone: The network, in eval mode.
        prompts: Ids to continue, at least one in each row; rows may differ in length.
        max_new_tokens: Tokens to draw at most.
        sampling: From which distribution they are drawn. None: from the backbone's own.
        seeds: Of each row; the same one repeats a row whatever its neighbours. None: another text each time.
        ends: Stop when every row has drawn one of these ids. None of them: never.
        logprobs: Whether the probabilities of the drawn ids are told.

    Yields:
        One new id of each row, `max_new_tokens` times or until all rows have ended.

    Raises:
        ValueError: If there is nothing to continue, or it does not fit the backbone's positions.
    """
    check_room(backbone, prompts, max_new_tokens)
    if max_new_tokens == 0 or not prompts:
        return
    sampling = sampling or Sampling()
    reader = Reader(backbone, max(map(len, prompts)) + max_new_tokens)
    generators = generators_of(seeds or [None] * len(prompts), reader.device)
    seen = Seen(prompts, backbone.vocab_size, reader.device) if sampling.repetition_penalty != 1 else None
    last = torch.tensor(list(ends), dtype=torch.long, device=reader.device)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=reader.device)
    logits = reader.begin(prompts)
    for left in reversed(range(max_new_tokens)):
        new = sample(logits, sampling, generators, None if seen is None else seen.mask)
        yield Drawn(new, logprobs_of(logits, new) if logprobs else None)
        if ends:
            ended |= torch.isin(new, last)
            if ended.all():
                return
        if seen is not None:
            seen.add(new)
        if left:
            logits = reader.read(new[:, None])[:, -1]


def logprobs_of(logits: Tensor, ids: Tensor) -> Tensor:
    """(B,) logarithms of the probabilities of ids (B,) by logits (B, V)."""
    return logits.float().log_softmax(dim=-1).gather(-1, ids[:, None])[:, 0]
