"""Records of instructions and of preferences, read from files and from the hub: as conversations of messages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lit_llm.data.json_rows import JSON, json_rows
from lit_llm.data.kinds import kind_of
from lit_llm.data.prompts import Message
from lit_llm.data.rows import hub_data, names_data_set, parquet_rows, reachable, refuse_kind
from lit_llm.data.sources import Reading
from lit_llm.data.tokenizer import well_formed
from lit_llm.usage import home_path

SAMPLE = Path(__file__).parent / "samples" / "instructions.jsonl"
SUFFIXES = (*JSON, *(f"{suffix}.gz" for suffix in JSON), ".parquet")
SPEAKERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}
KNOWN_ROLES = ("system", "user", "assistant")


class RecordError(ValueError):
    """A record that nothing can be learnt from; `kind` is what such ones are counted as."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Record(NamedTuple):
    """A row of a source."""

    name: str  # where it lies
    content: Any


def read_records(source: str, reading: Reading) -> Iterator[Record]:
    """The rows of a source, whatever they hold.

    Args:
        source: A file (.json, a list of records; .jsonl; each may end in .gz; .parquet), `sample`, or a data set of the
            Hugging Face hub (`tatsu-lab/alpaca`).
        reading: How it is read.

    Raises:
        ValueError: If the source is not there, or a file is not what its name says.
    """
    for number, (name, row) in enumerate(_rows(source, reading)):
        if number == reading.max_documents:
            return
        yield Record(name, row)


def _rows(source: str, reading: Reading) -> Iterator[tuple[str, Any]]:
    path = SAMPLE if source == "sample" else home_path(source)
    if source and path.is_file():
        kind = kind_of(path)
        if kind not in SUFFIXES:
            refuse_kind(path, f"'{source}' is of no kind that holds records; the kinds are {', '.join(SUFFIXES)}")
        name = str(path)
        unit, rows = ("row", parquet_rows(path, ())) if kind == ".parquet" else json_rows(path)
    elif path.is_dir() or source.lower().endswith(SUFFIXES) or not names_data_set(source):
        raise ValueError(f"there is no file '{source}'; name one ({', '.join(SUFFIXES)}), or a data set as owner/name")
    else:
        name, unit, rows = source, "row", _hub_rows(source, reading)
    yield from ((f"'{name}' {unit} {number}", row) for number, row in rows)


def _hub_rows(name: str, reading: Reading) -> Iterator[tuple[int, Any]]:
    with reachable(name):
        yield from enumerate(hub_data(name, (), reading, reading.streaming), start=1)


def messages_of(record: Record) -> list[Message]:
    """The conversation of a record: a system message or none, then user and assistant in turns, to an answer.

    Raises:
        RecordError: If it is none that the assistant could learn from.
    """
    row = _named(record)
    if isinstance(row.get("messages"), list):
        return _checked(record.name, spoken(record.name, row["messages"], "role", "content"))
    if isinstance(talk := row.get("conversations"), list):
        keys = ("from", "value") if talk and isinstance(talk[0], dict) and "from" in talk[0] else ("role", "content")
        messages = spoken(record.name, talk, *keys)
        if isinstance(row.get("system"), str) and row["system"].strip():
            messages.insert(0, {"role": "system", "content": well_formed(row["system"])})
        return _checked(record.name, messages)
    return _checked(record.name, _instruction(record.name, row))


