"""Where the texts of a batch come from: what each kind of data knows of its own."""

import re
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np

from lit_llm.data.base import TextDataModule
from lit_llm.data.chat_encoding import ChatEncoder
from lit_llm.data.instructions import Instructions
from lit_llm.data.prompts import Span
from lit_llm.data.text_classification import TextClassification


class Origin(NamedTuple):
    """What a text of a batch was.

    Args:
        name: What the data calls it.
        whole: Its inputs before it was cut.
        spans: The conversation as its template renders it; none if there is none.
    """

    name: str
    whole: int
    spans: tuple[Span, ...] = ()


class Origins(ABC):
    """Finds the texts of a batch in a split of the data.

    Args:
        data: The data module.
        split: train, val or test.
    """

    def __init__(self, data: Any, split: str) -> None:
        self.data, self.split = data, split

    @abstractmethod
    def find(self, ids: np.ndarray, number: int | None) -> Origin | None:
        """Where a text comes from.

        Args:
            ids: What a model reads of it.
            number: Its number in the data, if the batch says.
        """


class Unknown(Origins):
    """Of data that nothing more is known of."""

    def find(self, ids: np.ndarray, number: int | None) -> None:
        """Nowhere."""


class Records(Origins):
    """Those of instructions, which batches do not number: found by their ids, the first of equal ones."""

    def __init__(self, data: Instructions, split: str) -> None:
        super().__init__(data, split)
        examples = data.prepared.examples[split]
        self._numbers: dict[bytes, int] = {}
        for number in range(len(examples)):
            self._numbers.setdefault(examples.example(number)[0].astype(np.int64).tobytes(), number)

    def find(self, ids: np.ndarray, number: int | None) -> Origin | None:
        """The record, with its whole length, and its conversation."""
        found = self._numbers.get(ids.astype(np.int64).tobytes())
        if found is None:
            return None
        prepared = self.data.prepared
        talk = prepared.talks[self.split][found]
        told = (talk.messages, False, talk.variables)
        encoded = ChatEncoder(prepared.tokenizer, prepared.template).encode(*told)
        name = re.sub(r"^'.*/", "'", talk.name)
        return Origin(name, len(encoded.ids) - 1, tuple(prepared.template.spans(*told)))


class LabelledTexts(Origins):
    """Those of a classification, by the number of their row."""

    def __init__(self, data: TextClassification, split: str) -> None:
        super().__init__(data, split)
        rows, texts, _ = data.texts(split)
        self._texts = dict(zip(rows.tolist(), texts, strict=True))

    def find(self, ids: np.ndarray, number: int | None) -> Origin | None:
        """The row, with its whole length."""
        if number not in self._texts:
            return None
        tokenizer = self.data.tokenizer
        begin = int(tokenizer.begin_of_text is not None)
        return Origin(f"text {number}", max(begin + len(tokenizer.encode(self._texts[number])), 1))


KINDS: dict[type[TextDataModule], type[Origins]] = {Instructions: Records, TextClassification: LabelledTexts}


def origins(data: TextDataModule, split: str) -> Origins:
    """What finds the texts of a split of the data."""
    return next((kind for known, kind in KINDS.items() if isinstance(data, known)), Unknown)(data, split)
