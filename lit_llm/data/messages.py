"""Messages of conversations in the forms that data sets have: roles, texts in parts, tool calls, flags of the loss."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lit_llm.data.fields import KNOWN, MASKS, MEDIA, MESSAGE, REASONS, ROLES, TEXTS, TRAINS, USED, is_worth_a_note
from lit_llm.data.notes import FLAGS, UNKNOWN, UNUSED, Notes
from lit_llm.data.prompts import Message
from lit_llm.data.tokenizer import well_formed

SPEAKERS = {
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bot", "model", "function_call", "tool_call"), "assistant"),
    **dict.fromkeys(("observation", "function", "tool_response", "ipython"), "tool"),
    "developer": "system",
}
CALLERS = ("function_call", "tool_call")  # roles whose text is a call as JSON
PLAIN = ({"role", "content"}, {"from", "value"})
FLAG_WORDS = {"true": True, "false": False, "1": True, "0": False}


class RecordError(ValueError):
    """A record that nothing can be learnt from; `kind` is what such ones are counted as."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def spoken(
    name: str, talk: Sequence[Any], notes: Notes | None = None, keys: Mapping[str, str] | None = None
) -> list[Message]:
    """The messages of a conversation.

    Args:
        name: Of the record, for what is refused.
        talk: Its messages, as the record has them.
        notes: Where fields are counted that are not used. None: nowhere.
        keys: Own names of the fields `role` and `content`.

    Raises:
        RecordError: If one has no role, no text, or something that cannot be read.
    """
    notes, found = Notes() if notes is None else notes, []
    for number, message in enumerate(talk, start=1):
        if isinstance(message, dict) and isinstance(message.get("input"), str) and "output" in message:
            for role, key in (("user", "input"), ("assistant", "output")):
                found.append({"role": role, "content": text_of(name, f"{key}' of message '{number}", message[key])})
            _count(message, {"input", "output"}, notes)
        else:
            found.append(_message(f"{name} message {number}", message, notes, keys or {}))
    return found


def alternating(name: str, texts: Sequence[Any]) -> list[Message]:
    """The messages of a conversation that is a list of texts, of user and assistant in turns.

    Raises:
        RecordError: If one is no text.
    """
    roles = ("user", "assistant")
    return [
        {"role": roles[number % 2], "content": text_of(name, f"turn {number + 1}", text)}
        for number, text in enumerate(texts)
    ]


def _message(name: str, message: Any, notes: Notes, keys: Mapping[str, str]) -> Message:
    fields: dict[str, Any] = message if isinstance(message, dict) else {}
    role_key = keys.get("role") or next((key for key in ROLES if key in fields), "role")
    text_key = keys.get("content") or next((key for key in TEXTS if key in fields), "content")
    calls = fields.get("tool_calls") or fields.get("function_call")
    if role_key not in fields or (text_key not in fields and not calls):
        raise RecordError("no message", f"{name} has no '{role_key}' and '{text_key}'")
    speaker = text_of(name, role_key, fields[role_key]).strip().lower()
    role, value = SPEAKERS.get(speaker, speaker), fields.get(text_key)
    made: Message = {"role": role}
    if speaker in CALLERS:
        made |= {"content": None, "tool_calls": called(name, value)}
    elif isinstance(value, str):
        made["content"] = well_formed(value)
    elif value is None and calls and role == "assistant":
        made["content"] = None
    else:
        made["content"] = _parts(name, text_key, value)
    if len(fields) == 2 and not calls:
        return made
    if calls and speaker not in CALLERS:
        made["tool_calls"] = called(name, calls)
    for key in (*REASONS, "name", "tool_call_id"):
        if fields.get(key) not in (None, ""):
            made[key] = text_of(name, key, fields[key])
    trains = _trains(name, fields, {role_key, text_key})
    if trains and role != "assistant":
        notes.add(FLAGS, f"true on a message of the role {role}, where nothing is learnt")
    _count(fields, {role_key, text_key, *made}, notes)
    return made if trains is not False or role != "assistant" else {**made, "train": False}