def pair_of(record: Record) -> tuple[list[Message], list[Message]]:
    """Two conversations that differ in their last answer alone: with the chosen one, and with the rejected one.

    Raises:
        RecordError: If it is no pair from which a preference could be learnt.
    """
    row, forms = _named(record), "a preference pair has chosen and rejected, and a prompt or an instruction"
    for key in ("chosen", "rejected"):
        _demand(record.name, row, key, forms)
    chosen, rejected = (_checked(record.name, _answered(record.name, row, key)) for key in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise RecordError(
            "different prompts",
            f"{record.name} has chosen and rejected answers to different prompts; those of a pair have one",
        )
    if chosen[-1]["content"].strip() == rejected[-1]["content"].strip():
        raise RecordError(
            "equal sides", f"{record.name} has one and the same answer as chosen and as rejected, so none is preferred"
        )
    return chosen, rejected


def _named(record: Record) -> dict[str, Any]:
    if not isinstance(row := record.content, dict):
        raise RecordError("no record", f"{record.name} is a {type(row).__name__}, and no record with named fields")
    return row


def _demand(name: str, row: dict[str, Any], key: str, forms: str) -> None:
    if row.get(key) is None:
        fields = ", ".join(map(str, row)) or "none"
        raise RecordError(f"without {key}", f"{name} has no '{key}' (its fields: {fields}); {forms}")


def _instruction(name: str, row: dict[str, Any]) -> list[Message]:
    """Alpaca's form: `instruction`, `output`, and for some an `input`."""
    for key in ("instruction", "output"):
        _demand(name, row, key, "a record has instruction and output, or messages, or conversations")
    return [_question(name, row), {"role": "assistant", "content": _text(name, "output", row["output"])}]


def _question(name: str, row: dict[str, Any]) -> Message:
    question = {"role": "user", "content": _text(name, "instruction", row["instruction"])}
    if row.get("input") is not None and (given := _text(name, "input", row["input"])).strip():
        question["input"] = given
    return question


def _answered(name: str, row: dict[str, Any], key: str) -> list[Message]:
    """The conversation that ends with an answer: a text, a message after the prompt, or all messages."""
    said = row[key]
    if not isinstance(said, list):
        return [*_prompt(name, row), {"role": "assistant", "content": _text(name, key, said)}]
    messages = spoken(name, said, "role", "content")
    is_answer = bool(messages) and messages[0]["role"] == "assistant"
    return [*_prompt(name, row), *messages] if is_answer else messages


def _prompt(name: str, row: dict[str, Any]) -> list[Message]:
    if isinstance(prompt := row.get("prompt"), list):
        return spoken(name, prompt, "role", "content")
    if prompt is not None:
        return [{"role": "user", "content": _text(name, "prompt", prompt)}]
    _demand(
        name, row, "instruction", "a preference pair has a prompt or an instruction, or chosen and rejected messages"
    )
    return [_question(name, row)]


def spoken(name: str, talk: list[Any], role: str = "role", content: str = "content") -> list[Message]:
    """The messages of a conversation, by the keys that hold who speaks and what.

    Raises:
        RecordError: If one has no such keys, or no texts there.
    """
    messages = []
    for number, message in enumerate(talk, start=1):
        if not (isinstance(message, dict) and role in message and content in message):
            raise RecordError("no message", f"{name} message {number} has no '{role}' and '{content}'")
        speaker = _text(name, role, message[role]).lower()
        messages.append({"role": SPEAKERS.get(speaker, speaker), "content": _text(name, content, message[content])})
    return messages


def _text(name: str, key: str, value: Any) -> str:
    if not isinstance(value, str):
        shown = "nothing" if value is None else f"the {type(value).__name__} {str(value)[:40]!r}"
        raise RecordError("no text", f"{name} holds {shown} in '{key}', where a text belongs")
    return well_formed(value)


def _checked(name: str, messages: list[Message]) -> list[Message]:
    """The messages, if they come in order and say something."""
    roles = [message["role"] for message in messages]
    if strangers := [role for role in roles if role not in KNOWN_ROLES]:
        raise RecordError(
            "role order", f"{name} has a message of the role '{strangers[0][:40]}'; known are {', '.join(KNOWN_ROLES)}"
        )
    turns = roles[1:] if roles[:1] == ["system"] else roles
    shown = ", ".join(roles[:8]) + (" …" if len(roles) > 8 else "")
    if not turns or len(turns) % 2 or turns != ["user", "assistant"] * (len(turns) // 2):
        raise RecordError(
            "role order",
            f"{name} has the roles {shown or 'of nobody'}: after a system message, if any, user and assistant "
            "take turns, and the assistant has the last word",
        )
    kinds = {"user": "empty instruction", "assistant": "empty response"}
    for number, message in enumerate(messages, start=1):
        if message["role"] in kinds and not message["content"].strip():
            kind = kinds[message["role"]]
            raise RecordError(kind, f"{name} has an {kind} (message {number}); leave the record out, or fill it in")
    return messages
