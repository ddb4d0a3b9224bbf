"""Records as conversations: Alpaca's, ShareGPT's, OpenAI's and TRL's forms, and other names of their fields."""

from collections.abc import Mapping
from typing import Any

from lit_llm.data.field_names import FieldNames
from lit_llm.data.fields import (
    ANSWERS,
    KNOWN,
    MEDIA,
    QUESTIONS,
    RECORD,
    SYSTEMS,
    TALKS,
    is_worth_a_note,
)
from lit_llm.data.messages import RecordError, alternating, called, from_json, spoken, text_of
from lit_llm.data.notes import READ, UNKNOWN, UNUSED, Notes
from lit_llm.data.prompts import Message
from lit_llm.data.record_row import Row, talk_key
from lit_llm.data.records import Record
from lit_llm.data.turns import Talk, in_turns

RESERVED = ("messages", "tools", "add_generation_prompt", "bos_token", "eos_token")  # not for chat_template_kwargs
# Whether a record has one of these is asked of all of them at once, as most have none.
REFUSABLE, SYSTEM_NAMES = frozenset((*MEDIA, "label", "kto_tag")), frozenset(SYSTEMS)
VARIABLES = frozenset(("tools", "functions", "chat_template_kwargs"))
FORMS = "a record has instruction and output, or messages, or conversations"


