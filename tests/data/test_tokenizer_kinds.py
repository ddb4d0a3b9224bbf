"""The ways to run a tokenizer from a source: published ids, bytes that come back, control tokens in a text."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_tokenizer_folder import folder
from tiny_tokenizers import AROUND, KINDS, TEXT, byte_level, byte_level_with_words
from tokenizers import Tokenizer as HuggingFaceTokenizer

from lit_llm.data.bpe import PROBE, Tiktoken
from lit_llm.data.ranks import Ranks
from lit_llm.data.sentence_pieces import SentencePieces
from lit_llm.data.tokenizer import Tokenizer, from_state, to_state, well_formed
from lit_llm.data.tokenizer_folder import tokenizer_of
from lit_llm.data.tokenizer_json import TokenizerJSON

LOSSLESS = ["byte level", "byte level with words", "byte fallback"]
TEXTS = [PROBE, TEXT, "", " ", "a", " a", "  a  b", "   ", "\n", "é", "日本🙂"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tokenizer, HuggingFaceTokenizer]]:
    """Ours and theirs of each kind; ours without the folder that it came from."""
    pairs = {}
    for kind, make in KINDS.items():
        theirs = make()
        theirs.post_processor = AROUND
        path = folder(tmp_path_factory.mktemp("source"), theirs.to_str(), tokenizer_config={"eos_token": "</s>"})
        ours = from_state(json.loads(json.dumps(to_state(tokenizer_of(path)))))
        pairs[kind] = (ours, HuggingFaceTokenizer.from_str(theirs.to_str()))
    return pairs


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_the_library(made: Any, kind: str) -> None:
    ours, theirs = made[kind]
    assert (ours.begin_of_text, ours.end_of_text) == (1, 2)
    assert ours.vocab_size == theirs.get_vocab_size()
    for text in TEXTS:
        assert ours.encode(text).tolist() == theirs.encode(text, add_special_tokens=False).ids, text


def test_the_fastest_way_is_taken(made: Any) -> None:
    assert {kind: type(ours) for kind, (ours, _) in made.items()} == {
        **dict.fromkeys(KINDS, TokenizerJSON),
        "byte level": Ranks,
    }


@given(text=st.text(st.one_of(st.characters(), st.sampled_from("ab  \n▁é<>0xs/"))))
@pytest.mark.parametrize("kind", LOSSLESS)
def test_every_text_comes_back(made: Any, kind: str, text: str) -> None:
    """U+2581 is what some vocabularies write for a space, so there it comes back as one."""
    tokenizer = made[kind][0]
    written = well_formed(text).replace("▁", " ") if kind == "byte fallback" else well_formed(text)
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == written


@pytest.mark.parametrize("kind", [*LOSSLESS, "unigram"])
def test_bytes_of_a_list_are_those_of_its_parts(made: Any, kind: str) -> None:
    """Nothing is lost between two pieces of a stream, neither half a character nor the space before a word."""
    tokenizer = made[kind][0]
    ids = tokenizer.encode("the cat, the mat 🙂日").tolist()
    assert b"".join(tokenizer.decode_bytes([i]) for i in ids) == tokenizer.decode_bytes(ids)
    assert tokenizer.decode_bytes(ids).removeprefix(b" ").startswith(b"the cat, the")


@pytest.mark.parametrize("kind", KINDS)
def test_a_control_token_in_the_text_is_plain_text(made: Any, kind: str) -> None:
    tokenizer = made[kind][0]
    for text in ("</s>", "<s>", "a </s> b", "</s></s>", "the<s>cat"):
        assert not {1, 2} & set(tokenizer.encode(text).tolist()), text
        if kind in LOSSLESS:
            assert tokenizer.decode(tokenizer.encode(text).tolist()) == text
    assert tokenizer.decode_bytes([1, 2]) in (b"<s></s>", b" <s> </s>")  # spelt out


def test_an_id_of_nobody_is_silent(made: Any) -> None:
    for kind in LOSSLESS:
        assert made[kind][0].decode_bytes([10**6]) == b""


# Published tokenizers.


def reference(shared: Path, name: str) -> list[tuple[str, list[int]]]:
    """Texts and their ids: published ones, and what tiktoken and `tokenizers` gave."""
    data = json.loads((shared / "tokenizers" / "reference_encodings.json").read_text("utf-8"))
    rows = []
    for row in data["published"].get(name, []):
        rows.append((row["text"], next(ids for key, ids in row.items() if key.startswith("ids"))))
    computed = next(value for key, value in data.items() if key.startswith("computed"))
    rows += zip(data["texts"], computed.get(name, []), strict=name in computed)
    return [(text, ids) for text, ids in rows if ids is not None]


def with_ends(tokenizer: Tokenizer, text: str, wanted: list[int]) -> list[int]:
    """The ids of a text, between its begin and its end where those were published as well."""
    begin = [tokenizer.begin_of_text] if wanted[:1] == [tokenizer.begin_of_text] else []
    end = [tokenizer.end_of_text] if wanted[-1:] == [tokenizer.end_of_text] else []
    return [*begin, *tokenizer.encode(text).tolist(), *end]  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["gpt2", "llama2", "llama3"])
def test_published_ids(shared: Path, name: str) -> None:
    tokenizer = tokenizer_of(shared / "tokenizers" / name)
    rows = [row for row in reference(shared, name) if name != "gpt2" or "<|endoftext|>" not in row[0]]
    assert len(rows) >= 5
    for text, ids in rows:
        assert with_ends(tokenizer, text, ids) == ids, text
    begin_and_end = {"gpt2": (None, 50256), "llama2": (1, 2), "llama3": (128000, 128001)}
    assert (tokenizer.begin_of_text, tokenizer.end_of_text) == begin_and_end[name]


def test_published_ids_of_zeros(shared: Path) -> None:
    tokenizer = tokenizer_of(shared / "tokenizers" / "gpt2")
    data = json.loads((shared / "tokenizers" / "reference_encodings.json").read_text("utf-8"))
    for count, ids in data["published"]["gpt2_zeros"]["ids_of_n_zeros"].items():
        assert tokenizer.encode("0" * int(count)).tolist() == ids


def test_published_control_tokens_of_llama_3(shared: Path) -> None:
    tokenizer = tokenizer_of(shared / "tokenizers" / "llama3")
    assert tokenizer.vocab_size == 128_256
    names = {128000: "begin_of_text", 128006: "start_header_id", 128009: "eot_id", 128255: "reserved_special_token_245"}
    assert {i: tokenizer.decode([i]) for i in names} == {i: f"<|{name}|>" for i, name in names.items()}


def test_a_model_and_its_json_agree(shared: Path) -> None:
    """stories260K: by sentencepiece, and by `tokenizers` from the file made of it."""
    folder = shared / "weights" / "stories260K"
    one, two = tokenizer_of(folder), tokenizer_of(folder / "hf")
    assert (type(one), type(two)) == (SentencePieces, TokenizerJSON)
    for name in ("vocab_size", "begin_of_text", "end_of_text", "adds_space"):
        assert getattr(one, name) == getattr(two, name), name
    text = (shared / "text" / "tinystories_sample.txt").read_text("utf-8")[:20_000]
    for line in ["日本🙂 é", *map(str.strip, text.split("\n"))]:  # the model leaves out white space at the ends
        ids = one.encode(" ".join(line.split())).tolist()
        assert two.encode(" ".join(line.split())).tolist() == ids
        assert one.decode_bytes(ids) == two.decode_bytes(ids)
    again = from_state(json.loads(json.dumps(to_state(one))))
    assert (again.decode(ids), again.fingerprint()) == (one.decode(ids), one.fingerprint())


# What cannot be used.


def test_a_rank_file_of_nobody(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    with pytest.raises(ValueError, match="it has 2 ranks, and of such files only Llama 3's with 128000 is known"):
        tokenizer_of(tmp_path)


def test_a_model_that_sentencepiece_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\xff" * 50)
    with pytest.raises(ValueError, match="the sentencepiece library finds no model in it"):
        tokenizer_of(tmp_path)


def test_two_models(tmp_path: Path) -> None:
    for name in ("a.model", "b.model"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds no tokenizer.json, but 2 files \*.model"):
        tokenizer_of(tmp_path)


def test_without_the_sentencepiece_library(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ValueError, match=r"is not installed; pip install 'lit-llm\[sentencepiece\]'"):
        tokenizer_of(shared / "tokenizers" / "llama2")


def test_ids_that_the_library_would_number_anew(tmp_path: Path) -> None:
    data = json.loads(byte_level_with_words().to_str())
    next(token for token in data["added_tokens"] if token["content"] == "日本")["id"] += 5
    with pytest.raises(ValueError, match="it gives the token '日本' the id 296, where the tokenizers library has 291"):
        tokenizer_of(folder(tmp_path, data))


def test_a_damaged_vocabulary(tmp_path: Path) -> None:
    data = json.loads(byte_level().to_str())
    data["model"]["merges"] = [["never", "there"]]
    with pytest.raises(ValueError, match="the tokenizers library cannot read it"):
        tokenizer_of(folder(tmp_path, data))


def test_published_encodings_of_tiktoken(gpt2: Tiktoken, shared: Path) -> None:
    tokenizer = Tiktoken("cl100k_base")
    for text, ids in reference(shared, "cl100k_base"):
        assert "<|endoftext|>" in text or tokenizer.encode(text).tolist() == ids
