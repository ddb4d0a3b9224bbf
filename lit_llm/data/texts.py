"""Whole texts of classes in batches: padded on the right to the longest of the batch, beside others of their length."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from lit_llm.batch import IGNORE_INDEX, TextBatch
from lit_llm.data.loader import BatchOrder, Loader, Rows, TrainLoader, permute
from lit_llm.data.tokenizer import Tokenizer
from lit_llm.usage import at

TOGETHER = 64  # batches whose texts are sorted by length together: more pad little less, and mix less


class Texts(Rows):
    """Texts as ids, with their classes.

    A text begins with the tokenizer's begin-of-text token, where there is one, and is cut off at `block_size` tokens.

    Args:
        texts: N texts.
        targets: (N,) classes; IGNORE_INDEX where unknown.
        rows: (N,) numbers of the texts in their source.
        tokenizer: Turns them into ids.
        block_size: Longest text in tokens.
    """

    unit = "texts"
    too_few = "lower --data.batch_size or hold out less"

    def __init__(
        self, texts: Sequence[str], targets: np.ndarray, rows: np.ndarray, tokenizer: Tokenizer, block_size: int
    ) -> None:
        self.targets, self.rows = targets, rows
        # Targets and lengths tell what is padding, so that it needs no id of its own.
        self.padding = tokenizer.end_of_text if tokenizer.end_of_text is not None else 0
        begin = [] if tokenizer.begin_of_text is None else [tokenizer.begin_of_text]
        self.ids: list[np.ndarray] = []
        self.truncated = 0
        for row, text in zip(rows.tolist(), texts, strict=True):
            with at(f"text {row + 1}"):
                ids = np.concatenate([begin, tokenizer.encode(text)]).astype(np.int32)
            if not len(ids):  # of a text that the tokenizer is silent about: a model reads one token at least
                ids = np.array([self.padding], dtype=np.int32)
            self.truncated += len(ids) > block_size
            self.ids.append(ids[:block_size].copy())  # a view would keep what is cut off
        self.lengths = np.array([len(ids) for ids in self.ids], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitems__(self, indices: Sequence[int]) -> TextBatch:
        """A batch; the text past the end is one token, of no class and in row -1."""
        some = np.array([i for i in indices if i < len(self)], dtype=np.int64)
        empty = len(indices) - len(some)
        lengths = np.append(self.lengths[some], [1] * empty).astype(np.int64)
        idx = np.full((len(indices), lengths.max()), self.padding, dtype=np.int64)  # (B, T)
        for row, i in enumerate(some):
            idx[row, : lengths[row]] = self.ids[i]
        targets = np.append(self.targets[some], [IGNORE_INDEX] * empty).astype(np.int64)
        rows = np.append(self.rows[some], [-1] * empty).astype(np.int64)
        return TextBatch(*map(torch.from_numpy, (idx, targets, lengths, rows)))


class LengthOrder(BatchOrder):
    """Batches of texts of similar length: a function of lengths, batch size, seed, epoch and rank alone.

    Texts are shuffled, sorted by length within 64 batches at a time, cut into batches, and these are shuffled again.

    Args:
        lengths: (N,) of the texts.
        order: As of `BatchOrder`, without its first argument. With a seed, the rest that fills no batch is left out,
            another one in each epoch; without one, each text comes once, in an order that is always the same.
        begun_with: Texts a batch, on all ranks together, that the epoch has begun with: their order stays that of its
            beginning. None: as many as now.
    """

    def __init__(self, lengths: np.ndarray, *order: Any, begun_with: int | None = None) -> None:
        super().__init__(len(lengths), *order)
        self.lengths, self.begun_with = lengths, begun_with or self.together

    @property
    def left(self) -> int:
        """Batches still to come."""
        whole = self.length // self.begun_with * self.begun_with
        return max((whole - self.done) // self.together, 1) if self.done else len(self)

    def __iter__(self) -> Iterator[list[int]]:
        together, key = self.begun_with, self.key or 0
        kept = permute(np.arange(self.length), self.length, key)
        batches = self.length // together if self.key is not None else len(self)
        kept = kept[: batches * together]
        parts = [kept[at : at + TOGETHER * together] for at in range(0, len(kept), TOGETHER * together)]
        ordered = np.concatenate([part[np.argsort(self.lengths[part], kind="stable")] for part in parts])
        numbers = permute(np.arange(batches), batches, key)
        if self.done or together != self.together:
            ordered = np.concatenate([ordered[n * together : (n + 1) * together] for n in numbers])[self.done :]
            numbers = np.arange(self.left)
        for number in numbers:
            shared = ordered[number * self.together : (number + 1) * self.together]
            own = shared[self.rank :: self.world_size].tolist()
            yield own or [self.length]  # a rank with nothing left gets the text past the end


class TextLoader(Loader):
    """Each text once, in batches of similar length."""

    rows: Texts

    def _order(self, done: int = 0) -> BatchOrder:
        place = (self.rank, self.world_size, done)
        return LengthOrder(self.rows.lengths, self.batch_size, self.seed, self.order_epoch, *place)


class TextTrainLoader(TextLoader, TrainLoader):
    """Shuffled batches of similar length, whose state Lightning keeps in the checkpoint.

    What a batch holds depends on how many texts all ranks read together. A run that goes on with another number has the
    texts that are left of its epoch in the order of the epoch's beginning, in batches of the new size.
    """

    _begun = (0, 0)  # an epoch, and how many texts a batch it has begun with, if not with as many as now

    @property
    def _begun_with(self) -> int:
        return self._begun[1] if self._begun[0] == self.epoch and self._begun[1] else self.batch_size * self.world_size

    def _order(self, done: int = 0) -> BatchOrder:
        place = (self.rank, self.world_size, done)
        how = (self.batch_size, self.seed, self.order_epoch, *place)
        return LengthOrder(self.rows.lengths, *how, begun_with=self._begun_with if done else None)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, and in what."""
        return super().state_dict() | {"together": self._begun_with}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            ValueError: If the state is one of other texts, or of another order of them.
        """
        super().load_state_dict(state)
        self._begun = (state["epoch"], state["together"])
