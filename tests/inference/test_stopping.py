"""Text that comes piece by piece is the text that comes at once, cut at a stop string."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_llm.data.tokenizer import Bytes
from lit_llm.inference.stopping import TextStream

TEXTS = st.text(alphabet="ab🙂é\n", max_size=30)
STOPS = st.lists(st.text(alphabet="ab🙂é\n", min_size=1, max_size=4), max_size=3)


def pieces(ids: list[int], stop: list[str]) -> list[str]:
    stream = TextStream(Bytes(), stop=stop)
    return [*(stream.feed(new) for new in ids), stream.close()]


def cut(text: str, stop: list[str]) -> str:
    ends = [at for at in (text.find(one) for one in stop) if at >= 0]
    return text[: min(ends)] if ends else text


@settings(max_examples=300, deadline=None)
@given(TEXTS, STOPS)
def test_a_stop_string_is_found_across_the_borders_of_tokens(text: str, stop: list[str]) -> None:
    """Here a token is a byte, so nearly every string lies across some; the first that is complete counts."""
    shown = "".join(pieces(list(text.encode()), stop))
    complete = min((at + len(one) for one in stop if (at := text.find(one)) >= 0), default=None)
    if complete is None:
        assert shown == text
    else:
        assert shown == cut(text[:complete], stop)
        assert not [one for one in stop if one in shown]


@settings(max_examples=300, deadline=None)
@given(TEXTS, STOPS)
def test_what_was_shown_is_never_taken_back(text: str, stop: list[str]) -> None:
    """No piece holds a part of a character, and all that may be shown is."""
    stream, shown = TextStream(Bytes(), stop=stop), ""
    for number, new in enumerate(text.encode(), start=1):
        piece = stream.feed(new)
        assert "\ufffd" not in piece
        shown += piece
        if not stream.stopped:
            known = text.encode()[:number].decode(errors="ignore")
            assert known.startswith(shown)
            held = known[len(shown) :]
            assert held == "" or any(one.startswith(held) for one in stop)


@given(st.binary(max_size=20))
def test_bytes_that_are_no_text_are_shown_as_such(data: bytes) -> None:
    assert "".join(pieces(list(data), [])) == data.decode(errors="replace")


def test_nothing_follows_a_stop_string() -> None:
    stream = TextStream(Bytes(), stop=["b"])
    assert [stream.feed(new) for new in b"abc"] == ["a", "", ""]
    assert stream.stopped
    assert stream.close() == ""


def test_the_space_before_a_text_is_left_out() -> None:
    """As sentencepiece's, whose words all begin with one: before the first of a text it stands for nothing."""

    class Words(Bytes):
        adds_space, begin_of_text = True, 255

        def decode_bytes(self, ids) -> bytes:
            return b"".join(b" w%d" % i for i in ids if i < 255)

    for prompt, first in (([], "w3"), ([255], "w3"), ([255, 1], " w3")):
        stream = TextStream(Words(), prompt)
        assert [stream.feed(3), stream.feed(4)] == [first, " w4"]


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="the stop string '' is empty"):
        TextStream(Bytes(), stop=["a", ""])