class Forms:
    """Reads records as conversations, and notes what is to be told of them.

    Args:
        fields: Own names of fields, by the names that stand here. None: names are found.

    Raises:
        ValueError: If a name is not one of those that can be given.
    """

    def __init__(self, fields: Mapping[str, str] | None = None) -> None:
        self.names, self.notes = FieldNames(fields or {}), Notes()

    def talk(self, record: Record) -> Talk:
        """The conversation of a record.

        Raises:
            RecordError: If the assistant can learn nothing from it.
        """
        row = self.row(record)
        if (
            "chosen" in row.content
            and row.says("chosen")
            and row.says("rejected")
            and not any(map(row.says, (*TALKS, *ANSWERS)))
        ):
            raise RecordError(
                "preference pair", f"{row.name} has chosen and rejected answers, which --data Preferences reads"
            )
        said = self._said(row)
        made = Talk(row.name, in_turns(row.name, said, self.notes), self.variables(row))
        self.count(row)
        return made

    def row(self, record: Record) -> Row:
        """The fields of a record under the names that are used here; what no text model can use is refused.

        Raises:
            RecordError: If it has no named fields, or such as are refused.
        """
        content = record.content
        if not isinstance(content, dict):
            raise RecordError(
                "no record", f"{record.name} is a {type(content).__name__}, and no record with named fields"
            )
        if self.names:
            content = self.names.renamed(record.name, content, self.notes)
        if REFUSABLE.isdisjoint(content):
            return Row(record.name, content)
        for key in MEDIA:
            if key in content and content[key] not in (None, [], "", {}):
                raise RecordError(key, f"{record.name} has '{key}': models here read text alone")
        for key in ("label", "kto_tag"):
            if key in content and _is_flag(content[key]):
                raise RecordError(
                    "label of KTO",
                    f"{record.name} has '{key}', true or false: single answers judged good or bad (KTO's form) are not "
                    "read; give pairs of chosen and rejected answers, or the good answers alone without the field",
                )
        return Row(record.name, content)

    def _said(self, row: Row) -> list[Message]:
        """The messages of a record of any form."""
        if (talk := talk_key(row)) is not None:
            return self.turns(row, talk)
        if row.says("query") and row.says("answers") and row.says("tools"):  # xLAM's
            calls = called(row.name, row.take("answers"))
            answer = {"role": "assistant", "content": None, "tool_calls": calls}
            return [*self.system(row), {"role": "user", "content": row.text("query")}, answer]
        question = self.question(row)
        key = next((key for key in ANSWERS if row.has(key)), "output")
        _refuse_others(row, question, key)
        asked = self.asked(row, question)
        self.tell_names(question, key, row)
        value = row.take(key)
        if isinstance(value, list):
            return [*asked, *spoken(row.name, value, self.notes, self.names.of_messages)]
        return [*asked, {"role": "assistant", "content": text_of(row.name, key, value)}]

    def turns(self, row: Row, key: str) -> list[Message]:
        """The messages of a field, after the system message of the record if they have none."""
        talk = row.take_list(key)
        if key in TALKS and talk and all(isinstance(text, str) for text in talk):
            said = alternating(row.name, talk)
        else:
            said = spoken(row.name, talk, self.notes, self.names.of_messages)
        has_system = bool(said) and said[0]["role"] == "system"
        return said if has_system else [*self.system(row), *said]

    def question(self, row: Row) -> str | None:
        """The field that holds what is asked."""
        return next((key for key in QUESTIONS if row.has(key)), None)

    def asked(self, row: Row, question: str | None) -> list[Message]:
        """What comes before an answer: a system message, earlier turns, and the question with its input."""
        if question is None:
            row.demand("instruction", FORMS)
        assert question is not None
        if isinstance(row.content[question], list):
            return self.turns(row, question)
        message = {"role": "user", "content": row.text(question)}
        for key in ("input", "context"):
            if key != question and row.has(key) and (key == "input" or isinstance(row.content[key], str)):
                if (text := row.text(key)).strip():
                    message["input"] = text
                break
        return [*self.system(row), *self._history(row), message]

    def tell_names(self, question: str | None, answer: str, row: Row) -> None:
        """Note names that are not Alpaca's own."""
        if self.names or (question in ("instruction", None) and answer == "output" and "context" not in row.taken):
            return
        context = ", 'context' as input" if "context" in row.taken else ""
        self.notes.add(READ, f"'{question}' as instruction{context}, '{answer}' as output")

    def system(self, row: Row) -> list[Message]:
        """The system message that a record has beside its turns, or none."""
        for key in SYSTEMS if not SYSTEM_NAMES.isdisjoint(row.content) else ():
            if row.has(key) and (text := row.text(key)).strip():
                return [{"role": "system", "content": text}]
        return []

    def _history(self, row: Row) -> list[Message]:
        if not row.says("history"):
            return []
        turns: list[Message] = []
        for pair in row.take_list("history"):
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise RecordError(
                    "no history",
                    f"{row.name} holds {str(pair)[:40]!r} in 'history', where pairs of question and answer belong",
                )
            turns += [
                {"role": role, "content": text_of(row.name, "history", text)}
                for role, text in zip(("user", "assistant"), pair, strict=True)
            ]
        return turns

    def variables(self, row: Row) -> dict[str, Any]:
        """What the chat template is given beside the messages."""
        found: dict[str, Any] = {}
        if VARIABLES.isdisjoint(row.content):
            return found
        for key in ("tools", "functions"):
            if not row.says(key) or found:
                continue
            if tools := row.take_list(key):
                if not all(isinstance(tool, dict) for tool in tools):
                    raise RecordError("no tools", f"{row.name} holds tools in '{key}' that have no named fields")
                found["tools"] = tools if key == "tools" else [{"type": "function", "function": one} for one in tools]
        if row.says("chat_template_kwargs"):
            more = row.take("chat_template_kwargs")
            more = from_json(row.name, "'chat_template_kwargs'", more) if isinstance(more, str) else more
            if not isinstance(more, dict) or (set(more) & set(RESERVED)):
                raise RecordError(
                    "chat_template_kwargs",
                    f"{row.name} has 'chat_template_kwargs' that must be named settings other than "
                    f"{', '.join(RESERVED)}, got {str(more)[:60]}",
                )
            found |= more
        return found

    def count(self, row: Row) -> None:
        """Note the fields of a record that say something and were not used."""
        if len(row.taken) >= len(row.content):
            return
        for key, value in row.content.items():
            if key not in row.taken and is_worth_a_note(key, value, RECORD):
                known = KNOWN[RECORD].get(key)
                self.notes.add(UNKNOWN if known is None else UNUSED, f"'{key}'")


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))


def _refuse_others(row: Row, question: str | None, answer: str) -> None:
    """Refuse forms that are known and not read, by their names.

    Raises:
        RecordError: If the record has one of them.
    """
    if row.has(answer) and question is not None:
        return
    if row.says("completions") and row.says("labels"):
        raise RecordError("stepwise supervision", f"{row.name} judges single steps of an answer, which is not read")
    if row.says("segments"):
        raise RecordError("segments", f"{row.name} has 'segments', text without a template; give messages instead")
    if row.says("role") and row.says("text"):
        raise RecordError(
            "message of a tree", f"{row.name} is one message of a tree; give whole conversations as messages"
        )
    for key in ("chat", "text"):
        if row.says(key) and question is None:
            raise RecordError(
                f"only {key}",
                f"{row.name} has its turns in one text, '{key}'; give them as messages, or instruction and output",
            )
    for key in ("instruction" if question is None else question, answer):
        row.demand(key, FORMS)
