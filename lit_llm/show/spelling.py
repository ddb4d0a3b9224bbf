"""Tokens as text that can be shown: every byte visible, none of it a command to a terminal."""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from lit_llm.data.tokenizer import Tokenizer

INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # categories of Unicode
PICTURES = {chr(code): chr(0x2400 + code) for code in range(32)}  # Unicode's signs for control characters
MARKED = {**PICTURES, "\n": "⏎\n", "\t": "⇥", "\x7f": "␡"}
# For a terminal that cannot show them.
PLAIN_SIGNS = str.maketrans(
    {"⏎": "\\n", "⇥": "\\t", "⟦": "[[", "⟧": "]]", "«": "<<", "»": ">>", "█": "#", "–": "-", "·": "_", "…": "..."}
)


class Token(NamedTuple):
    """A token of a row.

    Args:
        id: Its number.
        text: How it is shown.
        carries_loss: Whether the model is asked for it.
        is_special: Whether it is a control token, or one without a text.
    """

    id: int
    text: str
    carries_loss: bool = False
    is_special: bool = False

    @property
    def cell(self) -> str:
        """The text in the cell of a table: in one line, spaces visible."""
        return self.text.replace("\n", "").replace(" ", "·")


class Speller:
    """Shows ids as text, each by itself: what is the middle of a character is shown by its bytes.

    Args:
        tokenizer: Whose ids they are.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._special = {i: name for name, i in tokenizer.special_ids.items()}
        self._texts: dict[int, tuple[str, bool]] = {}

    def token(self, id_: int, carries_loss: bool = False) -> Token:
        """One token."""
        if id_ not in self._texts:
            self._texts[id_] = self._shown(id_)
        text, is_special = self._texts[id_]
        return Token(id_, text, carries_loss, is_special)

    def tokens(self, ids: Sequence[int], carries_loss: Sequence[bool]) -> list[Token]:
        """Several."""
        return [self.token(id_, carries) for id_, carries in zip(ids, carries_loss, strict=True)]

    def _shown(self, id_: int) -> tuple[str, bool]:
        if id_ in self._special:
            return visible(self._special[id_]), True
        content = self.tokenizer.decode_bytes([id_])
        return (visible(content.decode("utf-8", errors="backslashreplace")), False) if content else (f"<{id_}>", True)


def visible(text: str) -> str:
    """A text with signs for what is not seen: control characters, line ends (which stay), marks without a width."""
    return "".join(
        MARKED.get(char) or (f"\\u{ord(char):04x}" if unicodedata.category(char) in INVISIBLE else char)
        for char in text
    )
