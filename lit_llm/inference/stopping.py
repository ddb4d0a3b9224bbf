"""From ids to text that may be shown: characters are whole, and nothing of a stop string is let out."""

import codecs
from collections.abc import Sequence

from lit_llm.data.tokenizer import Tokenizer


class TextStream:
    """Turns ids into text one by one; what may yet become a character or a stop string is held back.

    Args:
        tokenizer: What the ids mean.
        prompt: The ids before; if they hold no text, the space that some tokenizers begin every text with is left out.
        stop: Strings at which the text ends; they are no part of it. An empty one is refused.

    Raises:
        ValueError: If a stop string is empty.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = (), stop: Sequence[str] = ()) -> None:
        if "" in stop:
            raise ValueError("the stop string '' is empty, so every text would end before it begins")
        self.stopped = False
        self._tokenizer, self._stop = tokenizer, stop
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._begins = tokenizer.adds_space and set(prompt) <= {tokenizer.begin_of_text, tokenizer.end_of_text}

    def feed(self, new: int) -> str:
        """The text that an id lets out; nothing once a stop string has come."""
        if self.stopped:
            return ""
        bytes_of_new = self._tokenizer.decode_bytes([new])
        if self._begins and bytes_of_new:
            bytes_of_new, self._begins = bytes_of_new.removeprefix(b" "), False
        return self._let_out(self._decoder.decode(bytes_of_new))

    def close(self) -> str:
        """The rest, when no id follows; an unfinished character becomes U+FFFD."""
        if self.stopped:
            return ""
        text = self._let_out(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        return text

    def _let_out(self, text: str) -> str:
        self._held += text
        ends = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if ends:
            self.stopped = True
            return self._held[: min(ends)]
        kept = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        shown, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        return shown


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text are the beginning of a stop string."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
