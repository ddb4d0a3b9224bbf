"""Records, files and settings of an assistant that are refused or left out."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from cli_runs import call
from instruction_rows import CONFIG, T, alpaca, data, learnt, write

from lit_llm.data.forms import Forms
from lit_llm.data.instructions import Instructions
from lit_llm.data.messages import RecordError
from lit_llm.data.records import Record
from lit_llm.data.tokenizer import Bytes

BAD = {
    "no record": ("text", "is a str, and no record with named fields"),
    "without instruction": ({"output": "b"}, "has no 'instruction' \\(its fields: output\\)"),
    "without output": ({"instruction": "a"}, "has no 'output' \\(its fields: instruction\\)"),
    "empty instruction": ({"instruction": "  ", "output": "b"}, "has an empty instruction \\(message 1\\)"),
    "empty response": ({"instruction": "a", "output": " \n"}, "has an empty response \\(message 2\\)"),
    "no text": ({"instruction": "a", "output": 42}, "holds the int '42' in 'output', where a text belongs"),
    "no message": ({"messages": [{"role": "user"}]}, "message 1 has no 'role' and 'content'"),
    "role order": (
        {"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]},
        "has the roles assistant, user: after a system message, if any, user and assistant take turns",
    ),
    "response longer than the window": (
        {"instruction": "a", "output": "b" * T},
        "has a response of 102 tokens, longer",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_record_is_an_error_or_counted(tmp_path: Path, kind: str) -> None:
    """D10: by its place and reason; where such are skipped, the others are used."""
    bad, told = BAD[kind]
    rows = [*alpaca(4), bad]
    with pytest.raises(ValueError, match=rf"rows\.json' record 5 .*{told}.*--data\.on_bad skip"):
        data(tmp_path, rows).prepare_data()
    served = data(tmp_path, rows, on_bad="skip")
    assert dict(served.prepared.dropped) == {kind: 1}
    assert f"left out: 1 (1 {kind})" in served.prepared.report(None)
    assert sum(len(examples) for examples in served.prepared.examples.values()) == 4
    with pytest.raises(ValueError, match=f"none of 1 records can be used \\(1 {kind}\\)"):
        data(tmp_path, [bad], on_bad="skip").prepare_data()


@pytest.mark.parametrize(
    "roles", ["user", "assistant user", "user tool assistant", "system", "user system assistant", "tool", ""]
)
def test_roles_in_disorder(roles: str) -> None:
    with pytest.raises(RecordError) as refused:
        Forms().talk(Record("row 1", {"messages": [{"role": role, "content": "a"} for role in roles.split()]}))
    assert refused.value.kind == "role order"


def test_a_template_that_refuses_a_record(tmp_path: Path) -> None:
    """With the place of the record and the line of the template; skipped, if others are left."""
    (tmp_path / "mine.jinja").write_text(
        "{% for m in messages %}\n{% if 'bad' in m.content %}\n{{ raise_exception('no') }}\n{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    rows = [*alpaca(3), {"instruction": "bad", "output": "b"}]
    told = r"record 4: the chat template '.*mine\.jinja' cannot be rendered: line 3: no"
    with pytest.raises(ValueError, match=told):
        data(tmp_path, rows, template=str(tmp_path / "mine.jinja")).prepare_data()
    served = data(tmp_path, rows, template=str(tmp_path / "mine.jinja"), on_bad="skip")
    assert served.prepared.dropped == {"refused by the chat template": 1}
    with pytest.raises(ValueError, match=told.replace("4", "1")):
        data(tmp_path, rows[3:], template=str(tmp_path / "mine.jinja"), on_bad="skip").prepare_data()


def test_what_is_longer_than_a_window(tmp_path: Path) -> None:
    """D4: cut, its answer then has no end; left out where no answer is left; or left out or an error as a whole."""
    rows = [
        {"instruction": "x" * 90, "output": "0123456789abcdef"},
        {"instruction": "y" * (T + 5), "output": "never seen"},
        {"instruction": "z", "output": "short"},
    ]
    served = data(tmp_path, rows, val_fraction=0.0)
    assert sorted(learnt(served)) == ["0123456789a", "short$"]
    assert (served.prepared.truncated, dict(served.prepared.dropped)) == (
        1,
        {"with no token of an answer in the window": 1},
    )
    dropped = data(tmp_path, rows, val_fraction=0.0, on_long="drop")
    assert learnt(dropped) == ["short$"]
    assert dict(dropped.prepared.dropped) == {"longer than the window": 2}
    with pytest.raises(ValueError, match="record 1 has 107 tokens, more than the window of 101"):
        data(tmp_path, rows, on_long="error").prepare_data()


@pytest.mark.parametrize(
    ("content", "name", "told"),
    [
        ("{", "a.json", "a.json' is no JSON"),
        ('{"instruction": "a"}', "a.json", r"none of 1 records can be used \(1 without output\)"),
        ("[]", "a.json", "there are no records"),
        ("\x1f", "a.json.gz", "cannot read '.*a.json.gz'"),
        ("{}\n{", "a.jsonl", "line 2 is no JSON"),
        ("x", "a.txt", "is of no kind that holds records"),
    ],
)
def test_files_that_hold_no_records(tmp_path: Path, content: str, name: str, told: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=told):
        data(tmp_path, source=str(tmp_path / name), on_bad="skip").prepare_data()


def test_a_file_that_is_cut_short(tmp_path: Path) -> None:
    whole = gzip.compress(json.dumps(alpaca(99)).encode())
    (tmp_path / "a.json.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.json\.gz' is damaged or cut short"):
        data(tmp_path, source=str(tmp_path / "a.json.gz")).prepare_data()


def test_a_source_that_is_not_there(tmp_path: Path, unreachable: Path) -> None:
    for source in ("nowhere.json", "", str(tmp_path)):
        with pytest.raises(ValueError, match=r"there is no file|does not exist"):
            Instructions(source, Bytes()).prepare_data()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"val_fraction": -0.1}, "val_fraction -0.1 and test_fraction 0.0 cannot be"),
        ({"template": "alpacca"}, "there is no chat template 'alpacca'"),
        ({"template": "source"}, "this one brings none"),
        ({"block_size": 0}, "block_size 0 cannot be"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    """Known before anything is read."""
    with pytest.raises(ValueError, match=told):
        data(tmp_path, **settings)


def test_a_bad_record_is_one_sentence_on_the_command_line(tmp_path: Path, capsys: Any) -> None:
    """With exit code 2."""
    source = write(tmp_path, [{"instruction": "a", "output": ""}])
    own = (
        "--data.source",
        source,
        "--data.tokenizer",
        "Bytes",
        "--data.on_bad",
        "error",
        "--trainer.accelerator",
        "cpu",
    )
    done = call(capsys, "fit", "-c", CONFIG, *own, f"--trainer.logger.save_dir={tmp_path / 'logs'}")
    assert done.code == 2
    assert "record 1 has an empty response" in done.err.splitlines()[-1]
