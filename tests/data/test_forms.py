"""Records of all forms: which messages are read of them, what is told, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from instruction_rows import alpaca, data, learnt
from record_rows import CALL, READ, REFUSED, TOOL, said

from lit_llm.data.fields import MESSAGE_FIELDS, RECORD_FIELDS, USED, tables
from lit_llm.data.forms import Forms
from lit_llm.data.instructions import Instructions
from lit_llm.data.messages import RecordError
from lit_llm.data.records import Record
from lit_llm.data.tokenizer import Bytes

DOCS = Path(__file__).parents[2] / "docs" / "records.md"


def short(messages: list[dict[str, Any]]) -> str:
    """Messages in a line: speaker and text, an input after a bar, calls after a plus."""
    found = []
    for message in messages:
        calls = "".join(f"+{c['function']['name']}{c['function']['arguments']}" for c in message.get("tool_calls", ()))
        more = f"|{message['input']}" if "input" in message else ""
        found.append(f"{message['role'][0]}:{message['content'] or ''}{more}{calls}".replace(":+", "+"))
    return " ".join(found)


@pytest.mark.parametrize("form", READ)
def test_each_form_is_read_and_what_is_not_used_is_told(form: str) -> None:
    row, messages, told = READ[form]
    forms = Forms()
    assert short(forms.talk(Record("row 1", row)).messages) == messages
    assert "\n".join(forms.notes.lines()) == told


@pytest.mark.parametrize("form", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(form: str) -> None:
    row, kind, told = REFUSED[form]
    with pytest.raises(RecordError, match=f"row 1.*{told}") as refused:
        Forms().talk(Record("row 1", row))
    assert refused.value.kind == kind


def test_tools_and_settings_go_to_the_template() -> None:
    """As they are; older functions as tools of the type `function`."""
    row = {"messages": said("q", "a"), "functions": [TOOL], "chat_template_kwargs": {"enable_thinking": False}}
    wanted = {"tools": [{"type": "function", "function": TOOL}], "enable_thinking": False}
    assert Forms().talk(Record("row 1", row)).variables == wanted
    assert Forms().talk(Record("row 1", {"messages": said("q", "a"), "tools": [TOOL]})).variables == {"tools": [TOOL]}
    assert Forms().talk(Record("row 1", {"messages": said("q", "a"), "tools": "[]"})).variables == {}


FLAGS: dict[str, Any] = {
    "weight": 0,
    "train": False,
    "training": False,
    "loss": "false",
    "masked": True,
    "mask": 1,
}


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_keeps_an_answer_out_of_the_loss(tmp_path: Path, flag: str) -> None:
    """The model reads it; with the opposite flag, and with none, it is learnt."""
    value = FLAGS[flag]
    opposite = "true" if value == "false" else type(value)(not value)
    messages = said("q", "WRONG", "no", "good")
    for given, wanted in ((value, "good$"), (opposite, "WRONG$good$"), (None, "WRONG$good$")):
        rows = [{"messages": [messages[0], {**messages[1], flag: given}, *messages[2:]]}]
        served = data(tmp_path, rows, val_fraction=0.0)
        assert learnt(served) == [wanted]
        assert "WRONG" in "".join(text for text, _ in served.prepared.tokens("train", 0))


def test_a_flag_on_a_question_is_told() -> None:
    forms = Forms()
    forms.talk(Record("row 1", {"messages": [{**said("q")[0], "train": True}, said("q", "a")[1]]}))
    assert list(forms.notes.lines()) == ["loss flags: true on a message of the role user, where nothing is learnt (1)"]


def test_unknown_fields_are_told_once_with_a_count(tmp_path: Path, capsys: Any) -> None:
    """Where they carry a text or a flag; numbers and nothing do not count."""
    rows = alpaca(4, mood="gay", done=False, size=7, empty="", nothing=None, deep={"a": ["b"]})
    data(tmp_path, [*rows, *alpaca(2)]).prepare_data()
    told = capsys.readouterr().err
    assert told.count("unknown fields, not used: 'deep' (4), 'done' (4), 'mood' (4)\n") == 1


# Own names.


def test_own_names_of_fields(tmp_path: Path) -> None:
    """They come before all others, and what stands under our names then is told."""
    row = {"frage": "q", "antwort": "a", "lage": "s", "question": "no", "output": "no", "messages": said("no", "no")}
    fields = {"instruction": "frage", "output": "antwort", "system": "lage"}
    served = data(tmp_path, [row], val_fraction=0.0, fields=fields)
    assert [short(talk.messages) for talk in served.prepared.talks["train"]] == ["s:s u:q a:a"]
    told = "passed over because of --data.fields: 'messages' (1), 'output' (1), 'question' (1)"
    assert told in served.prepared.report(None)
    assert served.split_settings()["fields"] == fields
    own = [{"talk": [{"wer": "human", "was": "q"}, {"wer": "gpt", "was": "a"}]}]
    served = data(tmp_path, own, val_fraction=0.0, fields={"messages": "talk", "role": "wer", "content": "was"})
    assert [short(talk.messages) for talk in served.prepared.talks["train"]] == ["u:q a:a"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"instruction": "frage"},
            "record 1 has no 'frage', which --data.fields names as instruction \\(its fields: i",
        ),
        ({"system": "lage"}, "--data.fields must name fields of the records, got 'lage' as system, which none has"),
        ({"anweisung": "instruction"}, "--data.fields must map names out of instruction, .*, got 'anweisung'"),
        ({"instruction": "a", "output": "a"}, "--data.fields must name different fields"),
        ({"instruction": ""}, "--data.fields must name a field of the records for instruction, got ''"),
    ],
)
def test_wrong_names_are_one_sentence(tmp_path: Path, fields: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        data(tmp_path, fields=fields).prepare_data()


# Files.


@pytest.mark.parametrize(("name", "between"), [("rows.csv", ","), ("rows.tsv", "\t")])
def test_tables_are_records(tmp_path: Path, name: str, between: str) -> None:
    """With quotes, line ends and long texts in fields, and JSON; an empty field is null."""
    long = "x" * 200_000
    lines = [between.join(("question", "answer", "context", "history")), between.join(("q", '"a\n""b"""', "", ""))]
    lines.append(between.join((long, "c", "d", '"[[""q0"", ""a0""]]"')))
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    served = Instructions(str(tmp_path / name), Bytes(), "plain", 300_000, val_fraction=0.0)
    talks = served.prepared.talks["train"]
    assert [short(talk.messages) for talk in talks] == ['u:q a:a\n"b"', f"u:q0 a:a0 u:{long}|d a:c"]
    assert [talk.name.rpartition(" ")[2] for talk in talks] == ["2", "4"]
    (tmp_path / name).write_text("\n".join([*lines, "one"]))
    with pytest.raises(ValueError, match=f"{name}' line 5 has 1 fields, and 4 are expected"):
        Instructions(str(tmp_path / name), Bytes(), "plain", 300_000).prepare_data()


