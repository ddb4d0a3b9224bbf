"""Windows over a token file, as batches of ids and of those that follow."""

import numpy as np
import torch

from lit_llm.batch import IGNORE_INDEX, Batch, PackedBatch
from lit_llm.data.loader import Rows


class Windows(Rows):
    """Windows of `block_size` tokens and their targets, gathered a batch at a time.

    Args:
        tokens: (N,) ids, usually mapped from disk.
        block_size: Length T of a window.
        stride: Tokens from the start of a window to the start of the next.
        vocab_size: Number of ids; a larger one in the file is an error.
        border: Id that ends a document; batches then say which document each token belongs to. None: they do not.
        to_the_end: Whether windows cover the whole text, the last ones filled up with targets that carry no loss.

    Raises:
        ValueError: If there is not one whole window, or not one target where `to_the_end` is set.
    """

    unit = "windows"
    too_few = "lower --data.batch_size, --data.block_size or --data.stride"

    def __init__(
        self,
        tokens: np.ndarray,
        block_size: int,
        stride: int,
        vocab_size: int,
        border: int | None = None,
        to_the_end: bool = False,
    ) -> None:
        self.tokens, self.block_size, self.stride = tokens, block_size, stride
        self.vocab_size, self.border, self.to_the_end = vocab_size, border, to_the_end
        if to_the_end:
            self.length = max(-(-(len(tokens) - 1) // stride), 0)
        else:
            self.length = (len(tokens) - 1 - block_size) // stride + 1
        if self.length < 1:
            wanted = "a token and its next one" if to_the_end else f"one window of {block_size} and its next token"
            raise ValueError(
                f"the text has {len(tokens)} tokens, too few for {wanted}; give more text, or change "
                "--data.block_size or the share that is held out"
            )

    def __len__(self) -> int:
        return self.length

    def __getitems__(self, indices: list[int] | np.ndarray) -> Batch | PackedBatch:
        """A batch: (B, T) ids and the (B, T) ids that follow them."""
        numbers = np.asarray(indices, dtype=np.int64)  # (B,)
        positions = numbers[:, None] * self.stride + np.arange(self.block_size + 1)  # (B, T + 1)
        is_past = numbers >= self.length
        if ragged := self.to_the_end or bool(is_past.any()):
            missing = (positions >= len(self.tokens)) | is_past[:, None]
            positions = np.minimum(positions, len(self.tokens) - 1)
        ids = self.tokens[positions].astype(np.int64)
        if ids.max() >= self.vocab_size:
            row, column = np.argwhere(ids >= self.vocab_size)[0]
            raise ValueError(
                f"the token file holds the id {ids[row, column]} at position {positions[row, column]}, "
                f"beyond the vocabulary of {self.vocab_size}; delete its folder and it is made again"
            )
        # Without gaps between the rows, as a GPU takes them over while it computes.
        idx, targets = (torch.from_numpy(part).contiguous() for part in (ids[:, :-1], ids[:, 1:]))
        if ragged and missing.any():
            targets = targets.masked_fill(torch.from_numpy(missing[:, 1:]), IGNORE_INDEX)
        if self.border is None:
            return Batch(idx, targets)
        ends = idx == self.border
        documents = ends.cumsum(dim=1) - ends.long()  # the end-of-text token still belongs to what it ends
        return PackedBatch(idx, targets, documents)
