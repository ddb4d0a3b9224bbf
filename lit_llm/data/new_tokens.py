"""Control tokens that are added to a tokenizer, behind all that it has."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Self

import numpy as np

from lit_llm.data.tokenizer import Tokenizer, from_state, to_state


class WithNewTokens(Tokenizer):
    """A tokenizer with new control tokens: their ids follow on its own, and text is encoded as before.

    Args:
        base: The tokenizer, which becomes a part of this one.
        names: How templates spell the new tokens, in the order of their ids.

    Raises:
        ValueError: If a name is empty, there twice, or one that the tokenizer has.
    """

    def __init__(self, base: Tokenizer, names: Sequence[str]) -> None:
        for number, name in enumerate(names):
            if not name.strip() or name in names[:number]:
                wrong = "there twice" if name.strip() else "blank"
                raise ValueError(f"the new token {name!r} is {wrong}; each has a name of its own")
        self.base, self.names = base, list(names)
        self.chat_template, self.other_ends = base.chat_template, base.other_ends
        base.chat_template, base.other_ends = None, ()  # said once, where it may be changed
        if hasattr(base, "vocab_size"):
            self.vocab_size = base.vocab_size + len(names)  # what is asked for, where it is yet to be learned
        if base.is_fitted:
            self._extend()

    def _extend(self) -> None:
        base = self.base
        for name in self.names:
            if name in base.special_ids or self._is_ordinary(name):
                raise ValueError(f"the tokenizer has a token '{name}' already; leave it out of --data.new_tokens")
        self.new_ids = {name: base.vocab_size + number for number, name in enumerate(self.names)}
        self.vocab_size = base.vocab_size + len(self.names)
        self.begin_of_text, self.end_of_text = base.begin_of_text, base.end_of_text
        self.adds_space, self.strips = base.adds_space, base.strips

    def _is_ordinary(self, name: str) -> bool:
        """Whether text that is spelt so is one token, which other programs would then take for the new one."""
        try:
            return len(self.base.encode(name)) == 1
        except ValueError:  # of a character that it does not know
            return False

    @property
    def special_ids(self) -> dict[str, int]:
        """The control tokens, the new ones last."""
        return {**self.base.special_ids, **self.new_ids}

    @property
    def is_fitted(self) -> bool:
        """Whether the tokenizer is complete."""
        return self.base.is_fitted

    def fit(self, texts: Iterable[str]) -> None:
        """Learn from the corpus, where this kind of tokenizer does; the new tokens come behind."""
        self.base.fit(texts)
        self._extend()

    def settings(self) -> str:
        """Those of the tokenizer, and the new tokens."""
        return f"{self.base.settings()} {self.names}"

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text; control tokens in it are plain text."""
        return self.base.encode(text)

    def encode_after(self, text: str) -> np.ndarray:
        """Ids of a text that follows a control token."""
        return self.base.encode_after(text)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of the ids; new tokens are spelt out."""
        first = self.base.vocab_size
        parts = (
            "".join(self.names[i - first] for i in part).encode() if is_new else self.base.decode_bytes(list(part))
            for is_new, part in groupby(ids, lambda i: i >= first)
        )
        return b"".join(parts)

    def state(self) -> dict[str, Any]:
        """The state of the tokenizer, and the names of the new tokens."""
        return {"base": to_state(self.base), "names": self.names}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild."""
        return cls(from_state(state["base"]), state["names"])


def with_new_tokens(tokenizer: Tokenizer, names: Sequence[str]) -> tuple[Tokenizer, range]:
    """A tokenizer with new control tokens, and the ids that are new to a model of it.

    A tokenizer that has been given exactly these before, as in a run that goes on, stays as it is: no id is new.

    Args:
        tokenizer: The tokenizer.
        names: Of the tokens. None of them: nothing changes.

    Raises:
        ValueError: As in `WithNewTokens`.
    """
    if not names or (isinstance(tokenizer, WithNewTokens) and tokenizer.names == list(names)):
        return tokenizer, range(0)
    extended = WithNewTokens(tokenizer, names)
    return extended, range(extended.vocab_size - len(names), extended.vocab_size) if extended.is_fitted else range(0)
