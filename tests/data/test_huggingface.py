"""Our tokenizers as files of the `tokenizers` library: transformers loads them and gives equal ids."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceTrainer
from test_tokenizer_folder import folder
from tiny_tokenizers import KINDS, STRINGS

from lit_llm.data.bpe import BPE, PATTERN, Tiktoken, TokenizerFile, train_bpe
from lit_llm.data.huggingface import merges_of, tokenizer_files
from lit_llm.data.ranks import Ranks
from lit_llm.data.sentence_pieces import SentencePieces
from lit_llm.data.tokenizer import Bytes, Characters, Tokenizer
from lit_llm.data.tokenizer_folder import tokenizer_of


def fitted(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.fit(STRINGS)
    return tokenizer


def file_of(path: Path) -> Tokenizer:
    (path / "own.json").write_text(train_bpe(STRINGS, 400), "utf-8")
    return TokenizerFile(str(path / "own.json"))


OURS: dict[str, Callable[[Path], Tokenizer]] = {
    "bytes": lambda path: Bytes(),
    "characters": lambda path: fitted(Characters()),
    "characters with an end": lambda path: fitted(Characters(end_of_text=True)),
    "learned": lambda path: fitted(BPE(400)),
    "from a file": file_of,
    **{
        kind: lambda path, kind=kind: tokenizer_of(folder(path, KINDS[kind]().to_str(), tokenizer_config=SETTINGS))
        for kind in KINDS
    },
}
SETTINGS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "add_bos_token": True,
    "chat_template": "{{ messages[0].content }}!",
}


def loaded(path: Path, tokenizer: Tokenizer) -> Any:
    """What transformers makes of the files."""
    from transformers import AutoTokenizer

    path.mkdir()
    for name, content in tokenizer_files(tokenizer, block_size=64).items():
        (path / name).write_text(content, "utf-8")
    return AutoTokenizer.from_pretrained(path)


def check(ours: Tokenizer, theirs: Any, strings: list[str] = STRINGS) -> None:
    begin = [] if ours.begin_of_text is None else [ours.begin_of_text]
    for text in strings:
        ids = ours.encode(text).tolist()
        assert theirs.encode(text) == begin + ids, text
        assert theirs.encode(text, add_special_tokens=False) == ids, text
    assert theirs.eos_token_id == ours.end_of_text
    assert max(theirs.get_vocab().values()) + 1 == ours.vocab_size
    assert theirs.chat_template == ours.chat_template


@pytest.mark.parametrize("kind", OURS)
def test_transformers_gives_equal_ids(tmp_path: Path, kind: str) -> None:
    """On 100 strings; and text that comes back to us is the text that comes back to them."""
    assert len(STRINGS) == 100
    ours = OURS[kind](tmp_path)
    theirs = loaded(tmp_path / "out", ours)
    check(ours, theirs)
    assert theirs.model_max_length == 64
    if kind not in ("unigram", "words"):  # which lose some
        for text in STRINGS:
            assert theirs.decode(ours.encode(text).tolist()) == ours.decode(ours.encode(text).tolist())


@pytest.mark.parametrize("kind", OURS)
def test_what_was_written_is_read_again(tmp_path: Path, kind: str) -> None:
    """As a tokenizer with equal ids, of whatever class, with the same around a text."""
    ours = OURS[kind](tmp_path)
    loaded(tmp_path / "out", ours)
    again = tokenizer_of(tmp_path / "out")
    for text in STRINGS:
        assert again.encode(text).tolist() == ours.encode(text).tolist()
        assert again.decode_bytes(ours.encode(text).tolist()) == ours.decode_bytes(ours.encode(text).tolist())
    for name in ("vocab_size", "begin_of_text", "end_of_text", "chat_template", "adds_space"):
        assert getattr(again, name) == getattr(ours, name), name


def test_a_chat_is_made_a_text(tmp_path: Path) -> None:
    theirs = loaded(tmp_path / "out", OURS["byte fallback"](tmp_path))
    assert theirs.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi!"
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == SETTINGS["chat_template"]


def test_merges_are_those_that_were_learned() -> None:
    """Recovered from the ranks alone."""
    theirs = json.loads(train_bpe(STRINGS, 400))["model"]
    ours = json.loads(tokenizer_files(fitted(BPE(400)), 7)["tokenizer.json"])["model"]
    assert ours["merges"] == theirs["merges"]
    assert ours["vocab"].items() >= theirs["vocab"].items()


@pytest.mark.slow
def test_merges_are_gpt2s(shared: Path) -> None:
    """All 50,000 in their order."""
    folder = shared / "tokenizers" / "gpt2"
    ours = json.loads(tokenizer_files(tokenizer_of(folder), 7)["tokenizer.json"])["model"]
    theirs = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    assert [" ".join(merge) for merge in ours["merges"]] == theirs["merges"]
    assert ours["vocab"] == theirs["vocab"]


def test_a_token_that_is_never_merged_has_no_merge() -> None:
    assert list(merges_of({b"a": 0, b"b": 1, b"ab": 2, b"bab": 3, b"xyz": 4})) == [(b"a", b"b"), (b"b", b"ab")]


def test_the_rule_for_words_is_written_as_others_know_it(tmp_path: Path) -> None:
    """Ollama knows a few by their letters."""
    content = tokenizer_files(fitted(BPE(300)), 7)["tokenizer.json"]
    assert json.loads(content)["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] == PATTERN


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("gpt2", "llama2", "llama3")]


@pytest.mark.parametrize("name", [*SLOW, "stories260K"])
def test_published_tokenizers(shared: Path, tmp_path: Path, name: str) -> None:
    ours = tokenizer_of(shared / "weights" / name if name == "stories260K" else shared / "tokenizers" / name)
    check(ours, loaded(tmp_path / "out", ours))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "cl100k_base"])
def test_published_encodings(gpt2: Tiktoken, shared: Path, tmp_path: Path, name: str) -> None:
    ours = Tiktoken(name)
    text = (shared / "text" / "wikipedia_sample.txt").read_text("utf-8")[:200_000]
    theirs = loaded(tmp_path / "out", ours)
    check(ours, theirs, [*STRINGS, text])


class Own(Bytes):
    """Somebody's own."""

    def encode(self, text: str) -> Any:
        return super().encode(text[::-1])


