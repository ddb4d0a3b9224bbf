"""Tokenizers, one protocol: text to ids and back. Text never yields control ids; those are put in by the caller."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import Any, Self

import numpy as np


class Tokenizer(ABC):
    """Text to ids and back.

    A tokenizer is either complete when built (`Tiktoken`, `Bytes`, `TokenizerFile`) or learns from the corpus
    (`Characters`, `BPE`): then `fit` runs once and the result is kept with the tokens.
    """

    vocab_size: int
    end_of_text: int | None  # the id between documents
    other_ends: tuple[int, ...] = ()  # further ids at which a generated text ends, as that of a turn in a conversation
    named_end: int | None = None  # `end_of_text`, where a user and not the tokenizer's files say it
    begin_of_text: int | None = None  # the id before every text, which `encode` leaves to the caller
    chat_template: str | None = None  # Jinja source that turns a conversation into a text
    adds_space: bool = False  # before every text, as sentencepiece does: `decode` takes that space away again
    strips: Mapping[str, tuple[bool, bool]] = {}  # control tokens that swallow the white space before, or after them

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Ids of a text, as an integer array. Control tokens spelt out in the text are encoded as plain text."""

    @abstractmethod
    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The UTF-8 bytes that the ids stand for, wherever they stand in a text; possibly the middle of a character.

        The bytes of a list are those of its parts in a row: a continuation keeps the space that it begins with.
        """

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Plain strings, numbers, lists and dicts from which `from_state` rebuilds this tokenizer."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild a tokenizer from its `state`."""

    @property
    def special_ids(self) -> dict[str, int]:
        """The control tokens: their ids by how a template spells them."""
        return {} if self.end_of_text is None else {"<|endoftext|>": self.end_of_text}

    def encode_after(self, text: str) -> np.ndarray:
        """Ids of a text that follows a control token; some kinds treat the beginning of a text in another way."""
        return self.encode(text)

    @cached_property
    def byte_lengths(self) -> np.ndarray:
        """(V,) bytes that each id stands for, as `decode_bytes` writes it."""
        return np.array([len(self.decode_bytes([i])) for i in range(self.vocab_size)])

    def encode_pieces(self, pieces: Sequence[str], after_control: bool = False) -> list[np.ndarray]:
        """Ids of a text that is given in pieces, by piece.

        They are those of the whole text, unless a token of it would lie across a border: then each piece is encoded by
        itself, because it has to be known which ids are whose.

        Args:
            pieces: The text.
            after_control: Whether it follows a control token.
        """
        encode = self.encode_after if after_control else self.encode
        ids = encode("".join(pieces))
        if len(pieces) == 1:
            return [ids]
        sizes = np.cumsum([len(well_formed(piece).encode()) for piece in pieces])
        ends = np.cumsum(self.byte_lengths[ids])
        added = int(ends[-1] - sizes[-1]) if len(ends) else 0  # the space of `adds_space`
        places = np.searchsorted(ends, sizes[:-1] + added, side="right")
        ends = np.concatenate([[0], ends])
        if added in (0, self.adds_space) and (ends[places] == sizes[:-1] + added).all():
            return np.split(ids, places)
        return [encode(pieces[0]), *(self.encode_after(piece) for piece in pieces[1:])]

    def settings(self) -> str:
        """What distinguishes this tokenizer from another one of its class before `fit`."""
        return ""

    @property
    def ends(self) -> frozenset[int]:
        """All ids at which a generated text ends."""
        return frozenset(self.other_ends) | (set() if self.end_of_text is None else {self.end_of_text})

    def end_at(self, name: str) -> None:
        """Let a special token stand between documents.

        Raises:
            ValueError: If there is none of this name, or the tokenizer learns from the corpus and brings its own.
        """
        if not self.is_fitted:
            raise ValueError(
                f"--data.end_of_text must be null for {type(self).__name__}, which has its own, got '{name}'"
            )
        names = self.special_ids
        if name not in names:
            raise ValueError(
                "--data.end_of_text must be a special token of the tokenizer "
                f"({', '.join(list(names)[:20]) or 'it has none'}), got '{name}'"
            )
        self.end_of_text = self.named_end = names[name]

    @property
    def is_fitted(self) -> bool:
        """Whether `encode` works yet."""
        return True

    def fit(self, texts: Iterable[str]) -> None:  # noqa: B027 (most kinds have nothing to learn)
        """Learn from the corpus, where this kind of tokenizer does."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text that the ids are from its beginning on; bytes that are no UTF-8 become U+FFFD."""
        content = self.decode_bytes(ids)
        return (content.removeprefix(b" ") if self.adds_space else content).decode("utf-8", errors="replace")

    def fingerprint(self) -> str:
        """Equal for tokenizers that give equal ids, whatever their chat templates."""
        state = {key: value for key, value in to_state(self).items() if key != "chat_template"}
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def well_formed(text: str) -> str:
    """A text that UTF-8 can hold: a lone surrogate becomes U+FFFD. JSON and the command line can contain some."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def to_state(tokenizer: Tokenizer) -> dict[str, Any]:
    """The plain dict that a checkpoint carries."""
    class_path = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}"
    beside = {"other_ends": list(tokenizer.other_ends), "chat_template": tokenizer.chat_template}
    said = {} if tokenizer.named_end is None else {"named_end": tokenizer.named_end}
    around = {key: value for key, value in beside.items() if value} | said
    return {"class_path": class_path, **tokenizer.state(), **around}


def from_state(state: dict[str, Any]) -> Tokenizer:
    """Rebuild the tokenizer that a checkpoint carries.

    Raises:
        ValueError: If the state names something that is no tokenizer.
    """
    module, _, name = str(state.get("class_path")).rpartition(".")
    try:
        cls = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError):  # TypeError: a relative name
        cls = None
    if not (isinstance(cls, type) and issubclass(cls, Tokenizer)):
        raise ValueError(
            f"the checkpoint names the tokenizer '{state.get('class_path')}', which cannot be imported here"
        )
    own = {key: value for key, value in state.items() if key not in ("class_path", "other_ends", "named_end")}
    tokenizer: Tokenizer = cls.from_state(own)
    tokenizer.other_ends = tuple(state.get("other_ends", ()))
    tokenizer.chat_template = state.get("chat_template")
    if (named := state.get("named_end")) is not None:
        tokenizer.end_of_text = tokenizer.named_end = named
    return tokenizer


class Bytes(Tokenizer):
    """The 256 bytes of UTF-8, and one id for the end of a text. Needs nothing and knows every text."""

    vocab_size = 257
    end_of_text = 256

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text, one a byte."""
        return np.frombuffer(well_formed(text).encode(), dtype=np.uint8)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes themselves; the end of a text is silent."""
        return bytes(i for i in ids if i < 256)

    def state(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild."""
        return cls()


