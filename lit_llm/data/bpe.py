"""Byte-level BPE tokenizers: published ones, ones from a file, ones learned from the corpus; tiktoken runs them all."""

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import tiktoken

from lit_llm.data.tokenizer import Tokenizer, well_formed

END_OF_TEXT = "<|endoftext|>"
# Llama 3's rule for cutting text into words: exporters recognise it, which a rule of our own would not be.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# GPT-2's own rule: what the `tokenizers` library means by a byte-level pre-tokenizer without a pattern.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same rules, their contractions drawn together: a quarter faster in tiktoken (possessive quantifiers are slower).
FASTER = {
    PATTERN: PATTERN.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[stmd]|re|ve|ll)"),
    GPT2_PATTERN: GPT2_PATTERN.replace("'s|'t|'re|'ve|'m|'ll|'d|", "'(?:[stmd]|re|ve|ll)|"),
}
# Where tokenizer files differ: case and contractions, digits, white space, marks that some compose, scripts, symbols.
PROBE = "I'll WE'RE don't (x_1+=2**10)  1234567.89\t\tnaïve cafe\u0301 ﬁ Ⅷ \r\n\n  日本語 हिन्दी עִבְרִית 🙂👩‍🚀 “…”   \n "


class TiktokenBased(Tokenizer):
    """A byte-level BPE that tiktoken runs."""

    _encoding: tiktoken.Encoding | None = None

    def _use(self, encoding: tiktoken.Encoding) -> None:
        self._encoding = encoding
        self.vocab_size = encoding.n_vocab
        self.end_of_text = encoding._special_tokens.get(END_OF_TEXT)

    @property
    def encoding(self) -> tiktoken.Encoding:
        """The tiktoken object that does the work."""
        assert self._encoding is not None, "fit() comes first"
        return self._encoding

    @property
    def is_fitted(self) -> bool:
        """Whether there are ranks."""
        return self._encoding is not None

    @property
    def special_ids(self) -> dict[str, int]:
        """The control tokens of the encoding."""
        return dict(self.encoding._special_tokens)

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text; `<|endoftext|>` in it is plain text."""
        if not self.encoding.special_tokens_set:
            # encode_to_numpy would look for them all the same, and finds a match of no characters at each place.
            return np.array(self.encoding.encode_ordinary(well_formed(text)), dtype=np.uint32)
        return self.encoding.encode_to_numpy(well_formed(text), disallowed_special=())

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of the ids; control tokens are spelt out, and an id that the vocabulary leaves free is silent."""
        parts = []
        for i in ids:
            with suppress(KeyError):
                parts.append(self.encoding.decode_single_token_bytes(i))
        return b"".join(parts)

    def state(self) -> dict[str, Any]:
        """Pattern, ranks (one base64 token and its rank a line, tiktoken's file format) and control tokens."""
        ranks = sorted(self.encoding._mergeable_ranks.items(), key=lambda item: item[1])
        lines = "\n".join(f"{b2a_base64(token, newline=False).decode()} {rank}" for token, rank in ranks)
        special = dict(self.encoding._special_tokens)
        return {"name": self.encoding.name, "pattern": self.encoding._pat_str, "ranks": lines, "special": special}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild, without the file or the download it once came from."""
        tokenizer = cls.__new__(cls)
        tokenizer._use(encoding_of(state))
        return tokenizer


class Tiktoken(TiktokenBased):
    """A published encoding of tiktoken (https://github.com/openai/tiktoken), downloaded once and cached by it.

    Args:
        name: `gpt2`, `cl100k_base` or `o200k_base`.

    Raises:
        ValueError: If there is no such encoding, or it is not cached and cannot be downloaded.
    """

    def __init__(self, name: str = "gpt2") -> None:
        self.name = name
        if name not in tiktoken.list_encoding_names():
            raise ValueError(f"tiktoken has no encoding '{name}'; it has {', '.join(tiktoken.list_encoding_names())}")
        try:
            self._use(tiktoken.get_encoding(name))
        except (OSError, ValueError) as error:  # requests' errors are OSErrors too; ValueError: not what was published
            reason = type(error).__name__ if isinstance(error, OSError) else error
            raise ValueError(
                f"the encoding '{name}' is not cached and could not be downloaded ({reason}); go online "
                "once, or set TIKTOKEN_CACHE_DIR to a writable folder that holds it, or use a tokenizer that needs no "
                "download (--data.tokenizer BPE or Bytes)"
            ) from error


class BPE(TiktokenBased):
    """Byte-level BPE learned from the corpus itself (Sennrich et al., 2016, https://arxiv.org/abs/1508.07909).

    Args:
        vocab_size: Ids in all: the 256 bytes, the merges, and the end-of-text token, which is the last.

    Raises:
        ValueError: If `vocab_size` has no room for the bytes.
    """

    def __init__(self, vocab_size: int = 4096) -> None:
        if vocab_size < 257:
            raise ValueError(f"vocab_size {vocab_size} has no room for the 256 bytes and the end-of-text token")
        self.vocab_size = vocab_size

    def settings(self) -> str:
        """The size asked for."""
        return str(self.vocab_size)

    def fit(self, texts: Iterable[str]) -> None:
        """Learn the merges; a small corpus may give fewer than asked for."""
        self._use(encoding_from_json(train_bpe(texts, self.vocab_size)))


class TokenizerFile(TiktokenBased):
    """A byte-level BPE from a `tokenizer.json`, as `lit-llm tokenizer train` writes it; run by tiktoken.

    Args:
        path: The file.

    Raises:
        ValueError: If the file is missing or holds something else.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            content = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read the tokenizer file '{path}': {error}") from error
        self._use(encoding_from_json(content, path))


def encoding_of(state: dict[str, Any]) -> tiktoken.Encoding:
    """The tiktoken object that a state describes."""
    ranks = {}
    for line in state["ranks"].split("\n"):
        token, rank = line.split(" ")
        ranks[a2b_base64(token)] = int(rank)
    return tiktoken.Encoding(
        state["name"], pat_str=state["pattern"], mergeable_ranks=ranks, special_tokens=state["special"]
    )


def train_bpe(texts: Iterable[str], vocab_size: int, special_tokens: Sequence[str] = (END_OF_TEXT,)) -> str:
    """Train a byte-level BPE with the `tokenizers` library.

    Args:
        texts: The corpus, in pieces.
        vocab_size: Ids in all; the special tokens are the last of them.
        special_tokens: Control tokens, in the order of their ids.

    Returns:
        The content of a `tokenizer.json`.

    Raises:
        ValueError: If the text itself gives a token that is spelt like a special one.
    """
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as HuggingFaceTokenizer

    tokenizer = HuggingFaceTokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    for token in special_tokens:
        if tokenizer.token_to_id(token) is not None:
            raise ValueError(f"the special token '{token}' is an ordinary one of this text; spell it as in <|{token}|>")
    tokenizer.add_special_tokens(list(special_tokens))
    return tokenizer.to_str(pretty=True)


def encoding_from_json(content: str, path: str = "tokenizer.json") -> tiktoken.Encoding:
    """The tiktoken encoding that gives the same ids as a byte-level BPE of the `tokenizers` library.

    Raises:
        ValueError: If the content is something else, or tiktoken would give other ids.
    """
    from tokenizers import Tokenizer as HuggingFaceTokenizer

    try:
        data = json.loads(content)
        special = {token["content"]: token["id"] for token in data["added_tokens"]}
        byte_of = {char: byte for byte, char in enumerate(byte_alphabet())}
        vocab = {token: i for token, i in data["model"]["vocab"].items() if token not in special}
        ranks = {bytes(byte_of[char] for char in token): i for token, i in vocab.items()}
        if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
            raise ValueError(f"the byte {missing[0]} has no token")
        pattern = _pattern(data["pre_tokenizer"])
        encoding = tiktoken.Encoding(Path(path).stem, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
        theirs = HuggingFaceTokenizer.from_str(content).encode(PROBE, add_special_tokens=False).ids
    except Exception as error:  # the `tokenizers` library raises bare ones
        raise ValueError(
            f"'{path}' is no byte-level BPE (a tokenizer.json) that can be read ({type(error).__name__}: {error}); "
            "`lit-llm tokenizer train` writes one"
        ) from error
    if encoding.encode_ordinary(PROBE) != theirs:
        raise ValueError(
            f"'{path}' prepares or merges text in a way that tiktoken does not know: it would give other ids than "
            "the `tokenizers` library; use a byte-level BPE without a normalizer"
        )
    return encoding


def _pattern(pre_tokenizer: dict[str, Any]) -> str:
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    pattern = next((step["pattern"]["Regex"] for step in steps if step["type"] == "Split"), GPT2_PATTERN)
    return FASTER.get(pattern, pattern)


def byte_alphabet() -> list[str]:
    """The character that byte-level BPE files write for each byte: itself if it prints, else one from U+0100 on."""
    prints = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in prints else chr(next(others)) for byte in range(256)]
