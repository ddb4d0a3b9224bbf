"""Texts that are read in pieces and tokenized as wholes."""

import io
import tracemalloc
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from source_files import write

from lit_llm.data.bpe import GPT2_PATTERN, PATTERN, PROBE, Tiktoken, encoding_from_json, train_bpe
from lit_llm.data.sources import PIECE, Reading, Source, cut

ENCODING = encoding_from_json(train_bpe([PROBE * 3 + "the cat's mats fit, they'll see 12 cats.\n" * 9], 330))
RANKS = ENCODING._mergeable_ranks
PATTERNS = {
    name: tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=RANKS, special_tokens={})
    for name, pattern in {"gpt2": GPT2_PATTERN, "llama3": PATTERN}.items()
}
WORDS = st.one_of(st.text(max_size=20), st.text(st.sampled_from("aT's1 \n\r\t_-.,é\u0301日\u00a0"), max_size=20))


@pytest.mark.parametrize("encoding", PATTERNS.values(), ids=PATTERNS)
@given(words=st.lists(WORDS, max_size=12), size=st.integers(4, 40))
def test_pieces_tokenize_as_the_whole(encoding: tiktoken.Encoding, words: list[str], size: int) -> None:
    """Wherever the cuts fall, by the rules of GPT-2 and of Llama 3; a letter and a space are never far."""
    text = "".join(word + "x " for word in words)
    pieces = list(cut(io.StringIO(text, newline=""), size))
    assert "".join(pieces) == text
    assert [i for piece in pieces for i in encoding.encode_ordinary(piece)] == encoding.encode_ordinary(text)


@given(st.text(st.sampled_from("a b\n1é"), max_size=200), st.integers(1, 9))
def test_pieces_give_the_whole_text_and_stay_small(text: str, size: int) -> None:
    """Also where no letter comes before a space: then a text is cut anywhere."""
    pieces = list(cut(io.StringIO(text, newline=""), size))
    assert "".join(pieces) == text
    assert all(pieces)
    assert max(map(len, pieces), default=0) <= 9 * size


@pytest.mark.parametrize("size", [997, 30_011])
@pytest.mark.parametrize("name", ["the-verdict.txt", "wikipedia_sample.txt", "tinystories_sample.txt"])
def test_pieces_of_real_text_tokenize_as_the_whole(gpt2: Tiktoken, shared: Path, name: str, size: int) -> None:
    text = (shared / "text" / name).read_text("utf-8")[:150_000]
    pieces = list(cut(io.StringIO(text, newline=""), size))
    assert len(pieces) > len(text) // size // 2
    for encoding in (gpt2.encoding, PATTERNS["llama3"]):
        assert [i for piece in pieces for i in encoding.encode_ordinary(piece)] == encoding.encode_ordinary(text)


def test_a_long_row_comes_in_pieces(tmp_path: Path) -> None:
    text = "letters and spaces " * (PIECE // 8)
    for suffix in (".jsonl", ".parquet", ".txt"):
        (document,) = Source(str(write(tmp_path / f"a{suffix}", [text])), Reading())
        pieces = list(document.pieces())
        assert len(pieces) > 1
        assert max(map(len, pieces)) <= PIECE + 4096
        assert "".join(pieces) == text


@pytest.mark.parametrize("unit", ["letters and spaces ", "a", "\n", "日本語"])
def test_one_long_line_is_read_in_little_memory(tmp_path: Path, unit: str) -> None:
    """D12: 40 MB in one line, a piece at a time; of a text without a place to cut, eight pieces."""
    with (tmp_path / "a.txt").open("w", encoding="utf-8", newline="") as file:
        length = sum(file.write(unit * (1 << 17)) for _ in range(40_000_000 // (len(unit.encode()) << 17)))
    (document,) = Source(str(tmp_path / "a.txt"), Reading())
    tracemalloc.start()
    try:
        assert sum(map(len, document.pieces())) == length
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    bytes_a_character, pieces = 2 if ord(unit[0]) > 255 else 1, 1 if " " in unit else 8
    assert peak < 6 * PIECE * bytes_a_character * pieces  # a piece, the rest, a block, and what is made on the way
