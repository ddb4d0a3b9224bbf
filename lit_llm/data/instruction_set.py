"""Instruction records made into tokenized examples: read, checked, split, encoded, and what became of them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_llm.data.chat_encoding import ChatEncoder, Encoded
from lit_llm.data.conversation_set import (
    LONG_ANSWER,
    SPLITS,
    Prepared,
    Rules,
    encode,
    encoded,
    numbers_of_splits,
    template_of,
    usable,
)
from lit_llm.data.duplicates import count_near_duplicates, normalized
from lit_llm.data.forms import Forms
from lit_llm.data.messages import RecordError
from lit_llm.data.packing import Examples
from lit_llm.data.records import Record
from lit_llm.data.tokenizer import Tokenizer
from lit_llm.data.turns import Talk


@dataclass
class InstructionSet(Prepared):
    """Tokenized examples by split, and what became of the records on the way.

    Args:
        examples: By split.
        truncated: How many lost the end of their last answer, and with it the token that ends it.
        equal: Examples whose messages, up to case, space and punctuation, have come before.
        near: Others of which most has come before.
    """

    examples: dict[str, Examples]
    truncated: int
    equal: int
    near: int

    def tokens(self, split: str, number: int) -> list[tuple[str, bool]]:
        """The tokens of an example as text, each with whether it carries loss."""
        place = slice(*self.examples[split].starts[number : number + 2])
        ids, carries_loss = self.examples[split].ids[place].tolist(), self.examples[split].carries_loss[place].tolist()
        texts = (self.tokenizer.decode_bytes([i]).decode("utf-8", errors="replace") for i in ids)
        return list(zip(texts, carries_loss, strict=True))

    def report(self, efficiency: float | None, is_shared_out: bool = True) -> str:
        """What became of the records, in a few lines.

        Args:
            efficiency: Share of the training windows' places that hold an example. None: there are no such windows.
            is_shared_out: Whether all splits are shares of one source.
        """
        lines = list(self.of_records())
        if self.truncated:
            lines.append(f"cut to the window: {self.truncated:,}; their last answer has no end to learn")
        if self.equal or self.near:
            sides = "; one instruction, one split" if is_shared_out else ""
            lines.append(f"said before: {self.equal:,} equal, {self.near:,} nearly equal{sides}")
        lengths = np.concatenate([self.examples[split].lengths for split in SPLITS])
        median, high, longest = (int(np.percentile(lengths, share)) for share in (50, 95, 100))
        learnt = sum(len(examples.learnt()) for examples in self.examples.values())
        lines.append(
            f"tokens: {lengths.sum():,}, of which {learnt:,} carry loss; an example has {median} (median), "
            f"{high} (95 of 100 have no more), {longest} (longest)"
        )
        if efficiency is not None:
            lines.append(f"packed: {efficiency:.2%} of the windows is full")
        return "\n".join([*lines, *self.of_template()])


def prepare(records: Iterable[Record], tokenizer: Tokenizer, template: str, rules: Rules) -> InstructionSet:
    """Make examples of records.

    Args:
        records: The records.
        tokenizer: The tokenizer; fitted here if it learns from the text.
        template: Name of the chat template.
        rules: What is made of them.

    Raises:
        ValueError: If a record is bad and `rules` do not say to skip such, or nothing is left to learn from.
    """
    dropped: Counter[str] = Counter()
    forms = Forms(rules.fields)
    talks = usable(records, forms.talk, rules, dropped)
    forms.names.finish()
    chosen = template_of(talks, tokenizer, template, rules)
    encoder = ChatEncoder(tokenizer, chosen)
    made = encoded(talks, lambda talk: _cut(talk.name, encode(encoder, talk), rules), rules, dropped)
    forms.notes.of_template(encoder.left_out)
    kept = [talk for talk, _ in made]
    whole = Examples.join([cut.ids for _, (cut, _) in made], [cut.carries_loss for _, (cut, _) in made])
    numbers = numbers_of_splits(kept, rules)
    first = _first_of_equals(kept)
    examples = {split: whole.subset(numbers[split]) for split in SPLITS}
    if not rules.mask_prompt:  # where the model is measured, the answers alone count: so runs can be compared
        examples["train"].carries_loss[:] = True
    return InstructionSet(
        {split: [kept[number] for number in numbers[split]] for split in SPLITS},
        tokenizer,
        chosen,
        len(kept) + dropped.total(),
        dropped,
        forms.notes,
        examples,
        sum(is_shorter for _, (_, is_shorter) in made),
        len(kept) - len(first),
        count_near_duplicates(whole.subset(first)),
    )


def _first_of_equals(talks: list[Talk]) -> np.ndarray:
    """Numbers of those that nobody has had before, up to case, white space and punctuation."""
    said = (
        normalized("\n".join(str(text) for message in talk.messages for text in message.values())) for talk in talks
    )
    first: dict[str, int] = {}
    for number, text in enumerate(said):
        first.setdefault(text, number)
    return np.array(list(first.values()))


def _cut(name: str, whole: Encoded, rules: Rules) -> tuple[Encoded, bool]:
    """At most a window of an example, and in it something to learn; and whether that is less than all.

    Raises:
        RecordError: If there is none, or if a rule leaves out what is too long.
        ValueError: If a rule calls what is too long an error.
    """
    most = rules.block_size + 1  # the last token is only predicted
    ids, carries_loss = whole
    if len(ids) > most:
        if (answer := _longest_run(carries_loss)) > rules.block_size:
            raise RecordError(
                LONG_ANSWER,
                f"{name} has a response of {answer:,} tokens, longer than the window of {rules.block_size:,}; raise "
                "--data.block_size",
            )
        if rules.on_long == "error":
            raise ValueError(
                f"{name} has {len(ids) - 1:,} tokens, more than the window of {rules.block_size:,}; raise "
                "--data.block_size, or say --data.on_long truncate or drop"
            )
        if rules.on_long == "drop":
            raise RecordError("longer than the window", name)
    if not carries_loss[1:most].any():  # its loss would be that of nothing
        raise RecordError("with no token of an answer in the window", name)
    return Encoded(ids[:most], carries_loss[:most]), len(ids) > most


def _longest_run(carries_loss: np.ndarray) -> int:
    if carries_loss.sum() == 0:
        return 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], carries_loss, [False]])))
    return int((edges[1::2] - edges[::2]).max())


def learnt_bytes_per_token(examples: Examples, tokenizer: Tokenizer) -> float | None:
    """UTF-8 bytes for each token that carries loss; the control tokens stand for none."""
    ids = examples.learnt()
    if not len(ids):
        return None
    sizes: Any = tokenizer.byte_lengths.copy()
    sizes[list(tokenizer.special_ids.values())] = 0
    return float(sizes[ids].sum() / len(ids))
