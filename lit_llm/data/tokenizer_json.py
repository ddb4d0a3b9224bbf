"""Tokenizers of any kind from a `tokenizer.json`, run by the `tokenizers` library."""

import json
import re
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from tokenizers import Tokenizer as HuggingFaceTokenizer

from lit_llm.data.bpe import byte_alphabet
from lit_llm.data.tokenizer import Tokenizer, well_formed

# Put before the names of control tokens while the library runs: it finds a control token that is spelt out in a text
# by its name, in the vocabulary too, and this character is one that Unicode keeps out of texts.
MARK = "\ufdd0"


class TokenizerJSON(Tokenizer):
    """A tokenizer of the `tokenizers` library: byte-level or sentencepiece-like BPE, unigram, words.

    Args:
        content: The text of a `tokenizer.json`; its special tokens are control tokens.
        begin_of_text: The id before every text. None: there is none.
        end_of_text: The id between documents. None: there is none.
        chat_template: Jinja source that turns a conversation into a text. None: there is none.

    Raises:
        ValueError: If the content is something else, or its ids are not those that the library gives.
    """

    def __init__(
        self,
        content: str,
        begin_of_text: int | None = None,
        end_of_text: int | None = None,
        chat_template: str | None = None,
    ) -> None:
        self.content, self.chat_template = content, chat_template
        self.begin_of_text, self.end_of_text = begin_of_text, end_of_text
        data = json.loads(content)
        special = [token for token in data["added_tokens"] if token["special"]]
        self._control = {token["content"]: token["id"] for token in special}
        self.strips = {t["content"]: (t["lstrip"], t["rstrip"]) for t in special if t["lstrip"] or t["rstrip"]}
        added = {token["content"]: token["id"] for token in data["added_tokens"]}
        try:
            self._runner = HuggingFaceTokenizer.from_str(json.dumps(_marked(data, set(self._control))))
        except Exception as error:  # the library raises bare ones
            raise ValueError(f"the tokenizers library cannot read it ({error})") from error
        self._runner.encode_special_tokens = True
        vocab = {name.removeprefix(MARK): i for name, i in self._runner.get_vocab().items()}
        if wrong := [name for name, i in added.items() if vocab.get(name) != i]:
            raise ValueError(
                f"it gives the token '{wrong[0]}' the id {added[wrong[0]]}, where the tokenizers library has "
                f"{vocab.get(wrong[0])}"
            )
        self.vocab_size = max(vocab.values()) + 1
        self._names, self._decoder = {i: name for name, i in vocab.items()}, self._runner.decoder
        self._bytes = _bytes_of(self._names, data["decoder"], self._decoder)
        first = self.encode("a").tolist()
        self.adds_space = bool(first) and self.decode_bytes(first) == f" {self.decode(first)}".encode()

    @property
    def special_ids(self) -> dict[str, int]:
        """The control tokens of the file."""
        return self._control

    def encode_after(self, text: str) -> np.ndarray:
        """Ids of a text that follows a control token: the library is given one, by the name that no text has."""
        first = MARK + next((name for name in self._control if name not in self.strips), "")
        if first == MARK:
            return self.encode(text)
        self._runner.encode_special_tokens = False
        try:
            ids = self._runner.encode(first + well_formed(text).replace(MARK, "\ufffd"), add_special_tokens=False).ids
        finally:
            self._runner.encode_special_tokens = True
        return np.array(ids[1:], dtype=np.uint32)

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text; control tokens in it are plain text."""
        return np.array(self._runner.encode(well_formed(text), add_special_tokens=False).ids, dtype=np.uint32)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of the ids, as in the middle of a text; an id that the vocabulary leaves free is silent."""
        return b"".join(self._bytes.get(i, b"") for i in ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text that the library's decoder makes of the ids; special tokens are spelt out."""
        names = [self._names[i] for i in ids if i in self._names]
        return " ".join(names) if self._decoder is None else self._decoder.decode(names)

    def state(self) -> dict[str, Any]:
        """The file, and what its folder says of the text around."""
        own = ("content", "begin_of_text", "end_of_text", "chat_template")
        return {name: getattr(self, name) for name in own}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild."""
        return cls(**state)


def vocabulary(data: dict[str, Any]) -> dict[str, int]:
    """The id of each token in a tokenizer.json, added ones as well."""
    vocab = data["model"]["vocab"]
    own = vocab if isinstance(vocab, dict) else {token: i for i, (token, _) in enumerate(vocab)}
    return {**own, **{token["content"]: token["id"] for token in data["added_tokens"]}}


def _marked(data: dict[str, Any], control: set[str]) -> dict[str, Any]:
    """What the library is to run: control tokens under names that no text has, and nothing around a text."""

    def name(token: Any) -> Any:
        return MARK + token if isinstance(token, str) and token in control else token

    model = dict(data["model"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = {name(token): i for token, i in model["vocab"].items()}
    else:  # of a unigram model, with scores
        model["vocab"] = [[name(token), score] for token, score in model["vocab"]]
    if "unk_token" in model:
        model["unk_token"] = name(model["unk_token"])
    added = [{**token, "content": name(token["content"])} for token in data["added_tokens"]]
    without = dict.fromkeys(("post_processor", "truncation", "padding"))
    return {**data, "model": model, "added_tokens": added, **without}


def _bytes_of(names: dict[int, str], decoder: dict[str, Any] | None, runner: Any) -> dict[int, bytes]:
    """The bytes of each id in the middle of a text: added tokens go through the decoder like all others."""
    steps = decoder.get("decoders", [decoder]) if decoder else []
    kinds = {step["type"] for step in steps}
    if kinds == {"ByteLevel"}:
        byte_of = {char: byte for byte, char in enumerate(byte_alphabet())}
        return {
            i: token.encode() if set(token) - byte_of.keys() else bytes(byte_of[c] for c in token)
            for i, token in names.items()
        }
    spellings = [_spelling(step) for step in steps if step["type"] in ("Replace", "Metaspace")]
    is_simple = kinds <= {"Replace", "Metaspace", "ByteFallback", "Fuse"} | ({"Strip"} if "Fuse" in kinds else set())
    pieces = {}
    for i, token in names.items():
        byte = re.fullmatch("<0x([0-9A-Fa-f]{2})>", token) if "ByteFallback" in kinds else None
        if byte:
            pieces[i] = bytes.fromhex(byte[1])
        elif kinds and is_simple and None not in spellings:
            text = token
            for old, new in filter(None, spellings):
                text = text.replace(old, new)
            pieces[i] = text.encode()
        else:
            pieces[i] = _between(token, runner)
    return pieces


def _between(token: str, runner: Any) -> bytes:
    """The bytes that a decoder makes of a token between two others."""
    if runner is None:
        return f" {token}".encode()
    before, after = runner.decode(["a"]), runner.decode(["a", "a"])
    whole = runner.decode(["a", token, "a"])
    return whole[len(before) : len(whole) - (len(after) - len(before))].encode()


def _spelling(step: dict[str, Any]) -> tuple[str, str] | None:
    """What a decoder writes for what; None for a regular expression."""
    if step["type"] == "Metaspace":
        return step["replacement"], " "
    return (step["pattern"]["String"], step["content"]) if "String" in step["pattern"] else None
