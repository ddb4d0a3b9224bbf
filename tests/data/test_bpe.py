"""Byte-level BPE: learned by `tokenizers`, run by tiktoken, equal to published ids; and files of another kind."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from lit_llm.data.bpe import BPE, END_OF_TEXT, PROBE, Tiktoken, TokenizerFile, encoding_from_json, train_bpe
from lit_llm.data.tokenizer import well_formed

TEXT = "the cat sat on the mat; they'll see 2,048 cats.\n\n  Don't the cats' mats fit?\r\n\tnaïve 日本 🙂 " * 3
CONTENT = train_bpe([TEXT], 300)
ENCODING, THEIRS = encoding_from_json(CONTENT), HuggingFaceTokenizer.from_str(CONTENT)
# Text of the kind that rules for words disagree on, as often as any other.
RAW = st.text(st.sampled_from("aeT'sLl \n\r\t\u00a0\u0301\u200d1²Ⅷ_-.…日é🙂\x00\x85"))
ANY = st.one_of(RAW, st.text(), st.text(st.characters(categories=("Cs", "L", "Z"))))


@pytest.fixture(scope="module")
def fitted() -> BPE:
    tokenizer = BPE(300)
    tokenizer.fit([TEXT])
    return tokenizer


def reference(shared: Path, kind: str, name: str) -> list[tuple[str, list[int]]]:
    """Texts and their ids, as published or as tiktoken and `tokenizers` gave them."""
    data = json.loads((shared / "tokenizers" / "reference_encodings.json").read_text("utf-8"))
    if kind == "published":
        return [(row["text"], row["ids"]) for row in data["published"][name]]
    computed = next(value for key, value in data.items() if key.startswith("computed"))
    return list(zip(data["texts"], computed[name], strict=True))


@given(ANY)
def test_tiktoken_gives_the_ids_of_tokenizers(text: str) -> None:
    text = well_formed(text)
    assert ENCODING.encode_ordinary(text) == THEIRS.encode(text, add_special_tokens=False).ids


def test_every_case_of_the_probe_is_equal_in_both() -> None:
    for part in [PROBE, *PROBE.split(" "), PROBE[::-1], PROBE.swapcase(), PROBE * 2]:
        assert ENCODING.encode_ordinary(part) == THEIRS.encode(part, add_special_tokens=False).ids


@given(text=ANY)
def test_round_trip(fitted: BPE, text: str) -> None:
    """D8: every text comes back, with U+FFFD for what UTF-8 cannot hold."""
    assert fitted.decode(fitted.encode(text).tolist()) == well_formed(text)


@given(text=ANY)
def test_a_state_gives_equal_ids(fitted: BPE, text: str) -> None:
    again = BPE.from_state(json.loads(json.dumps(fitted.state())))
    assert again.encode(text).tolist() == fitted.encode(text).tolist()


def test_merges_are_learned(fitted: BPE) -> None:
    """A frequent word is one token; the bytes and the end of a text are there whatever the corpus."""
    assert len(fitted.encode(" the")) == 1
    assert fitted.vocab_size == 300
    assert fitted.end_of_text == 299
    assert fitted.decode([*fitted.encode("cat").tolist(), 299]) == "cat" + END_OF_TEXT


def test_a_control_token_in_the_text_is_plain_text(fitted: BPE, gpt2: Tiktoken) -> None:
    """D11: no crash and no control id, neither in a learned vocabulary nor in a published one."""
    for tokenizer in (fitted, gpt2):
        ids = tokenizer.encode(f"a{END_OF_TEXT} b").tolist()
        assert tokenizer.end_of_text not in ids
        assert tokenizer.decode(ids) == f"a{END_OF_TEXT} b"


def test_an_id_that_is_free_is_silent() -> None:
    special = {"<|a|>": 400, END_OF_TEXT: 402}  # 300 to 399 and 401 are nobody's
    encoding = tiktoken.Encoding("gaps", pat_str=".", mergeable_ranks=ENCODING._mergeable_ranks, special_tokens=special)
    tokenizer = BPE.__new__(BPE)
    tokenizer._use(encoding)
    assert tokenizer.vocab_size == 403
    assert tokenizer.decode([400, 350, 401, 402, 10**6]) == "<|a|><|endoftext|>"


def test_training_is_repeatable() -> None:
    assert train_bpe([TEXT[:50], TEXT[50:]], 290) == train_bpe([TEXT[:50], TEXT[50:]], 290)


def test_a_small_text_gives_fewer_ids() -> None:
    """And the vocabulary says how many there are."""
    tokenizer = BPE(5000)
    tokenizer.fit(["abab abab"])
    assert 257 < tokenizer.vocab_size < 270
    assert tokenizer.end_of_text == tokenizer.vocab_size - 1
    assert tokenizer.encode("abab abab").max() < tokenizer.vocab_size


def test_no_room_for_the_bytes() -> None:
    with pytest.raises(ValueError, match="vocab_size 256 has no room for the 256 bytes and the end-of-text token"):
        BPE(256)
    tokenizer = BPE(257)
    tokenizer.fit([TEXT])
    assert tokenizer.encode("thé").tolist() == [ENCODING.encode_single_token(bytes([byte])) for byte in "thé".encode()]


def test_special_tokens_are_the_last_ids_in_their_order() -> None:
    content = train_bpe([TEXT], 290, [END_OF_TEXT, "<|user|>", "<|bot|>"])
    encoding = encoding_from_json(content)
    assert encoding._special_tokens == {END_OF_TEXT: 287, "<|user|>": 288, "<|bot|>": 289}


def test_a_special_token_spelt_like_an_ordinary_one() -> None:
    with pytest.raises(ValueError, match="the special token 'the' is an ordinary one"):
        train_bpe([TEXT], 300, [END_OF_TEXT, "the"])


def test_one_word_of_a_million_letters_takes_linear_time() -> None:
    """D12: four times the length takes about four times as long; were it quadratic, sixteen times."""
    tokenizer = BPE(270)
    tokenizer.fit(["a" * 64])

    def seconds(length: int) -> float:
        start = time.process_time()
        assert tokenizer.decode(tokenizer.encode("a" * length).tolist()) == "a" * length
        return time.process_time() - start

    assert min(seconds(1_000_000) for _ in range(2)) < 9 * min(seconds(250_000) for _ in range(4))


# Files.


def test_a_file_gives_the_ids_it_was_trained_for(tmp_path: Path) -> None:
    path = tmp_path / "a tokenizer é.json"
    path.write_text(CONTENT, "utf-8")
    assert TokenizerFile(str(path)).encode(TEXT).tolist() == THEIRS.encode(TEXT, add_special_tokens=False).ids


def other_kind(model: object, trainer: object, change: Callable[[HuggingFaceTokenizer], None]) -> str:
    tokenizer = HuggingFaceTokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    change(tokenizer)
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer.to_str()


def bpe_with(change: Callable[[HuggingFaceTokenizer], None]) -> str:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False)
    return other_kind(models.BPE(), trainer, change)


def lower(tokenizer: HuggingFaceTokenizer) -> None:
    tokenizer.normalizer = normalizers.Lowercase()


def prefix(tokenizer: HuggingFaceTokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def metaspace(tokenizer: HuggingFaceTokenizer) -> None:
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()


def unchanged(tokenizer: HuggingFaceTokenizer) -> None:
    pass


OTHERS = {
    "a text": "once upon a time",
    "nothing": "",
    "a list": "[]",
    "another object": '{"model": {"vocab": {}}}',
    "a binary file": b"\x80\x02\xff\x00",
    "half a file": CONTENT[: len(CONTENT) // 2],
    "a vocabulary without a byte": CONTENT.replace('"A": ', '"AAAA": '),
    "words": other_kind(models.WordLevel(unk_token="a"), trainers.WordLevelTrainer(show_progress=False), unchanged),
    "unigram": other_kind(models.Unigram(), trainers.UnigramTrainer(vocab_size=60, show_progress=False), unchanged),
    "sentence pieces": other_kind(models.BPE(), trainers.BpeTrainer(vocab_size=99, show_progress=False), metaspace),
}
UNLIKE = {"lower case": bpe_with(lower), "a space in front": bpe_with(prefix)}


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_that_is_something_else(tmp_path: Path, kind: str) -> None:
    """L3: one sentence that names the file."""
    path = write(tmp_path / "other.json", OTHERS[kind])
    with pytest.raises(ValueError, match=re.escape(path)) as caught:
        TokenizerFile(path)
    assert re.search("is no byte-level BPE|cannot read the tokenizer file", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", UNLIKE)
def test_a_file_that_tiktoken_would_run_differently(tmp_path: Path, kind: str) -> None:
    """Other ids than the model was trained with would be a silent disaster."""
    path = write(tmp_path / "other.json", UNLIKE[kind])
    with pytest.raises(ValueError, match=re.escape(f"'{path}' prepares or merges text in a way")):
        TokenizerFile(path)
    assert TokenizerFile(write(tmp_path / "good.json", bpe_with(unchanged))).vocab_size == 280


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(ValueError, match=re.escape(f"cannot read the tokenizer file '{path}'")):
            TokenizerFile(str(path))


# Published encodings.


@pytest.mark.parametrize("kind", ["published", "computed"])
def test_gpt2_gives_its_reference_ids(gpt2: Tiktoken, shared: Path, kind: str) -> None:
    """By tiktoken and from `tokenizer.json`; control tokens spelt out are the one thing that we read as text."""
    from_file = TokenizerFile(str(shared / "tokenizers" / "gpt2" / "tokenizer.json"))
    for text, ids in reference(shared, kind, "gpt2"):
        if END_OF_TEXT not in text:
            assert gpt2.encode(text).tolist() == ids
            assert from_file.encode(text).tolist() == ids
        assert from_file.decode(ids) == gpt2.decode(ids) == text


def test_cl100k_gives_its_reference_ids(gpt2: Tiktoken, shared: Path) -> None:
    tokenizer = Tiktoken("cl100k_base")
    for kind in ("published", "computed"):
        for text, ids in reference(shared, kind, "cl100k_base"):
            assert END_OF_TEXT in text or tokenizer.encode(text).tolist() == ids


def test_gpt2_counts_zeros_as_published(gpt2: Tiktoken, shared: Path) -> None:
    data = json.loads((shared / "tokenizers" / "reference_encodings.json").read_text("utf-8"))
    for count, ids in data["published"]["gpt2_zeros"]["ids_of_n_zeros"].items():
        assert gpt2.encode("0" * int(count)).tolist() == ids


def test_gpt2s_file_equals_tiktokens_gpt2_on_real_text(gpt2: Tiktoken, shared: Path) -> None:
    from_file = TokenizerFile(str(shared / "tokenizers" / "gpt2" / "tokenizer.json"))
    text = PROBE + (shared / "text" / "wikipedia_sample.txt").read_text("utf-8")[:200_000]
    assert np.array_equal(from_file.encode(text), gpt2.encode(text))
    assert (from_file.vocab_size, from_file.end_of_text) == (gpt2.vocab_size, gpt2.end_of_text) == (50257, 50256)


def test_an_encoding_that_nobody_has_published() -> None:
    with pytest.raises(ValueError, match=r"tiktoken has no encoding 'gpt5'; it has .*gpt2"):
        Tiktoken("gpt5")


def test_an_encoding_that_cannot_be_had(unreachable: Path) -> None:
    """L6, L7: without a network and a cache, one sentence says what to do, and no half file is left (D14)."""
    with pytest.raises(ValueError, match="'gpt2' is not cached and could not be downloaded") as caught:
        Tiktoken("gpt2")
    assert "TIKTOKEN_CACHE_DIR" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(unreachable.iterdir()) == []


def test_a_damaged_cache_is_not_trusted(unreachable: Path, shared: Path) -> None:
    """D14: a cached file with another hash is as good as none."""
    for path in (shared / "tokenizers" / "tiktoken_cache").iterdir():
        (unreachable / path.name).write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="'gpt2' is not cached and could not be downloaded"):
        Tiktoken("gpt2")


def test_a_page_instead_of_the_encoding(unreachable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D14: what a portal answers has another hash; it is refused and not kept."""
    monkeypatch.setattr("tiktoken.load.read_file", lambda address: b"<html>log in first</html>")
    with pytest.raises(ValueError, match=r"'gpt2' is not cached and could not be downloaded \(Hash mismatch"):
        Tiktoken("gpt2")
    assert list(unreachable.iterdir()) == []
