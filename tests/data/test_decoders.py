"""Decoding by every kind of decoder equals the library's; real tokenizers where REAL_TOKENIZERS names their folders."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tiny_tokenizers import STRINGS
from tokenizers import Tokenizer as HuggingFaceTokenizer

from lit_llm.data.tokenizer import from_state, to_state
from lit_llm.data.tokenizer_folder import tokenizer_of
from lit_llm.data.tokenizer_json import TokenizerJSON
from lit_llm.inference.stopping import TextStream

REAL = ("gemma3", "llama3_1", "qwen3", "gptoss", "deepseek_v3", "llama2")
REPLACE: dict[str, Any] = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
FALLBACK, FUSE = {"type": "ByteFallback"}, {"type": "Fuse"}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
DECODERS: dict[str, Any] = {
    "none": None,
    "byte level": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "gemma": {"type": "Sequence", "decoders": [REPLACE, FALLBACK, FUSE]},
    "llama 2": {"type": "Sequence", "decoders": [REPLACE, FALLBACK, FUSE, STRIP]},
    "strip of each": {"type": "Sequence", "decoders": [REPLACE, STRIP]},
    "a pattern": {"type": "Replace", "pattern": {"Regex": "▁+"}, "content": " "},
    "metaspace": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    "metaspace, first": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
    "metaspace, never": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False},
    "word pieces": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "fuse": FUSE,
}
TOKENS = ["<unk>", "<s>", "a", "▁a", "▁", "##b", "<0xE2>", "<0x96>", "<0x81>", "<0x41>", ".", "b"]
ADDED = [("<|x|>", True), ("▁▁", False), ("▁▁▁", False), ("é", False), ("a b", False), ("<h1>", False)]
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def content(decoder: Any) -> dict[str, Any]:
    """A tokenizer with pieces of all kinds."""
    added = [
        {"id": len(TOKENS) + n, "content": name, "special": is_special, **FLAGS}
        for n, (name, is_special) in enumerate(ADDED)
    ]
    model = {"type": "WordLevel", "vocab": {token: i for i, token in enumerate(TOKENS)}, "unk_token": "<unk>"}
    around = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor"))
    return {"version": "1.0", **around, "added_tokens": added, "decoder": decoder, "model": model}


@pytest.mark.parametrize("kind", DECODERS)
def test_every_token_and_pair_is_decoded_as_the_library_does(kind: str) -> None:
    """Added ones too; bytes of a token are those it adds behind another."""
    said = json.dumps(content(DECODERS[kind]))
    theirs, ours = HuggingFaceTokenizer.from_str(said), TokenizerJSON(said)
    ours = from_state(to_state(ours))
    ids = range(ours.vocab_size)
    for talk in [[i] for i in ids] + [[i, j] for i in ids for j in ids] + [[6, 7, 8], [9, 6, 7, 8, 2], [3, 12, 13, 3]]:
        assert ours.decode(talk) == theirs.decode(talk, skip_special_tokens=False), talk
    letter = TOKENS.index("b")
    for i in ids:
        if not TOKENS[i:] or not TOKENS[i].startswith("<0x"):
            behind = theirs.decode([letter, i, letter], skip_special_tokens=False)
            last = theirs.decode([letter, letter], skip_special_tokens=False)
            wanted = len(behind.encode()) - len(last.encode())
            if "\ufffd" not in behind:
                assert ours.byte_lengths[i] == wanted, i


@pytest.mark.parametrize("kind", ["byte level", "gemma", "llama 2", "metaspace", "metaspace, never"])
def test_a_stream_gives_the_same_text(kind: str) -> None:
    """Bytes of one character come together; the space that begins a text is left out where the decoder does so."""
    tokenizer = TokenizerJSON(json.dumps(content(DECODERS[kind])))
    for ids in ([3, 4, 3, 12, 13], [2, 13, 14, 2], [3, *([6, 7, 8] if "a" in kind else []), 2]):
        if kind == "byte level":
            ids = [i for i in ids if not 6 <= i <= 8]
        stream = TextStream(tokenizer)
        assert "".join([*map(stream.feed, ids), stream.close()]).lstrip() == tokenizer.decode(ids).lstrip()


@pytest.mark.parametrize("name", REAL)
def test_real_tokenizers(name: str) -> None:
    """All ids, and texts in many scripts."""
    folder = Path(os.environ.get("REAL_TOKENIZERS", "")) / name
    if not (folder / "tokenizer.json").is_file():
        pytest.skip(f"no tokenizer {name}: set REAL_TOKENIZERS to a folder with {name}/tokenizer.json")
    ours, theirs = tokenizer_of(folder), HuggingFaceTokenizer.from_file(str(folder / "tokenizer.json"))
    wrong = [i for i in range(ours.vocab_size) if ours.decode([i]) != theirs.decode([i], skip_special_tokens=False)]
    assert not wrong
    for text in [*STRINGS, "a  b", "    x = 1\n        y", "\t\tz", "<h1>"]:
        ids = ours.encode(text).tolist()
        assert ids == theirs.encode(text, add_special_tokens=False).ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
        assert ours.byte_lengths[ids].sum() - ours.adds_space * bool(ids) == len(ours.decode(ids).encode())
