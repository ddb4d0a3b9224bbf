"""What is made of records of conversations, whatever is learnt from them: checked, split, encoded, and counted."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
from tqdm import tqdm

from lit_llm.data.chat_encoding import ChatEncoder, Encoded, missing_control_tokens
from lit_llm.data.duplicates import normalized, split_groups
from lit_llm.data.messages import RecordError
from lit_llm.data.notes import Notes
from lit_llm.data.prompts import ChatTemplate, Message, source_of
from lit_llm.data.records import Record
from lit_llm.data.tokenizer import Tokenizer
from lit_llm.data.tool_calls import for_template
from lit_llm.data.turns import Talk

OnLong = Literal["truncate", "drop", "error"]
OnBad = Literal["error", "skip"]
SPLITS = ("train", "val", "test")
LONG_ANSWER, REFUSED = "response longer than the window", "refused by the chat template"
Content = TypeVar("Content")
Made = TypeVar("Made")


@dataclass
class Rules:
    """What is made of records.

    Args:
        block_size: Longest input in tokens.
        shares: Of the records, for validation and for testing.
        split_seed: Chooses which.
        mask_prompt: Whether only what the assistant writes carries loss in training; elsewhere that is always so.
        on_long: What becomes of an example that is longer than a window.
        on_bad: What becomes of a record that nothing can be learnt from.
        origins: By the name of a record, the split and the number of its source. Empty: there is one source.
        fields: Own names of the fields of records, by ours.
    """

    block_size: int
    shares: dict[str, float] = field(default_factory=lambda: {"test": 0.0, "val": 0.0})
    split_seed: int = 0
    mask_prompt: bool = True
    on_long: OnLong = "truncate"
    on_bad: OnBad = "error"
    origins: dict[str, tuple[str, int]] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)

    def origin(self, name: str) -> tuple[str, int]:
        """The split, and the number within it, of the source of a record; `train` is yet to be shared out."""
        return self.origins[name] if self.origins else ("train", 0)


@dataclass
class Prepared:
    """What became of records.

    Args:
        talks: By split, the conversation of each example.
        tokenizer: The tokenizer; one that learns from the text has done so.
        template: What the conversations were rendered by.
        records: Records read.
        dropped: How many were left out, by the reason.
        notes: What was found in them, and what of it is not used.
    """

    talks: dict[str, list[Talk]]
    tokenizer: Tokenizer
    template: ChatTemplate
    records: int
    dropped: Counter[str]
    notes: Notes

    def of_records(self) -> Iterator[str]:
        """Lines of a report: how many there are, and why others are not there."""
        counts = ", ".join(f"{len(self.talks[split]):,} for {split}" for split in SPLITS)
        yield f"{self.records:,} records: {counts}"
        if self.dropped:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.dropped.items()))
            yield f"left out: {self.dropped.total():,} ({reasons})"
        yield from self.notes.lines()

    def of_template(self) -> Iterator[str]:
        """Lines of a report: what of the template a model cannot learn as it is meant."""
        if missing := missing_control_tokens(self.tokenizer, self.template):
            yield f"{', '.join(missing)}: no token of the tokenizer, so written as ordinary text"
        if not self.template.ends_answers:
            yield "no token ends an answer: the model will not learn to stop"


def usable(
    records: Iterable[Record], read: Callable[[Record], Content], rules: Rules, dropped: Counter[str]
) -> list[Content]:
    """What records hold; those of no use are counted, if they may be skipped.

    Args:
        records: The records.
        read: Takes one, and may raise a RecordError.
        rules: Whether they may be skipped.
        dropped: Where they are counted.

    Raises:
        ValueError: If one may not, or none is left.
    """
    found = []
    for record in records:
        try:
            found.append(read(record))
        except RecordError as error:
            _bad(error, rules, dropped)
    if not found:
        raise ValueError(none_left(dropped))
    return found


def template_of(talks: Iterable[Talk], tokenizer: Tokenizer, name: str, rules: Rules) -> ChatTemplate:
    """The chat template of a name, for a tokenizer that learns from the conversations if it still has to.

    It learns nothing from the sources that belong to validation or testing.
    """
    if not tokenizer.is_fitted:
        plain = ChatTemplate(source_of(name, tokenizer), name, "", "")  # no control token is learnt as text
        learnt = (talk for talk in talks if rules.origin(talk.name)[0] == "train")
        tokenizer.fit(_rendered(learnt, plain, rules))
    return ChatTemplate.of(name, tokenizer)


def _rendered(talks: Iterable[Talk], template: ChatTemplate, rules: Rules) -> Iterator[str]:
    """The texts of conversations, without those that the template refuses if such may be skipped.

    Raises:
        ValueError: If one is refused and may not be skipped.
    """
    for talk in talks:
        try:
            yield template.render(for_template(talk.messages, template), variables=talk.variables)
        except ValueError as error:
            if rules.on_bad == "error":
                raise ValueError(f"{talk.name}: {error}") from error


def numbers_of_splits(talks: Sequence[Talk], rules: Rules) -> dict[str, np.ndarray]:
    """Which conversations belong to which split; those of one first question, without its input, are on one side.

    That of a source which is not shared out is the split of the source.
    """
    split_of = np.array([rules.origin(talk.name)[0] for talk in talks], dtype="<U5")
    shared = np.flatnonzero(split_of == "train").tolist()
    keys = [first_question(talks[number].messages) for number in shared]
    split_of[shared] = split_groups(keys, rules.shares, rules.split_seed)
    return {split: np.flatnonzero(split_of == split) for split in SPLITS}


def first_question(messages: Sequence[Message]) -> str:
    """What conversations share that are on one side of a split: the first question, as `normalized`."""
    return normalized(next(message["content"] for message in messages if message["role"] == "user"))


def none_left(dropped: Counter[str]) -> str:
    """What is said where all records had to be left out."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
    return f"none of {dropped.total():,} records can be used ({reasons})" if dropped else "there are no records"


def encode(encoder: ChatEncoder, talk: Talk) -> Encoded:
    """A conversation as ids, its tool calls from now on as the template takes them.

    Raises:
        RecordError: If the template or the tokenizer refuses it.
    """
    try:
        talk.messages = for_template(talk.messages, encoder.template)
        return encoder.encode(talk.messages, variables=talk.variables)
    except ValueError as error:
        raise RecordError(REFUSED, f"{talk.name}: {error}") from error


def encoded(
    talks: Iterable[Talk], make: Callable[[Talk], Made], rules: Rules, dropped: Counter[str]
) -> list[tuple[Talk, Made]]:
    """What is made of conversations, each beside its own; those of which nothing is made are counted.

    Args:
        talks: The conversations.
        make: Takes one, and may raise a RecordError.
        rules: Whether a bad one may be skipped; one that is only too long always is.
        dropped: Where they are counted.

    Raises:
        ValueError: If a bad one may not be skipped, or nothing is left.
    """
    made, refusal = [], None
    for talk in tqdm(talks, desc="encoding conversations", unit="", mininterval=0.5, file=sys.stderr):
        try:
            made.append((talk, make(talk)))
        except RecordError as error:
            if error.kind in (LONG_ANSWER, REFUSED):
                refusal = refusal or (str(error) if error.kind == REFUSED else None)
                _bad(error, rules, dropped)
            else:
                dropped[error.kind] += 1
    if not made:
        raise ValueError(refusal or none_left(dropped))
    return made


def _bad(error: RecordError, rules: Rules, dropped: Counter[str]) -> None:
    if rules.on_bad == "error":
        raise ValueError(f"{error} (--data.on_bad skip leaves such records out, and counts them)") from error
    dropped[error.kind] += 1
