"""Speculative decoding: a small draft model guesses several tokens, the model judges them in one pass."""

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from lit_llm.backbone import GPT
from lit_llm.inference.generate import Drawn, Reader, check_room, logprobs_of
from lit_llm.inference.sampling import Sampling, Seen, draw, generators_of, probabilities


class Speculation:
    """Draws from the same distribution as the model alone (Leviathan et al., 2023, https://arxiv.org/abs/2211.17192).

    A guess d of the draft is kept with probability min(1, p(d) / q(d)), p of the model and q of the draft; the first
    one that is not is replaced by a draw from max(p - q, 0). Greedy decoding is the case of p and q that are certain.

    Args:
        backbone: The model, in eval mode.
        draft: A smaller one of the same tokenizer, in eval mode.
        draft_tokens: Tokens that it guesses before each judgement.

    Raises:
        ValueError: If the vocabularies differ in size, or draft_tokens is below 1.
    """

    def __init__(self, backbone: GPT, draft: GPT, draft_tokens: int = 4) -> None:
        if draft.vocab_size != backbone.vocab_size:
            raise ValueError(
                f"the draft model knows {draft.vocab_size} ids, not {backbone.vocab_size} as the model does"
            )
        if draft_tokens < 1:
            raise ValueError(f"draft_tokens {draft_tokens} cannot be: the draft model guesses at least 1")
        self.backbone, self.draft, self.draft_tokens = backbone, draft, draft_tokens
        self.guessed = self.kept = 0

    @property
    def acceptance_rate(self) -> float:
        """The share of all guesses so far that were kept."""
        return self.kept / self.guessed if self.guessed else 0.0

    @torch.inference_mode()
    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        sampling: Sampling | None = None,
        seed: int | None = None,
        ends: Collection[int] = (),
        logprobs: bool = False,
    ) -> Iterator[Drawn]:
        """Continue a row of ids; the arguments and what is yielded are those of `generate` for one row.

        Raises:
            ValueError: If there is nothing to continue, or it does not fit the positions of both models.
        """
        for backbone in (self.backbone, self.draft):
            check_room(backbone, [prompt], max_new_tokens)
        ids, end, sampling = list(prompt), len(prompt) + max_new_tokens, sampling or Sampling()
        model, draft = (_Follower(b, end, self.draft_tokens) for b in (self.backbone, self.draft))
        generators = generators_of([seed], model.reader.device)
        while len(ids) < end:
            # The first token is the model's own: reading the prompt tells the logits of what follows its end alone.
            count = min(self.draft_tokens, end - len(ids) - 1) if model.read else 0
            guesses = draft.guess(ids, count, sampling, generators)
            for new, logits in self._judged(model, ids, guesses, sampling, generators):
                ids.append(int(new))
                yield Drawn(new, logprobs_of(logits, new) if logprobs else None)
                if int(new) in ends:
                    return
            model.forget(len(ids) - 1)
            draft.forget(len(ids) - 1)

    def _judged(
        self,
        model: "_Follower",
        ids: Sequence[int],
        guesses: Sequence[tuple[Tensor, Tensor]],
        sampling: Sampling,
        generators: Sequence[torch.Generator],
    ) -> list[tuple[Tensor, Tensor]]:
        """The ids (1,) that come next, at least one, each with the model's logits (1, V)."""
        logits = model.follow([*ids, *(int(guess) for guess, _ in guesses)])[:, -1 - len(guesses) :]
        seen = Seen([ids], self.backbone.vocab_size, logits.device)
        result: list[tuple[Tensor, Tensor]] = []
        self.guessed += len(guesses)
        for number, (guess, q) in enumerate(guesses):
            p = probabilities(logits[:, number], sampling, seen.mask)
            chance = torch.rand(1, generator=generators[0], device=p.device)
            if chance * q[0, guess] >= p[0, guess]:
                rest = (p - q).clamp(min=0)
                return [*result, (draw(rest / rest.sum(), generators), logits[:, number])]
            self.kept += 1
            result.append((guess, logits[:, number]))
            seen.add(guess)
        return [*result, (draw(probabilities(logits[:, -1], sampling, seen.mask), generators), logits[:, -1])]


class _Follower:
    """One of the two networks, and how much of the text it has read."""

    def __init__(self, backbone: GPT, size: int, spare: int) -> None:
        self.reader, self.read = Reader(backbone, size, spare), 0

    def follow(self, ids: Sequence[int]) -> Tensor:
        """Read on to the end of a text; (1, T, V) logits of what follows each new id, at first of the last alone."""
        unread, self.read = ids[self.read :], len(ids)
        if len(unread) == len(ids):
            return self.reader.begin([ids])[:, None]
        return self.reader.read(torch.tensor([unread], device=self.reader.device))

    def forget(self, length: int) -> None:
        """Take back what was read beyond a length."""
        if length < self.read:
            self.reader.rewind(length)
            self.read = length

    def guess(
        self, ids: Sequence[int], count: int, sampling: Sampling, generators: Sequence[torch.Generator]
    ) -> list[tuple[Tensor, Tensor]]:
        """So many ids (1,) that may come next, each with the distribution (1, V) that it was drawn from."""
        seen = Seen([ids], self.reader.backbone.vocab_size, self.reader.device)
        text, guesses = list(ids), []
        for _ in range(count):
            q = probabilities(self.follow(text)[:, -1], sampling, seen.mask)
            guesses.append((draw(q, generators), q))
            text.append(int(guesses[-1][0]))
            seen.add(guesses[-1][0])
        return guesses
