"""Records of all forms through chat templates: text, ids and masks beside transformers, and nothing lost untold."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_tokenizers import byte_level
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_rows import said
from transformers import PreTrainedTokenizerFast

from lit_llm.data.bpe import PATTERN
from lit_llm.data.chat_encoding import ChatEncoder
from lit_llm.data.conversation_set import encode
from lit_llm.data.forms import Forms
from lit_llm.data.prompts import ChatTemplate
from lit_llm.data.records import Record
from lit_llm.data.tokenizer import Bytes, Tokenizer
from lit_llm.data.tokenizer_folder import tokenizer_of
from lit_llm.data.tool_calls import for_template

# A template with tools, a reasoning, and calls whose arguments are objects.
BODY = """{%- if tools %}{{ '<|im_start|>system\\nTools:' }}
{%- for tool in tools %}{{ ' ' + (tool | tojson) }}{% endfor %}
{{- '<|im_end|>\\n' }}{% endif %}
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}BEGIN
        {%- if m.reasoning_content %}{{ '(' + m.reasoning_content + ')\\n' }}{% endif %}
        {%- if m.content %}{{ m.content + ('\\n' if m.tool_calls else '') }}{% endif %}
        {%- for call in m.tool_calls or [] %}
            {{- '[call] {"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}{{ '}' }}
        {%- endfor %}
        {{- '<|im_end|>' }}END
        {{- '\\n' }}
    {%- else %}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
PLAIN = BODY.replace("BEGIN", "").replace("END", "")
MARKED = BODY.replace("BEGIN", "{%- generation %}").replace("END", "{%- endgeneration %}")

WORD = st.text(st.sampled_from("abc dé日{}\"'\n<|>"), min_size=1, max_size=8).map(lambda text: f"w{text}w")
ARGUMENTS = st.dictionaries(st.sampled_from(["a", "b"]), st.one_of(WORD, st.integers(0, 9), st.booleans(), st.none()))
Expected = tuple[list[dict[str, Any]], list[dict[str, Any]] | None, set[int]]  # messages, tools, those without loss


@st.composite
def openai(draw: st.DrawFn) -> tuple[dict[str, Any], Expected]:
    """OpenAI's messages: parts, weights, reasoning, calls with results; and what transformers is given for them."""
    row: dict[str, Any] = {"messages": []}
    wanted: list[dict[str, Any]] = []
    untrained: set[int] = set()

    def say(message: dict[str, Any], **instead: Any) -> None:
        row["messages"].append(message)
        wanted.append({**message, **instead})
        wanted[-1].pop("weight", None)

    if draw(st.booleans()):
        say({"role": draw(st.sampled_from(["system", "developer"])), "content": draw(WORD)}, role="system")
    for _ in range(draw(st.integers(1, 2))):
        texts = draw(st.lists(WORD, min_size=1, max_size=2))
        say({"role": "user", "content": [{"type": "text", "text": one} for one in texts]}, content="".join(texts))
        if draw(st.booleans()):
            arguments = draw(ARGUMENTS)
            function = {"name": draw(st.sampled_from(["f", "find"])), "arguments": arguments}
            given = {**function, "arguments": json.dumps(arguments)} if draw(st.booleans()) else function
            call, content = {"id": "c", "type": "function"}, draw(st.one_of(st.none(), WORD))
            say(
                {"role": "assistant", "content": content, "tool_calls": [{**call, "function": given}]},
                tool_calls=[{**call, "function": function}],
            )
            say({"role": "tool", "tool_call_id": "c", "content": draw(WORD)})
        more = {"reasoning_content": draw(WORD)} if draw(st.booleans()) else {}
        weight = draw(st.sampled_from([None, 0, 1]))
        if weight == 0:
            untrained.add(len(wanted))
        say({"role": "assistant", "content": draw(WORD), **more, **({} if weight is None else {"weight": weight})})
    if untrained == {n for n, message in enumerate(wanted) if message["role"] == "assistant"}:
        row["messages"][max(untrained)].pop("weight")
        untrained.discard(max(untrained))
    tools = draw(st.sampled_from([None, [{"type": "function", "function": {"name": "f", "parameters": {}}}]]))
    return {**row, "tools": draw(st.sampled_from([tools, json.dumps(tools)]))} if tools else row, (
        wanted,
        tools,
        untrained,
    )


@st.composite
def llama_factory(draw: st.DrawFn) -> tuple[dict[str, Any], Expected]:
    """LLaMA-Factory's Alpaca records, with a system message and a history."""
    history = draw(st.lists(st.tuples(WORD, WORD).map(list), max_size=2))
    system, question, answer = draw(st.one_of(st.just(""), WORD)), draw(WORD), draw(WORD)
    row = {"instruction": question, "input": "", "output": answer, "system": system, "history": history}
    turns = said(*[text for pair in history for text in pair], question, answer)
    return row, ([{"role": "system", "content": system}, *turns] if system else turns, None, set())


@st.composite
def share_gpt(draw: st.DrawFn) -> tuple[dict[str, Any], Expected]:
    """ShareGPT's conversations, with calls as roles."""
    question, result, answer, arguments = draw(WORD), draw(WORD), draw(WORD), draw(ARGUMENTS)
    function = {"name": "f", "arguments": arguments}
    talk = [("human", question), ("function_call", json.dumps(function)), ("observation", result), ("gpt", answer)]
    wanted = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "content": result},
        {"role": "assistant", "content": answer},
    ]
    return {"conversations": [{"from": who, "value": text} for who, text in talk]}, (wanted, None, set())


