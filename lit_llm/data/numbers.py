"""Ids written as what they are, for models of something else than text: sorting, sums, music, moves of a game."""

import re
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from lit_llm.data.tokenizer import Tokenizer

MAX_DIGITS = 18  # of an id in 64 bits


class Numbers(Tokenizer):
    """Whole numbers with spaces between, each its own id: `0 0 2 1 0 1`. Nothing ends a text.

    Args:
        vocab_size: Ids there are, from 0 on.

    Raises:
        ValueError: If there is none.
    """

    end_of_text = None
    adds_space = True  # a text in the middle begins with the space before its first number

    def __init__(self, vocab_size: int) -> None:
        if vocab_size < 1:
            raise ValueError(f"vocab_size {vocab_size} cannot be: there is at least 1 id")
        self.vocab_size = vocab_size

    def settings(self) -> str:
        """How many ids there are."""
        return str(self.vocab_size)

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text, one a number.

        Raises:
            ValueError: If something else stands there, or a number that is no id.
        """
        words = text.split()
        for word in words:
            is_number = re.fullmatch(rf"[0-9]{{1,{MAX_DIGITS}}}", word) is not None
            if not is_number or int(word) >= self.vocab_size:
                raise ValueError(
                    f"{word!r} is no id of this model, which reads ids and no text: write numbers from 0 to "
                    f"{self.vocab_size - 1} with spaces between"
                )
        return np.array([int(word) for word in words], dtype=np.int64)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Each number after a space."""
        return "".join(f" {i}" for i in ids).encode()

    def state(self) -> dict[str, Any]:
        """How many ids there are."""
        return {"vocab_size": self.vocab_size}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild."""
        return cls(state["vocab_size"])
