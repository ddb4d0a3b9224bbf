"""Tool calls as a chat template takes them: arguments as an object or as a text."""

import json
from typing import Any

from lit_llm.data.prompts import ChatTemplate, Message

CALL = '{"city": "Paris"}'


def for_template(messages: list[Message], template: ChatTemplate) -> list[Message]:
    """Messages with the arguments of their tool calls as the template writes them without quoting them once more.

    Some templates write a text as it is, others turn an object into JSON; arguments that are given in the other way
    are turned into that one.

    Args:
        messages: The conversation.
        template: The template.

    Raises:
        ValueError: If the template has no place for tool calls.
    """
    if not any("tool_calls" in message or message["role"] == "tool" for message in messages):
        return messages
    if "tool_calls" not in template.source and any("tool_calls" in message for message in messages):
        raise ValueError(
            f"the chat template '{template.name}' writes no tool calls; use one that does, as `source` with a model "
            "that calls tools"
        )
    takes_text, takes_object = _takes(template, CALL), _takes(template, json.loads(CALL))
    return [_fitted(message, takes_text, takes_object) for message in messages]


def _fitted(message: Message, takes_text: bool, takes_object: bool) -> Message:
    if "tool_calls" not in message:
        return message
    calls = []
    for call in message["tool_calls"]:
        arguments = call["function"]["arguments"]
        if isinstance(arguments, str) and takes_object and not takes_text:
            arguments = _object(arguments)
        elif not isinstance(arguments, str) and takes_text and not takes_object:
            arguments = json.dumps(arguments, ensure_ascii=False)
        calls.append({**call, "function": {**call["function"], "arguments": arguments}})
    return {**message, "tool_calls": calls}


def _object(text: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, dict) else text


def _takes(template: ChatTemplate, arguments: Any) -> bool:
    """Whether a template writes the arguments of a call as they are, or as JSON, but not as a quoted text."""
    key = isinstance(arguments, str)
    if key not in template.takes:
        function = {"name": "weather", "arguments": arguments}
        call = {"id": "call00001", "type": "function", "function": function}
        said: list[Message] = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ]
        try:
            written = template.render(said)
        except ValueError:
            try:
                written = template.render([said[0], {**said[1], "content": ""}])
            except ValueError:
                written = ""
        template.takes[key] = "Paris" in written and '\\"' not in written and "{'city'" not in written
    return template.takes[key]