def _count(fields: Mapping[str, Any], used: set[str], notes: Notes) -> None:
    """Note the fields of a message that say something and are not used; refuse what cannot be read."""
    for key, value in fields.items():
        if key in used or not is_worth_a_note(key, value, MESSAGE):
            continue
        if key in MEDIA:
            raise RecordError(key, f"a message has '{key}': models here read text alone")
        known = KNOWN[MESSAGE].get(key)
        if known is None or (known == USED and key in (*ROLES, *TEXTS, "input", "output")):
            notes.add(UNKNOWN, f"'{key}' of messages")
        elif known != USED:
            notes.add(UNUSED, f"'{key}' of messages")


def _trains(name: str, fields: Mapping[str, Any], used: set[str]) -> bool | None:
    """What the flags of a message say of its loss; None if there is none."""
    found = None
    for key in (*TRAINS, *MASKS):
        if (value := fields.get(key)) is None or key in used:
            continue
        flag = FLAG_WORDS.get(value.strip().lower()) if isinstance(value, str) else value
        if flag not in (True, False):  # 0, 1, 0.0 and 1.0 are equal to these
            raise RecordError(
                f"unknown {key}", f"{name} has {value!r} as '{key}', which must be true or false, or 1 or 0"
            )
        wanted = bool(flag) != (key in MASKS)
        if found is not None and found != wanted:
            raise RecordError("contradicting flags", f"{name} has flags of the loss that contradict each other")
        found = wanted
    return found


def called(name: str, calls: Any) -> list[dict[str, Any]]:
    """Tool calls in the form of OpenAI: each of the type `function`, with the name of it and its arguments.

    Raises:
        RecordError: If they have no name or no arguments, or are text that is not JSON.
    """
    calls = from_json(name, "a tool call", calls) if isinstance(calls, str) else calls
    found = []
    for call in calls if isinstance(calls, list | tuple) else [calls]:
        inner = call.get("function", call) if isinstance(call, dict) else None
        inner = {"name": inner, "arguments": call.get("arguments")} if isinstance(inner, str) else inner
        inner = inner if isinstance(inner, dict) else {}
        arguments = inner.get("arguments", inner.get("parameters", {}))
        arguments = {} if arguments is None else arguments
        if not isinstance(inner.get("name"), str) or not isinstance(arguments, str | dict):
            raise RecordError("no tool call", f"{name} has a tool call without a name and arguments: {str(call)[:60]}")
        rest = {key: value for key, value in call.items() if key in ("id", "index") and value is not None}
        found.append({"type": "function", **rest, "function": {"name": inner["name"], "arguments": arguments}})
    return found


def _parts(name: str, key: str, value: Any) -> str:
    """The text of a message that comes in parts."""
    if not isinstance(value, list | tuple):
        return text_of(name, key, value)
    texts = []
    for part in value:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(kind, str) or not kind.endswith("text"):  # text, input_text, output_text
            raise RecordError(
                "content that is not text",
                f"{name} has a part of the type '{kind}' in '{key}': models here read text alone",
            )
        texts.append(text_of(name, key, text))
    return "".join(texts)


def text_of(name: str, key: str, value: Any) -> str:
    """A text, or a refusal.

    Raises:
        RecordError: If it is none.
    """
    if not isinstance(value, str):
        shown = "nothing" if value is None else f"the {type(value).__name__} {str(value)[:40]!r}"
        raise RecordError("no text", f"{name} holds {shown} in '{key}', where a text belongs")
    return well_formed(value)


def from_json(name: str, key: str, text: str) -> Any:
    """What a text of JSON holds.

    Raises:
        RecordError: If it is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError("no JSON", f"{name} has {text[:40]!r} as {key}, which is not valid JSON: {error}") from error
