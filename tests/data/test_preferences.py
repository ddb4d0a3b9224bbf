"""Pairs of answers: what a record may look like, what is refused, and what a batch holds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from preference_runs import pairs, tiny_pairs

from lit_llm.batch import IGNORE_INDEX, PreferenceBatch
from lit_llm.data.bpe import BPE
from lit_llm.data.duplicates import normalized
from lit_llm.data.preferences import Preferences
from lit_llm.data.tokenizer import Bytes

ASK = {"role": "user", "content": "a"}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


FORMS: dict[str, dict[str, Any]] = {
    "instruction": {"instruction": "a", "input": "", "chosen": "c", "rejected": "dd"},
    "prompt": {"prompt": "a", "chosen": "c", "rejected": "dd"},
    "prompt of messages": {"prompt": [ASK], "chosen": [said("c")], "rejected": [said("dd")]},
    "whole conversations": {"prompt": "a", "chosen": [ASK, said("c")], "rejected": [ASK, said("dd")]},
    "several turns": {
        "chosen": [ASK, said("e"), ASK, said("c")],
        "rejected": [ASK, said("e"), ASK, said("dd")],
    },
}


def answers(batch: PreferenceBatch) -> list[str]:
    """What carries loss in each row, the token that ends it written as a dollar."""
    rows = [row[row != IGNORE_INDEX].tolist() for row in batch.targets]
    return ["".join("$" if i == 256 else chr(i) for i in row) for row in rows]


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_record(tmp_path: Path, form: str) -> None:
    """The last answers alone carry loss, each with the token that ends it; both follow the same prompt."""
    served = tiny_pairs(tmp_path, [FORMS[form]], val_fraction=0.0)
    (batch,) = served.pairs_dataloader()
    assert answers(batch) == ["c$", "dd$"]
    first = int((batch.targets[0] != IGNORE_INDEX).nonzero()[0]) + 1  # the place of the answer in the inputs
    assert torch.equal(batch.idx[0, :first], batch.idx[1, :first])
    text = "a\ne$\na\n" if form == "several turns" else "a\n"
    assert "".join("$" if i == 256 else chr(i) for i in batch.idx[0, :first].tolist()).replace(
        "$\n", "\n"
    ) == text.replace("$\n", "\n")


BAD: dict[str, tuple[Any, str]] = {
    "without chosen": (
        {"instruction": "a", "rejected": "b"},
        "has no 'chosen' \\(its fields: instruction, rejected\\)",
    ),
    "without rejected": ({"prompt": "a", "chosen": "b"}, "has no 'rejected' .*; a preference pair has chosen and"),
    "without instruction": ({"chosen": "a", "rejected": "b"}, "has no 'instruction' .* has a prompt or an instruction"),
    "equal sides": ({"prompt": "a", "chosen": "b", "rejected": " b"}, "has one and the same answer as chosen and as"),
    "empty response": ({"prompt": "a", "chosen": "b", "rejected": ""}, "has an empty response"),
    "no text": ({"prompt": "a", "chosen": 7, "rejected": "b"}, "holds the int '7' in 'chosen'"),
    "no record": ("a", "is a str, and no record"),
    "different prompts": (
        {"chosen": [ASK, said("c")], "rejected": [{**ASK, "content": "other"}, said("d")]},
        "has chosen and rejected answers to different prompts",
    ),
    "role order": ({"chosen": [ASK], "rejected": [ASK]}, "has the roles user: after a system message"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_record_is_an_error_or_counted(tmp_path: Path, kind: str) -> None:
    bad, told = BAD[kind]
    with pytest.raises(ValueError, match=rf"pairs\.json' record 15 .*{told}.*--data\.on_bad skip"):
        tiny_pairs(tmp_path, [*pairs(), bad]).prepare_data()
    served = tiny_pairs(tmp_path, [*pairs(), bad], on_bad="skip")
    assert dict(served.prepared.dropped) == {kind: 1}
    assert served.num_pairs == 14


def test_what_the_template_does_not_write_is_told_once(tmp_path: Path) -> None:
    """Both sides have the same prompt; a pair that is dropped counts for nothing."""
    rows: list[dict[str, Any]] = [{**row, "tools": [{"name": "f"}]} for row in pairs(5)]
    rows.append({**rows[0], "instruction": "other", "rejected": "x" * 99})
    lines = tiny_pairs(tmp_path, rows, val_fraction=0.0).report().splitlines()
    told = [line for line in lines if "not written" in line]
    assert told == ["not written by the chat template: tools (5)"]


def test_a_pair_with_one_long_side_is_left_out(tmp_path: Path, capsys: Any) -> None:
    """Whichever side it is; and it is told. One that just fits stays."""
    fits = {"prompt": "q", "chosen": "x" * 38, "rejected": "y"}  # prompt, line break, answer, end: 41 inputs
    rows = [fits, {**fits, "prompt": "r", "chosen": "x" * 40}, {"prompt": "s", "chosen": "y", "rejected": "x" * 99}]
    served = tiny_pairs(tmp_path, rows, val_fraction=0.0)
    served.prepare_data()
    told = capsys.readouterr().err
    assert "3 records: 1 for train, 0 for val, 0 for test" in told
    assert "left out: 2 (2 with a side longer than the window)" in told
    with pytest.raises(ValueError, match="none of 2 records can be used"):
        tiny_pairs(tmp_path, rows[1:]).prepare_data()


def test_one_instruction_is_on_one_side(tmp_path: Path) -> None:
    rows = [{**row, "instruction": f"Name {number // 3}"} for number, row in enumerate(pairs(90))]
    served = tiny_pairs(tmp_path, rows, val_fraction=0.2, test_fraction=0.1)
    keys = [{normalized(t.messages[0]["content"]) for t in served.prepared.talks[s]} for s in ("train", "val", "test")]
    assert sum(map(len, keys)) == len(set().union(*keys)) == 30
    assert [len(served._rows(split)) for split in ("train", "val", "test")] == [63, 18, 9]


def test_all_pairs_once_and_by_their_numbers(tmp_path: Path) -> None:
    """In all splits a row is the number of the pair over all of them; two ranks share the pairs."""
    served = tiny_pairs(tmp_path, test_fraction=0.2)
    everything = {}
    for batch in served.pairs_dataloader():
        texts = answers(batch)
        half = len(batch.rows)
        for number, row in enumerate(batch.rows.tolist()):
            everything[row] = (texts[number], texts[half + number])
    assert sorted(everything) == list(range(14))
    assert [everything[i][0] for i in range(14)] == [row["chosen"] + "$" for row in pairs()]
    assert [everything[i][1] for i in range(14)] == [row["rejected"] + "$" for row in pairs()]
    rows = []
    for loader in (served.val_dataloader(), served.test_dataloader(), served.train_dataloader()):
        for batch in loader:
            assert answers(batch) == [everything[row][side] for side in (0, 1) for row in batch.rows.tolist()]
            rows += batch.rows.tolist()
    assert len(rows) == len(set(rows))
    served._place = lambda: (1, 4)  # type: ignore[method-assign]
    shared = list(served.pairs_dataloader())
    assert [batch.rows.tolist() for batch in shared] == [[3, 4, 5], [-1]]  # the last: nothing is left
    assert (shared[1].targets == IGNORE_INDEX).all()


def test_the_fingerprint_is_that_of_the_pairs(tmp_path: Path) -> None:
    """The split does not matter, the ids do."""
    first = tiny_pairs(tmp_path).pairs_fingerprint
    assert tiny_pairs(tmp_path, val_fraction=0.0, batch_size=5).pairs_fingerprint == first
    assert tiny_pairs(tmp_path, template="alpaca", block_size=512).pairs_fingerprint != first
    assert tiny_pairs(tmp_path, pairs()[:-1]).pairs_fingerprint != first


def test_a_tokenizer_learns_from_both_sides(tmp_path: Path) -> None:
    served = tiny_pairs(tmp_path, tokenizer=BPE(270), template="alpaca", block_size=256)
    assert 257 < served.vocab_size <= 270
    assert "### Response:" in str(served.tokenizer_state()["chat_template"])


def test_the_published_pairs(shared: Path, tmp_path: Path) -> None:
    """1,100 records, of which six have equal sides."""
    source = shared / "instruct" / "rasbt" / "instruction-data-with-preference.json"
    with pytest.raises(ValueError, match="record 123 has one and the same answer"):
        Preferences(str(source), Bytes(), block_size=1024).prepare_data()
    served = Preferences(str(source), Bytes(), block_size=1024, on_bad="skip")
    assert (served.prepared.records, dict(served.prepared.dropped)) == (1100, {"equal sides": 6})
    rows = json.loads(source.read_text("utf-8"))
    groups = {normalized(row["instruction"]) for row in rows}
    held = {normalized(talk.messages[0]["content"]) for talk in served.prepared.talks["val"]}
    kept = {normalized(talk.messages[0]["content"]) for talk in served.prepared.talks["train"]}
    assert not held & kept
    assert held | kept <= groups
    assert np.isclose(len(served.prepared.talks["val"]) / 1094, 0.1, atol=0.01)


def test_questions_are_read_as_in_training(tmp_path: Path) -> None:
    """The ids of a prompt are the beginning of its row; control tokens are ids, and the reference is the chosen one."""
    served = tiny_pairs(tmp_path, template="zephyr", block_size=128)
    questions = served.sample_questions(3, 100)
    batch = next(iter(served.val_dataloader()))
    for number, question in enumerate(questions):
        assert batch.idx[number, : len(question.ids)].tolist() == question.ids
        assert answers(batch)[number] == question.reference + "$"
        assert question.reference_tokens == len(question.reference)
        assert 256 in question.ids  # <|endoftext|> after the words of the user
    assert not served.sample_questions(3, 5)
