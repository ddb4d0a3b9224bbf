"""Tokenizers from a sentencepiece `.model` file (Llama 1 and 2), run by the sentencepiece library."""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from lit_llm.data.tokenizer import Tokenizer, well_formed

SPACE = "▁"  # U+2581: what the library writes for a space


class SentencePieces(Tokenizer):
    """A sentencepiece model (Kudo and Richardson, 2018, https://arxiv.org/abs/1808.06226).

    A text begins with the begin-of-text token if the model has one: that is how Llama was trained.

    Args:
        content: The bytes of a `.model` file.

    Raises:
        ValueError: If the content is something else, or the sentencepiece library is not installed.
    """

    def __init__(self, content: bytes) -> None:
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise ValueError(
                "the library that runs sentencepiece models is not installed; pip install 'lit-llm[sentencepiece]', or "
                "use a tokenizer.json of the same tokenizer"
            ) from error
        self.content = content
        try:
            self._runner = SentencePieceProcessor(model_proto=content)
        except RuntimeError as error:
            raise ValueError("the sentencepiece library finds no model in it") from error
        self.vocab_size = self._runner.vocab_size()
        begin, end = self._runner.bos_id(), self._runner.eos_id()  # -1: there is none
        self.begin_of_text, self.end_of_text = begin if begin >= 0 else None, end if end >= 0 else None
        self._bytes = [self._bytes_of(i) for i in range(self.vocab_size)]
        self.adds_space = self.decode_bytes(self.encode("a").tolist()) == b" a"

    @property
    def ids(self) -> dict[str, int]:
        """The id of each piece."""
        return {self._runner.id_to_piece(i): i for i in range(self.vocab_size)}

    @property
    def control(self) -> dict[str, int]:
        """The ids of the pieces that stand for no text."""
        runner = self._runner
        return {name: i for name, i in self.ids.items() if runner.is_control(i) or runner.is_unknown(i)}

    @property
    def special_ids(self) -> dict[str, int]:
        """The control tokens of the model; the unknown one among them."""
        return self.control

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text; control tokens in it are plain text."""
        return np.array(self._runner.encode(well_formed(text)), dtype=np.uint32)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of the ids; control tokens are spelt out, and an id beyond the vocabulary is silent."""
        return b"".join(self._bytes[i] for i in ids if i < self.vocab_size)

    def _bytes_of(self, i: int) -> bytes:
        piece = self._runner.id_to_piece(i)
        if self._runner.is_byte(i):
            return bytes.fromhex(piece.removeprefix("<0x").removesuffix(">"))
        return piece.replace(SPACE, " ").encode()

    def state(self) -> dict[str, Any]:
        """The file in base64, and what its folder says of the text around."""
        around = ("begin_of_text", "end_of_text", "chat_template")
        return {"model": b64encode(self.content).decode(), **{name: getattr(self, name) for name in around}}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild."""
        tokenizer = cls(b64decode(state["model"]))
        for name in ("begin_of_text", "end_of_text", "chat_template"):
            setattr(tokenizer, name, state[name])
        return tokenizer
