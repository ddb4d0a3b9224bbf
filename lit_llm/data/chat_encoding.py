"""Conversations as ids, and which of them carry loss."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import NamedTuple

import numpy as np

from lit_llm.data.prompts import SOURCE, ChatTemplate, Message, Span, Variables
from lit_llm.data.tokenizer import Tokenizer

NOTHING = (False, False)  # of the white space around it, most control tokens swallow


class Encoded(NamedTuple):
    """A conversation as ids."""

    ids: np.ndarray  # (N,)
    carries_loss: np.ndarray  # (N,) booleans: whether the assistant has to write it


class ChatEncoder:
    """Encodes conversations by a template, with a mask that is exact by construction.

    Control tokens come from the text of the template alone: what somebody says is encoded as ordinary text, so nobody
    can forge a turn. Ordinary text between two control tokens is encoded as a whole, as transformers does, except
    where a token would lie across the border of an answer: then prompt and answer are encoded apart, as they are when a
    model is asked. A control token that the tokenizer does not know is ordinary text.

    Args:
        tokenizer: Turns text into ids.
        template: Turns conversations into text.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self.tokenizer, self.template = tokenizer, template
        self.left_out: Counter[str] = Counter()  # fields with words that the template does not write
        self._ids = tokenizer.special_ids
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._control = re.compile(f"({'|'.join(map(re.escape, longest_first))})" if self._ids else r"((?!))")

    def encode(
        self, messages: Sequence[Message], add_generation_prompt: bool = False, variables: Variables | None = None
    ) -> Encoded:
        """Ids of a conversation; what the template does not write of it is counted in `left_out`.

        Args:
            messages: What was said, in order.
            add_generation_prompt: Whether what makes the assistant answer follows.
            variables: What else the template is given: `tools`, `documents`, or settings of its own.

        Raises:
            ValueError: As in `ChatTemplate.rendered`, or if the tokenizer refuses a text.
        """
        ids: list[np.ndarray] = []
        losses: list[np.ndarray] = []
        before: str | None = None  # the control token, if any
        spans, left_out = self.template.rendered(messages, add_generation_prompt, variables)
        self.left_out.update(left_out)
        parts = list(self._parts(spans))
        for number, (control, carries_loss, run) in enumerate(parts):
            if control is not None:
                before = control
                ids.append(np.array([self._ids[control]], np.int64))
                losses.append(np.array([carries_loss]))
                continue
            after = parts[number + 1][0] if number + 1 < len(parts) else None
            pieces = self._stripped(run, before, after)
            if not pieces:
                continue
            encoded = self.tokenizer.encode_pieces([text for text, _ in pieces], before is not None)
            for piece, (_, carries) in zip(encoded, pieces, strict=True):
                ids.append(piece.astype(np.int64))
                losses.append(np.full(len(piece), carries))
        if not ids:
            return Encoded(np.empty(0, np.int64), np.empty(0, bool))
        return Encoded(np.concatenate(ids), np.concatenate(losses))

    def _parts(self, spans: list[Span]) -> Iterator[tuple[str | None, bool, list[tuple[str, bool]]]]:
        """Control tokens, and between them runs of text in pieces that do or do not carry loss."""
        run: list[tuple[str, bool]] = []
        for text, is_content, carries_loss in spans:
            for number, part in enumerate([text] if is_content else self._control.split(text)):
                if number % 2:
                    yield from [(None, False, run)] if run else []
                    yield part, carries_loss, []
                    run = []
                elif part:
                    run.append((part, carries_loss))
        yield from [(None, False, run)] if run else []

    def _stripped(self, run: list[tuple[str, bool]], before: str | None, after: str | None) -> list[tuple[str, bool]]:
        """A run joined where the loss does not change, without white space that its neighbours swallow."""
        pieces = [
            ("".join(text for text, _ in group), loss) for loss, group in groupby(run, key=lambda piece: piece[1])
        ]
        strips = self.tokenizer.strips
        if before is not None and strips.get(before, NOTHING)[1]:
            pieces = _without_ends(pieces, first=True)
        if after is not None and strips.get(after, NOTHING)[0]:
            pieces = _without_ends(pieces, first=False)
        return pieces


def _without_ends(pieces: list[tuple[str, bool]], first: bool) -> list[tuple[str, bool]]:
    while pieces:
        place = 0 if first else -1
        text, carries_loss = pieces[place]
        if text := text.lstrip() if first else text.rstrip():
            pieces[place] = (text, carries_loss)
            break
        pieces.pop(place)
    return pieces


def answer_end(tokenizer: Tokenizer, template: ChatTemplate) -> int | str | None:
    """What ends an answer: a control token; of a tokenizer that has no such token, its spelling. None: nothing."""
    end = template.end
    return tokenizer.special_ids.get(end, end) if end else None


def ends_of_texts(tokenizer: Tokenizer) -> list[int]:
    """All ids at which a text of a model ends, the end of an answer by its own chat template included."""
    own = [i for i in (tokenizer.end_of_text, *tokenizer.other_ends) if i is not None]
    if tokenizer.chat_template is not None:
        with suppress(ValueError):  # a template that is no Jinja ends nothing
            end = answer_end(tokenizer, ChatTemplate.of(SOURCE, tokenizer))
            own += [end] if isinstance(end, int) and end not in own else []
    return own


def missing_control_tokens(tokenizer: Tokenizer, template: ChatTemplate) -> list[str]:
    """What looks like a control token in a template, and is ordinary text to a tokenizer."""
    found = re.findall(r"<\|\w+\|>|<(?:start|end)_of_turn>", template.source)
    return [name for name in dict.fromkeys(found) if name not in tokenizer.special_ids]