# The table of the docs.


def test_the_docs_have_the_tables_of_the_code() -> None:
    assert tables() in DOCS.read_text("utf-8")


def test_every_message_field_that_is_used_is_not_told() -> None:
    """And each that is ignored is; with a value of its kind."""
    values = {"tool_calls": [{"function": CALL}], "function_call": CALL, "content": "a", "value": "a", "text": "a"}
    for field in MESSAGE_FIELDS:
        for name in field.names if field.use != "refused" else ():
            if name in ("role", "from", "speaker", "content", "value", "text", "input", "output", "weight"):
                continue
            value = values.get(name, {"masked": False, "mask": False}.get(name, "true"))
            forms = Forms()
            forms.talk(Record("row 1", {"messages": [said("q")[0], {**said("q", "a")[1], name: value}]}))
            told = f"fields not used: '{name}' of messages (1)"
            assert list(forms.notes.lines()) == ([] if field.use == USED else [told]), name


def test_every_record_field_that_is_ignored_is_told_as_known() -> None:
    for field in RECORD_FIELDS:
        for name in field.names if field.use == "ignored" else ():
            forms = Forms()
            forms.talk(Record("row 1", {"instruction": "q", "output": "a", name: "x"}))
            assert list(forms.notes.lines()) == [f"fields not used: '{name}' (1)"]
