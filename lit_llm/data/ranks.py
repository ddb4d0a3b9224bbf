"""Byte-level BPEs that come along with a model, run by tiktoken."""

from typing import Any, Self

import tiktoken

from lit_llm.data.bpe import TiktokenBased, encoding_of


class Ranks(TiktokenBased):
    """A byte-level BPE by the ranks of its tokens, with what its source says of the text around.

    Args:
        encoding: The tiktoken object that does the work.
        begin_of_text: The id before every text. None: there is none.
        end_of_text: The id between documents. None: there is none.
        chat_template: Jinja source that turns a conversation into a text. None: there is none.
    """

    def __init__(
        self,
        encoding: tiktoken.Encoding,
        begin_of_text: int | None = None,
        end_of_text: int | None = None,
        chat_template: str | None = None,
    ) -> None:
        self._use(encoding)
        self.begin_of_text, self.end_of_text = begin_of_text, end_of_text
        self.chat_template = chat_template

    def state(self) -> dict[str, Any]:
        """Pattern, ranks and control tokens, and what the source says of the text around."""
        around = ("begin_of_text", "end_of_text", "chat_template")
        return {**super().state(), **{name: getattr(self, name) for name in around}}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild, without the file it once came from."""
        return cls(encoding_of(state), state["begin_of_text"], state["end_of_text"], state["chat_template"])
