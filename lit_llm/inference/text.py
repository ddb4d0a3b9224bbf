"""Text in, text out: a backbone and the tokenizer it was trained with."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Self

import torch

from lit_llm.backbone import GPT
from lit_llm.data.numbers import Numbers
from lit_llm.data.pretrained import come_along
from lit_llm.data.tokenizer import Tokenizer
from lit_llm.inference.generate import Drawn, check_room, generate
from lit_llm.inference.sampling import Sampling
from lit_llm.inference.speculative import Speculation
from lit_llm.inference.stopping import TextStream
from lit_llm.weights.open import open_source

DEFAULT_NEW_TOKENS = 100


@dataclass(frozen=True)
class Completion:
    """What follows a prompt.

    Args:
        text: The continuation alone.
        ids: Its ids; with those of a stop string, and with the end-of-text token if one came.
        finish_reason: `stop` (an end-of-text token or a stop string) or `length`.
        logprobs: Logarithm of the probability of each id, before any setting of the sampling. None: not asked for.
    """

    text: str
    ids: list[int]
    finish_reason: str
    logprobs: list[float] | None = None


@dataclass(frozen=True)
class Asked:
    """How to continue, whatever the prompt.

    Args:
        max_new_tokens: Tokens to add at most. None: 100, or fewer where the model's positions end.
        sampling: From which distribution tokens are drawn.
        stop: Strings at which a text ends; they are no part of it.
        logprobs: Whether the probabilities of the tokens are told.
        ends: Ids at which a text ends, beside those of the tokenizer.

    Raises:
        ValueError: If fewer than 0 tokens are asked for, or a stop string is empty.
    """

    max_new_tokens: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    ends: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.max_new_tokens is not None and self.max_new_tokens < 0:
            raise ValueError(f"max_new_tokens {self.max_new_tokens} cannot be: it is 0 or larger")
        if "" in self.stop:
            raise ValueError("the stop string '' is empty, so every text would end before it begins")


class _Row:
    """One text as it grows."""

    def __init__(self, prompt: Sequence[int], tokenizer: Tokenizer, asked: Asked) -> None:
        self.stream = TextStream(tokenizer, prompt, asked.stop)
        self.ends, self.reason = tokenizer.ends | asked.ends, "length"
        self.pieces: list[str] = []
        self.ids: list[int] = []
        self.logprobs: list[float] | None = [] if asked.logprobs else None

    @property
    def is_done(self) -> bool:
        return self.reason == "stop"

    def add(self, new: int, logprob: float | None) -> None:
        """Take a token, unless the text has ended."""
        if self.is_done:
            return
        self.ids.append(new)
        if self.logprobs is not None and logprob is not None:
            self.logprobs.append(logprob)
        if new not in self.ends:
            self.pieces.append(self.stream.feed(new))
        if new in self.ends or self.stream.stopped:
            self.reason = "stop"

    def completion(self) -> Completion:
        """What it has come to; no token follows."""
        return Completion("".join(self.pieces) + self.stream.close(), self.ids, self.reason, self.logprobs)


@dataclass
class TextModel:
    """A backbone with its tokenizer.

    Args:
        backbone: The network.
        tokenizer: Turns text into its ids and back.
    """

    backbone: GPT
    tokenizer: Tokenizer
    speculation: Speculation | None = None  # made by `speculate`

    @classmethod
    def from_source(cls, source: str | Path, dtype: torch.dtype | None = None) -> Self:
        """Load both from a model of the Hugging Face hub, a folder of one, a checkpoint, or the newest run in a folder.

        Args:
            source: As for `GPT.from_pretrained`.
            dtype: Of the parameters. None: that of most of the stored ones.

        Without a tokenizer, its texts are ids (`Numbers`).

        Raises:
            ValueError: If there is none, it is damaged, or it was not trained to continue texts.
        """
        opened = open_source(source)
        if not opened.is_language_model:
            raise ValueError(
                f"'{opened.name}' is not a language model: its output layer for words was never trained; "
                + ("lit-llm classify tells classes with it" if opened.classes else "only its backbone can be used here")
                + ", and --model.init_from trains one on it"
            )
        tokenizer = come_along(opened) if opened.has_tokenizer else None
        backbone = opened.backbone(dtype)
        return cls(backbone, tokenizer or Numbers(backbone.vocab_size))

    def speculate(self, draft: "TextModel", draft_tokens: int = 4) -> None:
        """Let a smaller model guess tokens ahead; the texts are as likely as without it, and come one at a time.

        Args:
            draft: A model of the same tokenizer.
            draft_tokens: Tokens that it guesses before each judgement.

        Raises:
            ValueError: If its tokenizer is another one, or draft_tokens is below 1.
        """
        if draft.tokenizer.fingerprint() != self.tokenizer.fingerprint():
            raise ValueError("the draft model has another tokenizer than the model; take one trained with the same")
        self.speculation = Speculation(self.backbone, draft.backbone, draft_tokens)

    def complete(self, prompt: str, asked: Asked | None = None, seed: int | None = None) -> str:
        """The continuation of a prompt alone; as `complete_all`."""
        return next(self.complete_all([prompt], asked, seed)).text

    def stream(
        self, prompt: str | Sequence[int], asked: Asked | None = None, seed: int | None = None
    ) -> Generator[str, None, str]:
        """The continuation of a prompt, piece by piece as it comes; as `complete_all`.

        Returns:
            Why it has ended, as `Completion.finish_reason` says it.
        """
        asked = asked or Asked()
        ids = self.encode(prompt)
        row = _Row(ids, self.tokenizer, asked)
        shown = 0
        for _ in self._grow([row], [ids], asked, self._limit(ids, asked), [seed]):
            yield from filter(None, row.pieces[shown:])  # the token that ends a text adds none
            shown = len(row.pieces)
        yield row.stream.close()
        return row.reason

    def complete_all(
        self,
        prompts: Sequence[str | Sequence[int]],
        asked: Asked | None = None,
        seed: int | None = None,
        batch_size: int = 8,
    ) -> Iterator[Completion]:
        """Continue prompts, several at once; each text is what it would be alone, and comes in its place.

        Args:
            prompts: Beginnings of texts, or their ids; an empty text starts from the end-of-text token.
            asked: How to continue.
            seed: Repeats the first text; those after it have the next seeds. None: others each time.
            batch_size: Texts that are continued at once.

        Raises:
            ValueError: If one cannot be continued: it is empty and the tokenizer has no end-of-text token to start
                from, or the model has no positions for it and the new tokens. Nothing is computed before.
        """
        asked = asked or Asked()
        rows = [self.encode(prompt) for prompt in prompts]
        limits = [self._limit(ids, asked) for ids in rows]
        done = 0
        for limit, group in groupby(limits):
            same = len(list(group))
            for start in range(done, done + same, batch_size):
                part = range(start, min(start + batch_size, done + same))
                texts = [_Row(rows[number], self.tokenizer, asked) for number in part]
                seeds = [None if seed is None else seed + number for number in part]
                for _ in self._grow(texts, [rows[number] for number in part], asked, limit, seeds):
                    pass
                yield from (text.completion() for text in texts)
            done += same

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """The ids of a prompt, after the token that begins every text if the tokenizer has one; at least one.

        Ids stay as they are: those of a conversation hold control tokens, which no text can.

        Raises:
            ValueError: If it is empty and the tokenizer has neither a begin-of-text nor an end-of-text token.
        """
        if not isinstance(prompt, str):
            return list(prompt)
        end, begin = self.tokenizer.end_of_text, self.tokenizer.begin_of_text
        ids = ([] if begin is None else [begin]) + self.tokenizer.encode(prompt).tolist()
        ids = ids or ([] if end is None else [end])
        if not ids:
            raise ValueError("the prompt is empty, and this tokenizer has no token to start a text with")
        return ids

    def check(self, prompt: str | Sequence[int], asked: Asked) -> None:
        """Refuse a prompt that cannot be continued.

        Raises:
            ValueError: As in `complete_all`.
        """
        self._limit(self.encode(prompt), asked)

    def _limit(self, ids: Sequence[int], asked: Asked) -> int:
        """How many tokens may follow."""
        networks = [self.backbone] if self.speculation is None else [self.backbone, self.speculation.draft]
        limit = asked.max_new_tokens
        if limit is None:
            room = min(network.block_size for network in networks) - len(ids) + 1  # the last one is not read
            limit = min(DEFAULT_NEW_TOKENS, max(room, 1))  # 1: a prompt beyond the positions is told of
        for network in networks:
            check_room(network, [ids], limit)
        return limit

    def _grow(
        self,
        texts: Sequence[_Row],
        rows: Sequence[Sequence[int]],
        asked: Asked,
        limit: int,
        seeds: Sequence[int | None],
    ) -> Iterator[None]:
        """Add a token to each text that has not ended, until all have."""
        ends, settings = self.tokenizer.ends | asked.ends, (limit, asked.sampling)
        if self.speculation is None:
            yield from _add(texts, generate(self.backbone, rows, *settings, seeds, ends, asked.logprobs))
            return
        for text, ids, seed in zip(texts, rows, seeds, strict=True):
            yield from _add([text], self.speculation.generate(ids, *settings, seed, ends, asked.logprobs))


def _add(texts: Sequence[_Row], drawn: Iterator[Drawn]) -> Iterator[None]:
    """Give each text its token of each step, until all have ended."""
    for ids, logprobs in drawn:
        likely = [None] * len(texts) if logprobs is None else logprobs.tolist()
        for text, new, logprob in zip(texts, ids.tolist(), likely, strict=True):
            text.add(new, logprob)
        yield
        if all(text.is_done for text in texts):
            return
