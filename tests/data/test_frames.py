"""A template that is followed once for each shape of conversation: ids and masks are those of following each one."""

from typing import Any

import pytest
from chat_tokenizers import byte_level
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_llm.data.bpe import PATTERN
from lit_llm.data.chat_encoding import ChatEncoder
from lit_llm.data.frames import Frame, Shape
from lit_llm.data.prompts import TEMPLATES, TRAIN, ChatTemplate, names
from lit_llm.data.tokenizer_json import TokenizerJSON

# Templates that go by what is said, each in another way; what they write for two contents is often the same text.
LINE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% set c = m.content %}"
END = "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
GOING_BY_WORDS = {
    "equal": "{% if c == '<s>' %}<s>{% else %}{{ c }}{% endif %}",
    "equal from the left": "{% if '<s>' == c %}<s>{% else %}{{ c }}{% endif %}",
    "within": "{% if c in '<s> a' %}{{ '<s> a' if c == '' else messages[0].content }}{% else %}{{ c }}{% endif %}",
    "contains": "{{ messages[0].content if 'a' in c else c }}",
    "less": "{{ messages[0].content if c < 'b' else c }}",
    "starts": "{{ messages[0].content if c.startswith('a') else c }}",
    "first": "{{ messages[0].content if c and c[0] == 'a' else c }}",
    "slice": "{{ c[:1] ~ c[1:] }}",
    "length": "{{ messages[0].content if c | length > 2 else c }}",
    "key": "{{ {'a': messages[0].content}[c] or c }}",
    "list": "{{ messages[0].content if ['a'].count(c) or [c].count('a') else c }}",
    "test": "{{ messages[0].content if c is eq('a') else c }}",
    "message": "{{ messages[0].content if m == messages[0] else c }}",
    "percent": "{{ '%s' % c }}",
    "format": "{{ '{}'.format(c) }}",
    "loop": "{% for x in c %}{{ x }}{% endfor %}",
    "macro": "{% macro f(x) %}{{ messages[0].content if x == 'a' else x }}{% endmacro %}{{ f(c) }}",
    "split": "{{ c.split('a') | join('a') }}",
}
ALIKE = {
    "forms": "{{ c | trim ~ c.lstrip() ~ c.rstrip() }}{% generation %}{{ c }}{% endgeneration %}",
    "others": "{{ m.reasoning_content or m['name'] or '' }}{{ c if c.strip() else '?' }}{{ c }}",
}
SOURCES = (
    {name: (TEMPLATES / f"{name}.jinja").read_text("utf-8") for name in names()}
    | {name: LINE + body + END for name, body in ALIKE.items()}
    | {name: LINE + body + END for name, body in GOING_BY_WORDS.items()}
)
TEXTS = st.one_of(
    st.sampled_from(["", " ", "\n\t", "a", " a", "a\n", "<s>", "<|im_end|>", "<b>", "{{ c }}", " ?0 ", " ?1 ", "\x1c"]),
    st.text(st.sampled_from("a ?0\n<|im_end|>s{}é"), max_size=12),
)
FIELDS = st.dictionaries(st.sampled_from(["input", "name", "reasoning_content", "id"]), TEXTS, max_size=2)
TOKENIZER = TokenizerJSON(byte_level(PATTERN).to_str(), begin_of_text=1, end_of_text=2)


class Following(ChatTemplate):
    """A template that is followed for each conversation."""

    def _frame_of(self, shape: Shape, add_generation_prompt: bool) -> Frame | None:
        return None


ENCODERS = {
    name: [ChatEncoder(TOKENIZER, kind(source, name, "<s>", "</s>")) for kind in (ChatTemplate, Following)]
    for name, source in SOURCES.items()
}


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    system = [{"role": "system", "content": draw(TEXTS)}] if draw(st.booleans()) else []
    turns: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 2))):
        turns.append({"role": "user", "content": draw(TEXTS), **draw(FIELDS)})
        turns.append({"role": "assistant", "content": draw(TEXTS), **draw(FIELDS)})
        if draw(st.booleans()):
            turns[-1][TRAIN] = draw(st.booleans())
    return system + turns


def made(encoder: ChatEncoder, messages: list[dict[str, Any]], prompt: bool) -> Any:
    encoder.left_out.clear()
    try:
        ids, mask = encoder.encode(messages[:-1] if prompt else messages, prompt)
    except ValueError as error:
        return str(error)
    return ids.tolist(), mask.tolist(), dict(encoder.left_out)


@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=40, deadline=None)
@given(messages=conversations(), prompt=st.booleans())
def test_ids_masks_and_what_is_left_out(name: str, messages: list[dict[str, Any]], prompt: bool) -> None:
    once, each = ENCODERS[name]
    assert made(once, messages, prompt) == made(each, messages, prompt)


def frames(source: str) -> list[bool]:
    template = ChatTemplate(source, "", "<s>", "</s>")
    template.spans([{"role": "user", "content": " q", "input": "i"}, {"role": "assistant", "content": "a"}])
    return [frame is not None for frame in template._frames.values()]


def test_which_templates_are_followed_once() -> None:
    assert {name for name, source in SOURCES.items() if frames(source) == [True]} == {*names(), *ALIKE}


def test_conversations_of_a_shape_that_is_known_are_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate(SOURCES["chatml"], "chatml")
    template.spans([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])
    monkeypatch.setattr(template, "_traced", None)
    spans = template.spans([{"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": " b "}])
    assert [span.text for span in spans if span.is_content] == ["<|im_end|>", " b "]
    assert "".join(span.text for span in spans if span.carries_loss) == " b <|im_end|>"