def test_a_kind_that_cannot_be_said_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the tokenizer Own cannot be said as a tokenizer.json .* --format lit"):
        tokenizer_files(Own(), 7)


def test_characters_that_utf8_cannot_hold_are_refused() -> None:
    tokenizer = Characters()
    tokenizer.fit(["a\ud800"])
    with pytest.raises(ValueError, match="Characters knows a lone surrogate"):
        tokenizer_files(tokenizer, 7)


def test_a_rule_for_words_that_the_library_reads_otherwise() -> None:
    state = {**fitted(BPE(300)).state(), "pattern": r"(?x) \p{L}+ | .", "name": "own"}
    tokenizer = Ranks.from_state({**state, "begin_of_text": None, "end_of_text": None, "chat_template": None})
    with pytest.raises(ValueError, match="cuts text into words by the rule"):
        tokenizer_files(tokenizer, 7)


def test_a_sentencepiece_model_of_another_kind_is_refused() -> None:
    """Unigram ones join pieces by their odds, which no list of merges says."""
    content = io.BytesIO()
    sentences = iter([f"the cat sat on mat {number}" for number in range(200)])
    settings = {"model_type": "unigram", "vocab_size": 40, "hard_vocab_limit": False, "minloglevel": 2}
    SentencePieceTrainer.train(sentence_iterator=sentences, model_writer=content, **settings)
    with pytest.raises(ValueError, match=r"is of the kind UNIGRAM with .* only BPE .* --format lit keeps it as it is"):
        tokenizer_files(SentencePieces(content.getvalue()), 7)
