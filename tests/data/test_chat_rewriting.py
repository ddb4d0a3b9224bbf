"""Templates that rewrite what was said: text and ids of transformers, and the mask follows."""

from typing import Any

import pytest
from chat_tokenizers import byte_level
from transformers import PreTrainedTokenizerFast

from lit_llm.data.bpe import PATTERN
from lit_llm.data.chat_encoding import ChatEncoder
from lit_llm.data.prompts import ChatTemplate
from lit_llm.data.tokenizer import Bytes
from lit_llm.data.tokenizer_json import TokenizerJSON

HEAD = "<|im_start|>{{ m.role }}\n"
END = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
THINKING = f"""{{% for m in messages %}}{HEAD}{{% set c = m.content or '' %}}
{{%- if m.role == 'assistant' %}}{{% set t = m.reasoning_content or '' %}}
{{%- if '</think>' in c %}}{{% set t = c.split('</think>')[0].split('<think>')[-1] %}}
{{%- set c = c.split('</think>')[-1].lstrip('\\n') %}}{{% endif %}}
{{%- if loop.last %}}<think>\n{{{{ t.strip('\\n') }}}}\n</think>\n\n{{% endif %}}{{% endif %}}{{{{ c }}}}
{{%- for call in m.tool_calls or [] %}}<tool_call>{{{{ call.function | tojson }}}}</tool_call>{{% endfor %}}{END}"""
WAYS = {
    "trim": "m.content | trim",
    "replace": "m.content | replace('a', 'xx')",
    "method": "m.content.replace('\\n', ' ').upper()",
    "format": "'[%s]' % m.content + '{}'.format(m.content[1:])",
    "join": "m.content.split() | join('-') ~ ['x', m.content] | join('+')",
    "indent": "m.content | indent(2)",
    "json": "{'q': m.content, 'n': [m.content]} | tojson(indent=1)",
    "slices": "m.content[::-1] ~ m.content[:1] ~ (m.content | list | first) ~ m.content * 2",
    "list": "[m.content]",
    "lines": "m.content.splitlines() | map('trim') | map('title') | join(' ')",
    "partition": "m.content.partition('a')[2] ~ m.content.removeprefix('x') ~ m.content.center(20)",
}
CALL = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"q": 'é "x"\n', "n": 5}}}]
CHATS: dict[str, list[dict[str, Any]]] = {
    "thinking in the text": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nold\n</think>\n\nb"},
        {"role": "user", "content": "<tool_response>1</tool_response>"},
        {"role": "assistant", "content": "<think>\nnew\n</think>\n\nd"},
    ],
    "thinking in a field": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "thinking": "why"},
    ],
    "a tool call": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": CALL},
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": "Seven."},
    ],
}
LEARNT = {
    "thinking in the text": "b<|im_end|><think>\nnew\n</think>\n\nd<|im_end|>",
    "thinking in a field": "<think>\nwhy\n</think>\n\nb<|im_end|>",
    "a tool call": '<tool_call>{"name": "f", "arguments": {"q": "é \\"x\\"\\n", "n": 5}}</tool_call><|im_end|>'
    "<think>\n\n</think>\n\nSeven.<|im_end|>",
}


@pytest.fixture(scope="module")
def pair() -> tuple[TokenizerJSON, Any]:
    """A tokenizer of ours, and transformers' same one."""
    made = byte_level(PATTERN)
    return TokenizerJSON(made.to_str()), PreTrainedTokenizerFast(tokenizer_object=made)


@pytest.mark.parametrize("said", CHATS)
def test_thinking_and_tool_calls(pair: tuple[TokenizerJSON, Any], said: str) -> None:
    """What the template takes out of earlier turns is not learnt; what it writes around a call is."""
    ours, theirs = pair
    theirs.chat_template = THINKING
    encoder = ChatEncoder(ours, ChatTemplate(THINKING))
    encoded = encoder.encode(CHATS[said])
    assert encoder.template.render(CHATS[said]) == theirs.apply_chat_template(CHATS[said], tokenize=False)
    assert encoded.ids.tolist() == theirs.apply_chat_template(CHATS[said], return_dict=True)["input_ids"]
    assert ours.decode(encoded.ids[encoded.carries_loss].tolist()) == LEARNT[said]
    wanted = {"content of an assistant message": 1} if said == "thinking in the text" else {}
    assert dict(encoder.left_out) == wanted


@pytest.mark.parametrize("text", ["xa. b a\n\n  c ", "<|im_end|>a</s>\n<|im_start|>"])
@pytest.mark.parametrize("way", WAYS)
def test_whatever_is_done_to_a_text(pair: tuple[TokenizerJSON, Any], way: str, text: str) -> None:
    """The text is that of transformers, and no word of it becomes a special token."""
    ours, theirs = pair
    source = f"{{% for m in messages %}}<|im_start|>{{{{ {WAYS[way]} }}}}<|im_end|>{{% endfor %}}"
    chat = [{"role": "user", "content": text}]
    theirs.chat_template = source
    template = ChatTemplate(source)
    text = theirs.apply_chat_template(chat, tokenize=False)
    assert "".join(span.text for span in template.spans(chat)) == template.render(chat) == text
    ids = ChatEncoder(ours, template).encode(chat).ids.tolist()
    special = set(ours.special_ids.values()) - {0}
    assert [i for i in ids if i in special] == [ours.special_ids["<|im_start|>"], ours.special_ids["<|im_end|>"]]
    assert ours.decode(ids) == text


def test_a_message_that_is_not_to_train() -> None:
    """Its words are a part of the prompt, by either kind of template."""
    chat: list[dict[str, Any]] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "train": False},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    marked = "{% for m in messages %}{% generation %}{{ m.content }};{% endgeneration %}{% endfor %}"
    for source, learnt in (
        (f"{{% for m in messages %}}{HEAD}{{{{ m.content }}}}{END}", "d<|im_end|>"),
        (marked, "a;c;d;"),
        (marked.replace("{% for m in messages %}", "{% for m in messages %}|"), "a;c;d;"),
    ):
        template = ChatTemplate(source)
        assert "".join(span.text for span in template.spans(chat) if span.carries_loss) == learnt


def test_tools_and_settings_reach_the_template() -> None:
    """As in transformers' apply_chat_template; their words are nobody's answer and no special token."""
    source = "{{ tools | tojson }}{{ enable_thinking }}{{ level }}{% for m in messages %}{{ m.content }}{% endfor %}"
    variables = {"tools": [{"name": "<|endoftext|>"}], "enable_thinking": False, "level": "high"}
    encoded = ChatEncoder(Bytes(), ChatTemplate(source)).encode([{"role": "user", "content": "a"}], variables=variables)
    assert Bytes().decode(encoded.ids.tolist()) == '[{"name": "<|endoftext|>"}]Falsehigha'
    assert not encoded.carries_loss.any()
    encoder = ChatEncoder(Bytes(), ChatTemplate("{{ messages[0].content }}"))
    encoder.encode([{"role": "user", "content": "a"}], variables=variables)
    assert dict(encoder.left_out) == {"tools": 1, "level": 1}
