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
        batch_size: Texts a batch, on each rank.
        seed: Chooses the order; the rest that fills no batch is then left out, another one in each epoch. None: each
            text once, in an order that is always the same.
        epoch: Which order.
        rank: This process.
        world_size: Processes that share the texts.
        start: Batches already handed out in this epoch.
    """

    def __init__(self, lengths: np.ndarray, *order: Any) -> None:
        super().__init__(len(lengths), *order)
        self.lengths = lengths

    def __iter__(self) -> Iterator[list[int]]:
        together, key = self.batch_size * self.world_size, self.key or 0
        kept = permute(np.arange(self.length), self.length, key)
        if self.key is not None:
            kept = kept[: len(self) * together]
        parts = [kept[at : at + TOGETHER * together] for at in range(0, len(kept), TOGETHER * together)]
        ordered = np.concatenate([part[np.argsort(self.lengths[part], kind="stable")] for part in parts])
        for number in permute(np.arange(len(self)), len(self), key)[self.start :]:
            shared = ordered[number * together : (number + 1) * together]
            own = shared[self.rank :: self.world_size].tolist()
            yield own or [self.length]  # a rank with nothing left gets the text past the end


class TextLoader(Loader):
    """Each text once, in batches of similar length."""

    rows: Texts

    def _order(self, start: int = 0) -> BatchOrder:
        place = (self.rank, self.world_size, start)
        return LengthOrder(self.rows.lengths, self.batch_size, self.seed, self.epoch, *place)


class TextTrainLoader(TextLoader, TrainLoader):
    """Shuffled batches of similar length, whose state Lightning keeps in the checkpoint.

    What a batch holds depends on how many texts all ranks read together, so a run goes on in the middle of an epoch
    with as many; in what number of processes does not matter.
    """

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, and in what."""
        return super().state_dict() | {"together": self.batch_size * self.world_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            ValueError: If the state is one of other texts, or of another order of them.
        """
        here = self.batch_size * self.world_size
        if state["rows"] and state["together"] != here:
            raise ValueError(
                f"the checkpoint lies within an epoch of {state['together']} texts a step on all devices, and here are "
                f"{here}: texts would come twice or never; set --data.batch_size to keep to that number"
            )
        super().load_state_dict(state)
