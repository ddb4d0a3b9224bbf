"""New control tokens: their ids, that text is as before, and what is refused."""

import json
import re
from typing import Any

import pytest

from lit_llm.data.bpe import BPE
from lit_llm.data.chat_encoding import ChatEncoder
from lit_llm.data.huggingface import tokenizer_files
from lit_llm.data.new_tokens import WithNewTokens, with_new_tokens
from lit_llm.data.prompts import ChatTemplate
from lit_llm.data.tokenizer import Bytes, Characters, Tokenizer, from_state, to_state
from lit_llm.data.tokenizer_json import TokenizerJSON

NAMES = ["<|im_start|>", "<|im_end|>"]
TEXTS = ["the cat <|im_end|>sat\n", " on  a mat", "<|im_start|>"]


def bpe() -> BPE:
    tokenizer = BPE(300)
    tokenizer.fit(["the cat sat on the mat, and the cat <|im_start|> ran home"] * 9)
    return tokenizer


def characters() -> Characters:
    tokenizer = Characters()  # without an end of text
    tokenizer.fit(["the cat sat on a mat <|im_start|> <|im_end|>\n"])
    return tokenizer


KINDS: dict[str, Any] = {"bytes": Bytes, "bpe": bpe, "characters": characters}


@pytest.mark.parametrize("kind", KINDS)
def test_text_is_as_before_and_the_new_ids_follow(kind: str) -> None:
    """Text that spells a new token stays text; the state gives the same tokenizer again."""
    base: Tokenizer = KINDS[kind]()
    size = base.vocab_size
    made = WithNewTokens(KINDS[kind](), NAMES)
    for tokenizer in (made, from_state(json.loads(json.dumps(to_state(made))))):
        assert tokenizer.vocab_size == size + 2
        assert tokenizer.special_ids == {**base.special_ids, NAMES[0]: size, NAMES[1]: size + 1}
        assert (tokenizer.end_of_text, tokenizer.begin_of_text) == (base.end_of_text, base.begin_of_text)
        for text in TEXTS:
            ids = tokenizer.encode(text).tolist()
            assert ids == base.encode(text).tolist()
            assert max(ids) < size
            assert tokenizer.decode([size, *ids, size + 1]) == f"{NAMES[0]}{text}{NAMES[1]}"
        assert tokenizer.fingerprint() == made.fingerprint() != base.fingerprint()


def test_a_tokenizer_that_learns_gets_them_afterwards() -> None:
    tokenizer = WithNewTokens(BPE(280), NAMES)
    assert (tokenizer.is_fitted, tokenizer.vocab_size) == (False, 282)
    tokenizer.fit(["a cat"])
    assert tokenizer.special_ids[NAMES[0]] == tokenizer.base.vocab_size < 280


def test_a_template_uses_them() -> None:
    """Control tokens of the template are ids, those that somebody spells are not, and an answer ends with one."""
    tokenizer = WithNewTokens(Bytes(), NAMES)
    template = ChatTemplate.of("chatml", tokenizer)
    talk = [{"role": "user", "content": NAMES[1]}, {"role": "assistant", "content": "b"}]
    ids, carries_loss = ChatEncoder(tokenizer, template).encode(talk)
    assert [i for i in ids.tolist() if i > 256] == [257, 258, 257, 258]
    assert ids[carries_loss].tolist() == [ord("b"), 258]
    assert template.end == NAMES[1]


def test_given_again_nothing_is_new() -> None:
    """As in a run that goes on, and one that starts from its checkpoint."""
    first, new = with_new_tokens(Bytes(), NAMES)
    assert new == range(257, 259)
    assert with_new_tokens(first, NAMES) == (first, range(0))
    assert with_new_tokens(first, ()) == (first, range(0))
    more, new = with_new_tokens(first, ["<|tool|>"])
    assert (new, more.special_ids["<|tool|>"]) == (range(259, 260), 259)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["<|endoftext|>"], "the tokenizer has a token '<|endoftext|>' already; leave it out of --data.new_tokens"),
        (["a"], "the tokenizer has a token 'a' already"),
        (["<|x|>", "<|x|>"], "the new token '<|x|>' is there twice"),
        ([" "], "the new token ' ' is blank"),
    ],
)
def test_what_cannot_be_added(names: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        WithNewTokens(Bytes(), names)


@pytest.mark.parametrize("kind", KINDS)
def test_other_programs_give_the_same_ids(kind: str) -> None:
    """By the tokenizer.json that goes out, and with the new tokens found in text where they are asked for."""
    tokenizer = WithNewTokens(KINDS[kind](), NAMES)
    content = tokenizer_files(tokenizer, 64)["tokenizer.json"]
    theirs = TokenizerJSON(content)
    assert theirs.vocab_size == tokenizer.vocab_size
    assert theirs.special_ids == tokenizer.special_ids
    for text in TEXTS:
        assert theirs.encode(text).tolist() == tokenizer.encode(text).tolist()
    import tokenizers

    plain = tokenizers.Tokenizer.from_str(content)
    first = tokenizer.new_ids[NAMES[0]]
    wanted = [first, *tokenizer.encode("cat").tolist(), first + 1]
    assert plain.encode(f"{NAMES[0]}cat{NAMES[1]}", add_special_tokens=False).ids == wanted