class Characters(Tokenizer):
    """One id for each character of the corpus, in the order of code points (the tiny-shakespeare recipe).

    Args:
        end_of_text: Whether one more id marks the end of a document.
    """

    def __init__(self, end_of_text: bool = False) -> None:
        self.with_end = end_of_text
        self.characters = ""

    def settings(self) -> str:
        """Whether documents are separated."""
        return str(self.with_end)

    @property
    def is_fitted(self) -> bool:
        """Whether the characters are known."""
        return bool(self.characters)

    def fit(self, texts: Iterable[str]) -> None:
        """Collect the characters of the corpus."""
        found: set[str] = set()
        for text in texts:
            found.update(text)
        self._learn("".join(sorted(found)))

    def _learn(self, characters: str) -> None:
        self.characters = characters
        self.vocab_size = len(characters) + self.with_end
        self.end_of_text = len(characters) if self.with_end else None
        self._points = _code_points(characters)

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text, one a character.

        Raises:
            ValueError: If a character was not in the corpus.
        """
        points = _code_points(text)
        ids = np.searchsorted(self._points, points)
        known = self._points[np.minimum(ids, len(self._points) - 1)] == points
        if not known.all():
            stranger = text[int(np.argmin(known))]
            raise ValueError(
                f"the character {stranger!r} is not among the {len(self.characters)} of the corpus; "
                "leave it out, or use another tokenizer"
            )
        return ids

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The characters in UTF-8; the end of a text is silent."""
        text = "".join(self.characters[i] for i in ids if i < len(self.characters))
        return text.encode("utf-8", errors="replace")

    def state(self) -> dict[str, Any]:
        """The characters."""
        return {"characters": self.characters, "end_of_text": self.with_end}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild."""
        tokenizer = cls(state["end_of_text"])
        tokenizer._learn(state["characters"])
        return tokenizer


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32)
