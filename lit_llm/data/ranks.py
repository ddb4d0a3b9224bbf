"""Byte-level BPEs that come along with a model, run by tiktoken."""

from typing import Any, Self

import tiktoken

from lit_llm.data.bpe import FASTER, PATTERN, TiktokenBased, encoding_of

# Of a rank file alone nobody can tell the rule for words and the control tokens: these are Llama 3's
# (https://github.com/meta-llama/llama-models/blob/main/models/llama3/tokenizer.py).
LLAMA_3_RANKS, LLAMA_3_CONTROL_TOKENS = 128_000, 256
LLAMA_3_NAMES = [
    *("begin_of_text", "end_of_text", "reserved_special_token_0", "reserved_special_token_1", "finetune_right_pad_id"),
    *("step_id", "start_header_id", "end_header_id", "eom_id", "eot_id", "python_tag", "image"),
]


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


def llama_3(content: bytes) -> Ranks:
    """Llama 3's tokenizer from its rank file, one base64 token and its rank a line.

    Raises:
        ValueError: If the ranks are not as many as Llama 3's, or cannot be read.
    """
    names = [*LLAMA_3_NAMES, *(f"reserved_special_token_{2 + i}" for i in range(LLAMA_3_CONTROL_TOKENS))]
    special = {f"<|{name}|>": LLAMA_3_RANKS + i for i, name in enumerate(names[:LLAMA_3_CONTROL_TOKENS])}
    text = content.decode("ascii").strip()
    if (count := text.count("\n") + 1) != LLAMA_3_RANKS:
        raise ValueError(
            f"it has {count} ranks, and of such files only Llama 3's with {LLAMA_3_RANKS} is known: the others do not "
            "say how they cut text into words; use a tokenizer.json of the same tokenizer"
        )
    state = {"name": "llama3", "pattern": FASTER[PATTERN], "ranks": text, "special": special}
    return Ranks(encoding_of(state), special["<|begin_of_text|>"], special["<|end_of_text|>"])
