"""Batches of each kind as lines: where padding begins, which places belong together."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_llm.batch import IGNORE_INDEX, Batch, PackedBatch, PreferenceBatch, TextBatch
from lit_llm.show.counts import Bin, Counts
from lit_llm.show.lines import describe, lines

NO = IGNORE_INDEX
FILLER = 9


def tensor(*rows: list[int]) -> Tensor:
    return torch.tensor(rows)


@pytest.mark.parametrize(
    ("idx", "targets", "length"),
    [
        ([1, 2, 3, 4], [2, 3, 4, 5], 4),
        ([1, 2, FILLER, FILLER], [2, 3, NO, NO], 2),
        ([1, 2, 3, FILLER], [2, 3, 4, NO], 3),
        ([1, 2, 3, 4], [NO, 3, NO, NO], 4),  # the last words of a prompt
        ([1, 2, 2, 2], [2, NO, NO, NO], 1),  # a text that has ended, filled up with its last token
        ([FILLER] * 4, [NO] * 4, 0),  # the row of a rank that has nothing left
    ],
)
def test_where_padding_begins(idx, targets, length) -> None:
    (line,) = lines(Batch(tensor(idx), tensor(targets)), FILLER)
    assert (line.length, len(line.idx)) == (length, 4)


def test_packed_texts() -> None:
    """Padding begins the count of documents anew; a prompt's last words that look like it are no padding."""
    batch = PackedBatch(
        tensor([1, 2, 3, 4, 4, 9, 9], [1, 2, 3, 4, 5, 6, 7]),
        tensor([NO, 3, NO, 5, NO, NO, NO], [2, 3, 4, 5, 6, 7, 8]),
        tensor([1, 1, 1, 2, 2, 0, 0], [0, 0, 1, 1, 1, 2, 2]),
    )
    first, second = lines(batch, FILLER)
    assert [(here.start, here.stop) for here in first.stretches] == [(0, 3), (3, 5)]
    assert [(here.start, here.stop) for here in second.stretches] == [(0, 2), (2, 5), (5, 7)]


def test_texts_with_classes() -> None:
    """Lengths and rows are those of the batch; a filled-up row of a rank is none of the data."""
    targets, lengths, rows = (torch.tensor(values) for values in ([1, NO, NO], [2, 3, 1], [17, 4, -1]))
    made = lines(TextBatch(tensor([5, 6, 0], [5, 6, 7], [0, 0, 0]), targets, lengths, rows), FILLER)
    assert [(line.label, line.length, line.number) for line in made] == [(1, 2, 17), (None, 3, 4)]


def test_pairs() -> None:
    """The chosen ones come first; both of a pair have its number."""
    idx = tensor([1, 2], [1, 3], [1, 4], [1, 5])
    made = lines(PreferenceBatch(idx, idx + 1, torch.tensor([6, 8])), FILLER)
    named = [(line.number, line.name) for line in made]
    assert named == [(6, "chosen"), (8, "chosen"), (6, "rejected"), (8, "rejected")]


class Other(NamedTuple):
    idx: Tensor
    targets: Tensor
    weight: Tensor


def test_other_batches() -> None:
    """Any tuple that begins with ids and targets is shown; of anything else there are no lines, but its shapes."""
    idx = tensor([1, 2, 3], [4, 5, 6])
    assert len(lines(Other(idx, idx + 1, torch.ones(2)), FILLER)) == 2
    assert [line.label for line in lines((idx, torch.tensor([0, 1])), FILLER)] == [0, 1]
    for batch in ({"idx": idx}, (idx.float(), idx), (idx, idx[:, :2]), [idx], idx):
        assert lines(batch, FILLER) == []
    assert describe(Other(idx, idx, torch.ones(2))).startswith("Other: idx (2, 3) torch.int64, targets (2, 3)")
    assert describe({"text": ["a"]}) == "dict: text list"


def test_counts() -> None:
    """By hand: two rows of which one is half padding, the end of a document in the other, and one target gone wrong."""
    counts = Counts(end_of_text=8)
    idx, targets = tensor([1, 2, 8, 3, 4, 5], [1, 2, 3, 9, 9, 9]), tensor([2, 8, 3, 4, 7, 6], [NO, 3, 4, NO, NO, NO])
    counts.add(lines(Batch(idx, targets), FILLER))
    assert (counts.places, counts.tokens, counts.learnt, counts.rows, counts.batches) == (12, 9, 8, 2, 1)
    assert counts.lengths == [3, 3, 3]
    assert (counts.checked, counts.followed) == (6, 5)


def test_histogram() -> None:
    """Every length is in one of at most 12 steps of a round size."""
    counts = Counts(None)
    counts.lengths = [3, 7, 7, 12]
    assert counts.histogram() == [Bin(n, n, {3: 1, 7: 2, 12: 1}.get(n, 0)) for n in range(3, 13)]
    counts.lengths = np.random.default_rng(0).integers(37, 1900, 500).tolist()
    bins = counts.histogram()
    assert len(bins) <= 12
    assert [each.texts for each in bins] == [sum(b.low <= n <= b.high for n in counts.lengths) for b in bins]
    assert sum(each.texts for each in bins) == 500