@st.composite
def trl(draw: st.DrawFn) -> tuple[dict[str, Any], Expected]:
    """TRL's prompt and completion, as texts and as messages."""
    turns = said(draw(WORD), draw(WORD))
    texts = {"prompt": turns[0]["content"], "completion": turns[1]["content"]}
    return draw(st.sampled_from([texts, {"prompt": turns[:1], "completion": turns[1:]}])), (turns, None, set())


RECORDS = st.one_of(openai(), llama_factory(), share_gpt(), trl())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    """A tokenizer of ours and the same of transformers."""
    theirs = PreTrainedTokenizerFast(tokenizer_object=byte_level(PATTERN), eos_token="</s>", unk_token="<unk>")
    folder = tmp_path_factory.mktemp("tokenizer")
    theirs.save_pretrained(folder)
    return tokenizer_of(folder), theirs


def by_prefixes(theirs: Any, messages: list[dict[str, Any]], untrained: set[int], **more: Any) -> list[int]:
    """The mask of tokens that lie between a prompt and the end of its answer, by rendering both."""

    def text(some: list[dict[str, Any]], asks: bool = False) -> str:
        return theirs.apply_chat_template(some, tokenize=False, add_generation_prompt=asks, **more)

    places: set[int] = set()
    for number, message in enumerate(messages):
        if message["role"] == "assistant" and number not in untrained:
            places |= set(range(len(text(messages[:number], asks=True)), len(text(messages[: number + 1])) - 1))
    offsets = theirs(text(messages), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [int(start in places) for start, _ in offsets]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(made=RECORDS)
def test_text_ids_and_masks_are_those_of_transformers(pair: tuple[Tokenizer, Any], made: Any) -> None:
    """With {% generation %} by the mask of transformers, without it by rendered prefixes; nothing is left out."""
    (ours, theirs), (row, (messages, tools, untrained)) = pair, made
    for source in (PLAIN, MARKED):
        theirs.chat_template = source
        forms, template = Forms(), ChatTemplate(source, "mine", None, "</s>")
        talk, encoder = forms.talk(Record("row 1", row)), ChatEncoder(ours, template)
        encoded = encode(encoder, talk)
        text = theirs.apply_chat_template(messages, tools=tools, tokenize=False)
        assert template.render(talk.messages, variables=talk.variables) == text
        if source == PLAIN:
            mask = by_prefixes(theirs, messages, untrained, tools=tools)
            ids = theirs.apply_chat_template(messages, tools=tools, return_dict=True)["input_ids"]
        else:
            told = {"return_dict": True, "return_assistant_tokens_mask": True, "tools": tools}
            both = theirs.apply_chat_template(messages, **told)
            ids, mask = both["input_ids"], both["assistant_masks"]
            if untrained:  # which transformers does not know
                mask = by_prefixes(theirs, messages, untrained, tools=tools)
        assert ours.decode(encoded.ids.tolist()) == text
        assert (encoded.ids.tolist(), encoded.carries_loss.astype(int).tolist()) == (ids, mask)
        assert not encoder.left_out
        names = {"prompt", "completion"} if "prompt" in row else set()
        assert {kind for kind, _ in forms.notes} <= ({0} if names else set())


VALUES: dict[str, Callable[[], Any]] = {
    "text": lambda: "words",
    "flag": lambda: False,
    "one": lambda: 1,
    "list": lambda: ["words"],
}
OWN = st.text(st.sampled_from("abcdefghij"), min_size=5, max_size=9).map("x_".__add__)


@settings(max_examples=60, deadline=None)
@given(made=RECORDS, name=OWN, kind=st.sampled_from(sorted(VALUES)), inside=st.booleans())
def test_no_field_with_text_or_a_flag_goes_missing_untold(made: Any, name: str, kind: str, inside: bool) -> None:
    """Wherever it is put, in the record or in a message."""
    row = json.loads(json.dumps(made[0]))
    talk = next((row[key] for key in ("messages", "conversations") if key in row), None)
    where = talk[-1] if inside and talk else row
    where[name] = VALUES[kind]()
    forms = Forms()
    forms.talk(Record("row 1", row))
    assert f"'{name}'{' of messages' if where is not row else ''} (1)" in "\n".join(forms.notes.lines())


def test_what_a_template_does_not_write_is_told(tmp_path: Path) -> None:
    """Reasoning, tools and names; of each how often."""
    from instruction_rows import data

    messages = [said("q")[0], {**said("q", "a")[1], "reasoning_content": "hm"}]
    rows = [{"messages": messages, "tools": [{"name": "find", "description": "finds"}]}] * 3
    report = data(tmp_path, rows, val_fraction=0.0, template="chatml").prepared.report(None)
    told = "not written by the chat template: reasoning_content of an assistant message (3), tools (3)"
    assert told in report


def test_a_template_without_tool_calls_refuses_them() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    with pytest.raises(ValueError, match="'chatml' writes no tool calls; use one that does"):
        for_template([said("q")[0], call], ChatTemplate.of("chatml", Bytes()))


@pytest.mark.parametrize(
    ("written", "given", "wanted"),
    [
        ("{{ f.arguments | tojson }}", '{"a": "é"}', '{"a": "é"}'),
        ("{{ f.arguments | tojson }}", {"a": "é"}, '{"a": "é"}'),
        ("{{ 'x' + f.arguments }}", {"a": "é"}, 'x{"a": "é"}'),
        ("{{ f.arguments if f.arguments is string else f.arguments | tojson }}", '{"a":"é"}', '{"a":"é"}'),
        ("{{ f.arguments | tojson }}{{ '!' if 'x' in m.content }}", {"a": 1}, '{"a": 1}'),  # fails on null
    ],
)
def test_arguments_are_written_once_in_the_form_that_the_template_takes(written: str, given: Any, wanted: str) -> None:
    source = (
        "{% for m in messages %}{% for call in m.tool_calls or [] %}{% set f = call.function %}"
        + written
        + "{% endfor %}"
        "{% endfor %}"
    )
    template = ChatTemplate(source)
    row = {
        "messages": [
            said("q")[0],
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": given}}]},
        ]
    }
    talk = Forms().talk(Record("row 1", row))
    assert template.render(for_template(talk.messages, template)) == wanted
