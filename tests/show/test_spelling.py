"""Tokens as text: nothing hidden, nothing that a terminal would obey."""

import pytest

from lit_llm.data.tokenizer import Bytes
from lit_llm.show.spelling import PLAIN_SIGNS, Speller, Token, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a⏎\nb"),
        ("\t\r\x1b[31m\x7f\x00", "⇥␍␛[31m␡␀"),
        ("a\u200bb\u202ec\u2028", "a\\u200bb\\u202ec\\u2028"),
        ("é 日本 🙂", "é 日本 🙂"),
        ("\x9b31m", "\\u009b31m"),
    ],
)
def test_what_is_not_seen_is_made_visible(text, shown) -> None:
    """Line ends stay beside their sign; an escape, a mark that turns the direction or has no width does not."""
    assert visible(text) == shown


def test_the_middle_of_a_character_is_shown_by_its_bytes() -> None:
    speller = Speller(Bytes())
    assert [token.text for token in speller.tokens(list("é!".encode()), [False] * 3)] == ["\\xc3", "\\xa9", "!"]


def test_control_tokens() -> None:
    """By their names; an id that stands for no text by its number; a text that spells one is none."""
    speller = Speller(Bytes())
    assert speller.token(256, True) == Token(256, "<|endoftext|>", True, True)
    assert speller.token(300) == Token(300, "<300>", False, True)
    assert not any(token.is_special for token in speller.tokens(list(b"<|endoftext|>"), [False] * 13))


def test_a_cell_is_one_line() -> None:
    assert Token(1, visible(" a\n b")).cell == "·a⏎·b"


def test_poor_terminals_get_other_signs() -> None:
    assert "⟦a⏎⟧ «b» – …".translate(PLAIN_SIGNS).isascii()
