"""The order of turns: what a conversation has to be, and what is kept of one that is not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from lit_llm.data.messages import RecordError
from lit_llm.data.notes import TURNS, Notes
from lit_llm.data.prompts import Message

KNOWN_ROLES = ("system", "user", "assistant", "tool")
FOLLOWS = {"user": ("", "tool"), "assistant": ("user", "tool"), "tool": ("assistant", "tool")}  # whom, beside answers


@dataclass
class Talk:
    """A record that something can be learnt from.

    Args:
        name: Of its record.
        messages: The conversation.
        variables: What the chat template is given beside it: `tools`, and what `chat_template_kwargs` says.
    """

    name: str
    messages: list[Message]
    variables: dict[str, Any] = field(default_factory=dict)


def in_turns(name: str, said: Sequence[Message], notes: Notes, to_the_end: bool = False) -> list[Message]:
    """Messages in order: a system message or none, then turns that begin with a user, to an answer.

    Of turns out of order, what cannot be used is left out, and two of one speaker in a row are joined, with an empty
    line between them; both are counted.

    Args:
        name: Of the record.
        said: Its messages.
        notes: Where what is left out is counted.
        to_the_end: Whether the last message must be an answer: what follows the last one is not left out.

    Raises:
        RecordError: If nothing is left, or a message is empty, of an unknown role, or of a tool that nobody called.
    """
    roles = [message["role"] for message in said]
    if strangers := [role for role in roles if role not in KNOWN_ROLES]:
        raise RecordError(
            "role order", f"{name} has a message of the role '{strangers[0][:40]}'; known are {', '.join(KNOWN_ROLES)}"
        )
    first = int(roles[:1] == ["system"])
    found = [*said[:first], *_in_order(name, said[first:], roles, notes, to_the_end)]
    for number, message in enumerate(found, start=1):
        _refuse_empty(name, number, message)
    if not any(_answers(message) and message.get("train", True) for message in found):
        raise RecordError("no answer that trains", f"{name} keeps all of its answers out of the loss")
    return found


def _answers(message: Message) -> bool:
    return message["role"] == "assistant"


def _in_order(
    name: str, turns: Sequence[Message], roles: list[str], notes: Notes, to_the_end: bool
) -> Sequence[Message]:
    if roles[len(roles) - len(turns) :] == ["user", "assistant"] * (len(turns) // 2) and turns:
        return turns
    first = next((number for number, message in enumerate(turns) if message["role"] == "user"), len(turns))
    kept = list(turns[first:])
    while kept and not _answers(kept[-1]) and not to_the_end:
        kept.pop()
    joined: list[Message] = []
    for message in kept:
        if joined and _joinable(joined[-1], message):
            joined[-1] = _joined(joined[-1], message)
        else:
            joined.append(message)
    order = ["", *(message["role"] for message in joined)]
    if not joined or not _answers(joined[-1]) or any(not _may_follow(before, role) for before, role in pairwise(order)):
        shown = ", ".join(roles[:8]) + (" …" if len(roles) > 8 else "")
        raise RecordError(
            "role order",
            f"{name} has the roles {shown or 'of nobody'}: after a system message, if any, user and assistant "
            "take turns, and the assistant has the last word",
        )
    for count, about in (
        (first, "messages before the first question left out"),
        (len(turns) - first - len(kept), "messages after the last answer left out"),
        (len(kept) - len(joined), "messages joined to one of the same speaker before"),
    ):
        if count:
            notes.add(TURNS, about, count)
    return joined


def _may_follow(before: str, role: str) -> bool:
    return before in FOLLOWS.get(role, ()) or (before == "assistant" and role in ("user", "assistant"))


def _joinable(before: Message, message: Message) -> bool:
    """Whether two messages in a row are one turn: of a user, or of an assistant by whom nothing was called before."""
    roles = (before["role"], message["role"])
    if roles == ("assistant", "assistant"):
        return before.get("train", True) == message.get("train", True) and "tool_calls" not in before
    return roles == ("user", "user")


def _joined(before: Message, message: Message) -> Message:
    texts = [text for text in (before["content"], message["content"]) if text]
    both = {**before, **message, "content": "\n\n".join(texts) if texts else message["content"]}
    for key in set(before) & set(message) - {"role", "content", "name", "tool_calls", "tool_call_id", "train"}:
        both[key] = f"{before[key]}\n\n{message[key]}"
    return both


def _refuse_empty(name: str, number: int, message: Message) -> None:
    kind = {"user": "empty instruction", "assistant": "empty response"}.get(message["role"])
    if kind and not message.get("tool_calls") and not (message["content"] or "").strip():
        raise RecordError(kind, f"{name} has an {kind} (message {number}); leave the record out, or fill it in")
