"""Pairs of answers, of which one is preferred, for preference tuning."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lit_llm.data.chat_encoding import ChatEncoder, Encoded
from lit_llm.data.conversation_set import (
    SPLITS,
    OnBad,
    Prepared,
    Rules,
    encode,
    encoded,
    numbers_of_splits,
    template_of,
    usable,
)
from lit_llm.data.conversations import Conversations
from lit_llm.data.field_names import refuse_fields
from lit_llm.data.loader import Loader
from lit_llm.data.messages import RecordError
from lit_llm.data.named_sources import Sources
from lit_llm.data.packing import Examples, PaddedPairs
from lit_llm.data.pairs import Pairs
from lit_llm.data.records import SUFFIXES, Record
from lit_llm.data.sources import Reading
from lit_llm.data.split_sources import find_sources
from lit_llm.data.tokenizer import Tokenizer
from lit_llm.data.turns import Talk


@dataclass
class PreferenceSet(Prepared):
    """Tokenized pairs, and what became of the records on the way; its talks are those with the chosen answers.

    Args:
        examples: Of all pairs: the chosen one of a pair, then its rejected one.
        numbers: By split, the numbers of its pairs.
    """

    examples: Examples
    numbers: dict[str, np.ndarray]

    @cached_property
    def fingerprint(self) -> str:
        """Of all pairs and their order."""
        parts = (self.examples.ids, self.examples.carries_loss, self.examples.starts)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16]

    def report(self) -> str:
        """What became of the records, in a few lines."""
        lengths = self.examples.lengths.reshape(-1, 2)
        learnt = np.add.reduceat(self.examples.carries_loss, self.examples.starts[:-1]).reshape(-1, 2)
        chosen, rejected = learnt.mean(axis=0)
        tokens = (
            f"tokens of an answer: {chosen:.1f} of a chosen one and {rejected:.1f} of a rejected one on average; the "
            f"longest conversation has {lengths.max()}"
        )
        return "\n".join([*self.of_records(), tokens, *self.of_template()])


class Preferences(Conversations[PreferenceSet]):
    """Two answers to each prompt, a chosen and a rejected one, rendered by a chat template.

    The last answers alone carry loss, each with the token that ends it. A pair of which one side is longer than
    `block_size` is left out as a whole and counted, for a cut answer would be judged by its beginning. Pairs of one
    first instruction are on one side of the split. The template travels with the tokenizer.

    Args:
        source: A file (.json, .json.gz, .jsonl, .jsonl.gz, .parquet) or a Hugging Face data set id. A record has
            `chosen` and `rejected`, and `instruction` with maybe `input`, or `prompt`; each of them is a text, or (the
            instruction aside) a list of messages of `role` and `content`. Or a list of them, each maybe with a weight,
            or a folder with train and val files: docs/sources.md.
        tokenizer: Turns text into ids.
        template: As of Instructions: `alpaca`, `chatml`, …, the path of a Jinja file, or `source`.
        block_size: Longest input in tokens.
        batch_size: Pairs a batch, on each device.
        val_fraction: Share of the pairs held out for validation, in [0, 1); does not count where there is a
            val_source.
        test_fraction: Share of the pairs held out for testing, in [0, 1); does not count where there is a
            test_source.
        split_seed: Chooses which pairs are held out.
        on_bad: A record that nothing can be learnt from (no rejected answer, equal sides, an empty response, roles in
            disorder) is an `error`, or left out and counted (`skip`).
        reading: How the source is read.
        num_workers: Processes that gather batches ahead; 0 is fastest.
        new_tokens: Control tokens that the tokenizer is given, as the template spells them (`<|im_start|>`): each has
            the next id, and a pretrained backbone gets rows for them that start at the mean of the others. None: none.
        fields: Names of the fields of the records where they have others: `{instruction: question, output: answer}`.
            Known names (Dolly's, prompt and completion, question and answer, …) are found without it; all fields that
            are read stand in docs/records.md. None: no others.
        val_source: Pairs to validate on, named as a source is. None: a share of the source.
        test_source: Pairs to test on, named as a source is. None: a share of the source.

    Raises:
        ValueError: If a size or share is out of range, there is no such template, or `fields` gives an unknown name.
    """

    def __init__(
        self,
        source: Sources,
        tokenizer: Tokenizer,
        template: str = "alpaca",
        block_size: int = 512,
        batch_size: int = 8,
        val_fraction: float = 0.1,
        test_fraction: float = 0.0,
        split_seed: int = 0,
        on_bad: OnBad = "error",
        reading: Reading = Reading(),  # noqa: B008 (never changed)
        num_workers: int = 0,
        new_tokens: list[str] | None = None,
        val_source: Sources | None = None,
        test_source: Sources | None = None,
        fields: dict[str, str] | None = None,
    ) -> None:
        refuse_fields(fields or {})
        own, shares = {"val": val_source, "test": test_source}, {"test": test_fraction, "val": val_fraction}
        sources = find_sources(source, own, shares, reading, SUFFIXES)
        rules = Rules(block_size, sources.shares, split_seed, on_long="drop", on_bad=on_bad, fields=fields or {})
        super().__init__(sources, tokenizer, template, batch_size, rules, reading, num_workers, new_tokens or ())

    def _prepare(self, records: Iterable[Record], tokenizer: Tokenizer) -> PreferenceSet:
        return prepare_pairs(records, tokenizer, self.template, self.rules)

    def report(self) -> str:
        """What became of the records."""
        return "\n".join([*self._about_sources(), self.prepared.report()])

    @property
    def num_pairs(self) -> int:
        """Pairs of all splits."""
        return len(self.prepared.examples) // 2

    @property
    def pairs_fingerprint(self) -> str:
        """Equal for equal pairs in one order: what a reference says of them belongs to these and no others."""
        return self.prepared.fingerprint

    def pairs_dataloader(self) -> Loader:
        """All pairs of all splits, each once: those that this device reads; a row is the number of a pair."""
        return Loader(self._pairs(np.arange(self.num_pairs)), self.batch_size, *self._place(), self.num_workers)

    def _rows(self, split: str) -> PaddedPairs:
        return self._pairs(self.prepared.numbers[split])

    def _pairs(self, numbers: np.ndarray) -> PaddedPairs:
        return PaddedPairs(self.prepared.examples, numbers, self.tokenizer.end_of_text or 0)


def prepare_pairs(records: Iterable[Record], tokenizer: Tokenizer, template: str, rules: Rules) -> PreferenceSet:
    """Make pairs of examples of records.

    Args:
        records: The records.
        tokenizer: The tokenizer; fitted here if it learns from the text.
        template: Name of the chat template.
        rules: What is made of them.

    Raises:
        ValueError: If a record is bad and `rules` do not say to skip such, or nothing is left to learn from.
    """
    dropped: Counter[str] = Counter()
    forms = Pairs(rules.fields)
    found = usable(records, forms.pair, rules, dropped)
    forms.names.finish()
    chosen = template_of((talk for pair in found for talk in pair), tokenizer, template, rules)
    encoder = ChatEncoder(tokenizer, chosen)
    rejected = {preferred.name: other for preferred, other in found}

    left_out: Counter[str] = Counter()

    def make(talk: Talk) -> list[Encoded]:
        sides, missing = [], Counter[str]()
        for side in (talk, rejected[talk.name]):
            encoder.left_out.clear()
            sides.append(_answer(encoder, side, rules))
            missing |= encoder.left_out  # both have the same prompt
        left_out.update(missing)
        return sides

    made = encoded([preferred for preferred, _ in found], make, rules, dropped)
    forms.notes.of_template(left_out)
    sides = [side for _, pair in made for side in pair]
    kept = [talk for talk, _ in made]
    numbers = numbers_of_splits(kept, rules)
    return PreferenceSet(
        {split: [kept[number] for number in numbers[split]] for split in SPLITS},
        tokenizer,
        chosen,
        len(kept) + dropped.total(),
        dropped,
        forms.notes,
        Examples.join([side.ids for side in sides], [side.carries_loss for side in sides]),
        numbers,
    )


def _answer(encoder: ChatEncoder, talk: Talk, rules: Rules) -> Encoded:
    """A conversation of which the last answer alone carries loss: those before belong to the prompt.

    Raises:
        RecordError: If the template refuses it, or it is too long.
    """
    ids, carries_loss = encode(encoder, talk)
    if len(ids) > rules.block_size + 1:  # the last token is only predicted
        raise RecordError("with a side longer than the window", talk.name)
    last = np.flatnonzero(carries_loss[1:]) + 1  # nothing predicts a first token
    if not len(last):
        raise RecordError("with no token of an answer", talk.name)
    gaps = np.flatnonzero(np.diff(last) > 1)
    is_last = np.zeros_like(carries_loss)
    is_last[last[gaps[-1] + 1 if len(gaps) else 0] :] = True
    return Encoded(ids, carries_loss & is_last)
