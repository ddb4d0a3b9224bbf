"""Tool calls as a chat template takes them: arguments as an object or as a text, and no content or an empty one."""

import json
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from lit_llm.data.prompts import ChatTemplate, Message

ARGUMENTS = '{"city": "Paris"}'


class CallForm(NamedTuple):
    """How a template takes tool calls.

    Args:
        takes_text: Whether it writes arguments that are a text as they are, and does not quote them once more.
        takes_object: Whether it writes arguments that are an object as JSON.
        content: What it takes where a message says nothing beside its calls.
    """

    takes_text: bool
    takes_object: bool
    content: str | None


def for_template(messages: list[Message], template: ChatTemplate) -> list[Message]:
    """Messages whose tool calls are as the template takes them; all others are as they were.

    Args:
        messages: The conversation.
        template: The template.

    Raises:
        ValueError: If the template has no place for tool calls, or none for what a tool says.
    """
    roles = {message["role"] for message in messages if message["role"] == "tool" or "tool_calls" in message}
    if not roles:
        return messages
    if "assistant" in roles and "tool_calls" not in template.source:
        raise ValueError(
            f"the chat template '{template.name}' writes no tool calls; use one that does, as `source` with a model "
            "that calls tools"
        )
    form = _call_form(template)
    return [_fitted(message, form) if "tool_calls" in message else message for message in messages]


def _fitted(message: Message, form: CallForm) -> Message:
    calls = []
    for call in message["tool_calls"]:
        arguments = call["function"]["arguments"]
        if isinstance(arguments, str) and form.takes_object and not form.takes_text:
            with suppress(ValueError, RecursionError):
                parsed = json.loads(arguments)
                arguments = parsed if isinstance(parsed, dict) else arguments
        elif not isinstance(arguments, str) and form.takes_text and not form.takes_object:
            arguments = json.dumps(arguments, ensure_ascii=False)
        calls.append({**call, "function": {**call["function"], "arguments": arguments}})
    content = form.content if message["content"] is None else message["content"]
    return {**message, "content": content, "tool_calls": calls}


@lru_cache(maxsize=16)
def _call_form(template: ChatTemplate) -> CallForm:
    as_text, as_object = _written(template, ARGUMENTS, None), _written(template, json.loads(ARGUMENTS), None)
    content = None
    if not as_text and not as_object:
        as_text, as_object = _written(template, ARGUMENTS, ""), _written(template, json.loads(ARGUMENTS), "")
        content = ""
    # Python's way to write an object is no JSON.
    takes_object = "Paris" in as_object and "{'city'" not in as_object
    return CallForm("Paris" in as_text and '\\"' not in as_text, takes_object, content)


def _written(template: ChatTemplate, arguments: str | dict[str, str], content: str | None) -> str:
    """A call as the template writes it; nothing if it refuses it."""
    call = {"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    answer = {"role": "assistant", "content": content, "tool_calls": [call]}
    with suppress(ValueError):
        return template.render([{"role": "user", "content": "?"}, answer])
    return ""
