"""Bytes and characters as tokens, text that UTF-8 cannot hold, and what a checkpoint carries of a tokenizer."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_llm.data.bpe import BPE
from lit_llm.data.numbers import Numbers
from lit_llm.data.tokenizer import Bytes, Characters, Tokenizer, from_state, to_state, well_formed

ANY = st.text(st.characters(categories=("L", "M", "N", "P", "S", "Z", "C", "Cs")))  # lone surrogates as well
TEXT = "the cat sat on the mat, 12 times\n"


def characters(text: str, end_of_text: bool = False) -> Characters:
    tokenizer = Characters(end_of_text)
    tokenizer.fit([text])
    return tokenizer


def bpe() -> BPE:
    tokenizer = BPE(270)
    tokenizer.fit([TEXT])
    return tokenizer


@given(ANY)
def test_well_formed_keeps_all_that_utf8_can_hold(text: str) -> None:
    """D8: a pair of surrogates is its character, a lone one is U+FFFD, and everything else stays as it is."""
    pairs = re.sub("[\ud800-\udbff][\udc00-\udfff]", lambda m: chr(_joined(m[0])), text)
    assert well_formed(text) == re.sub("[\ud800-\udfff]", "\ufffd", pairs)


def _joined(pair: str) -> int:
    high, low = map(ord, pair)
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)


@given(ANY)
def test_bytes_round_trip(text: str) -> None:
    tokenizer = Bytes()
    ids = tokenizer.encode(text)
    assert ids.tolist() == list(well_formed(text).encode())
    assert tokenizer.decode(ids.tolist()) == well_formed(text)


@given(st.text())
def test_characters_round_trip(text: str) -> None:
    tokenizer = characters(text + "x")
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids.tolist()) == text
    assert len(ids) == len(text)


@given(st.text(min_size=1), st.text())
def test_characters_are_numbered_by_code_point(one: str, two: str) -> None:
    """However the corpus comes in pieces."""
    tokenizer = Characters()
    tokenizer.fit([one, two])
    assert tokenizer.decode(range(tokenizer.vocab_size)) == "".join(sorted(set(one + two)))


def test_characters_refuse_a_stranger_by_name() -> None:
    for stranger in ("é", "\0", "\U0010ffff"):  # between, before and after those that are known
        with pytest.raises(ValueError, match=f"the character {re.escape(repr(stranger))} is not among the 3 of"):
            characters("abz").encode("za" + stranger + "b")


def test_the_end_of_a_text_is_silent_and_no_character() -> None:
    for tokenizer in (Bytes(), characters("abc", end_of_text=True)):
        assert tokenizer.end_of_text == tokenizer.vocab_size - 1
        assert tokenizer.decode([*tokenizer.encode("ab").tolist(), tokenizer.end_of_text]) == "ab"
    assert characters("abc").end_of_text is None


@pytest.mark.parametrize("tokenizer", [Bytes(), characters("<|endoftext|>", True)], ids=["bytes", "characters"])
def test_a_control_token_spelt_out_is_plain_text(tokenizer: Tokenizer) -> None:
    """D11."""
    ids = tokenizer.encode("<|endoftext|>").tolist()
    assert tokenizer.end_of_text not in ids
    assert tokenizer.decode(ids) == "<|endoftext|>"


@pytest.mark.parametrize("tokenizer", [Bytes(), characters(TEXT), characters(TEXT, True), bpe()])
def test_a_checkpoint_carries_the_tokenizer(tokenizer: Tokenizer) -> None:
    """Through JSON, and equal in all that matters."""
    again = from_state(json.loads(json.dumps(to_state(tokenizer))))
    assert type(again) is type(tokenizer)
    assert np.array_equal(again.encode(TEXT), tokenizer.encode(TEXT))
    assert (again.vocab_size, again.end_of_text) == (tokenizer.vocab_size, tokenizer.end_of_text)
    assert again.is_fitted
    assert again.fingerprint() == tokenizer.fingerprint()


def test_numbers_are_their_own_ids() -> None:
    """With one space between, also where a text goes on; and through a checkpoint."""
    numbers = from_state(json.loads(json.dumps(to_state(Numbers(300)))))
    assert numbers.encode(" 0 12\n299  007 ").tolist() == [0, 12, 299, 7]
    assert numbers.encode("").tolist() == []
    assert (numbers.decode([0, 12, 299]), numbers.decode_bytes([7, 0])) == ("0 12 299", b" 7 0")
    assert [piece.tolist() for piece in numbers.encode_pieces(["0 12", " 299", " 7 7"])] == [[0, 12], [299], [7, 7]]
    assert (numbers.vocab_size, numbers.end_of_text, numbers.ends) == (300, None, frozenset())
    for word in ("300", "-1", "1.0", "x", "٣", "9" * 5000):
        with pytest.raises(ValueError, match=rf"^'{word}' is no id .* write numbers from 0 to 299 with spaces between"):
            numbers.encode(f"1 {word}")
    with pytest.raises(ValueError, match="vocab_size 0 cannot be"):
        Numbers(0)


def test_fingerprints_differ_where_ids_may() -> None:
    kinds = [Bytes(), characters("abc"), characters("abc", True), characters("abd"), bpe(), Numbers(3), Numbers(4)]
    assert len({tokenizer.fingerprint() for tokenizer in kinds}) == len(kinds)


@pytest.mark.parametrize(
    "name",
    [None, "", "Bytes", "os.system", "builtins.dict", "nowhere.Bytes", "lit_llm.data.tokenizer.well_formed", "..Bytes"],
)
def test_a_state_can_name_nothing_but_a_tokenizer(name: str | None) -> None:
    with pytest.raises(ValueError, match=re.escape(f"names the tokenizer '{name}', which cannot be imported")):
        from_state({"class_path": name})
