"""Preference records in the forms that data sets have: which answers are compared, and what is refused."""

from typing import Any

import pytest
from record_rows import CALL, TOOL, said, share
from test_forms import short

from lit_llm.data.messages import RecordError
from lit_llm.data.pairs import Pairs, transcript
from lit_llm.data.records import Record

GOOD, BAD = said("q", "good"), said("q", "bad")
HUMAN = "\n\nHuman: q\n\nAssistant: a\n\nHuman: q2\n\nAssistant: "
# Name: the record, the prompt (both answers follow it), the answers where they are not "good" and "bad".
READ: dict[str, tuple[dict[str, Any], str]] = {
    "hh-rlhf": ({"chosen": f"{HUMAN}good", "rejected": f"{HUMAN}bad\n"}, "u:q a:a u:q2"),
    "UltraFeedback, binarized": (
        {"prompt": "q", "prompt_id": "i", "chosen": GOOD, "rejected": BAD, "messages": GOOD, "score_chosen": 8.0},
        "u:q",
    ),
    "UltraFeedback": (
        {
            "instruction": "q",
            "models": ["a", "b", "c"],
            "completions": [
                {"response": "fair", "overall_score": 5.0},
                {"response": "good", "overall_score": 9.0},
                {"response": "bad", "overall_score": 1.0},
            ],
        },
        "u:q",
    ),
    "Nectar": (
        {"prompt": HUMAN, "answers": [{"answer": "bad", "rank": 7.0}, {"answer": "good", "rank": 1.0}]},
        "u:q a:a u:q2",
    ),
    "orca_dpo_pairs": ({"system": "s", "question": "q", "chosen": "good", "rejected": "bad"}, "s:s u:q"),
    "distilabel": ({"system": "s", "input": "q", "chosen": "good", "rejected": "bad"}, "s:s u:q"),
    "SHP": ({"history": "q", "human_ref_A": "bad", "human_ref_B": "good", "labels": 0}, "u:q"),
    "PKU-SafeRLHF": ({"prompt": "q", "response_0": "bad", "response_1": "good", "better_response_id": 1}, "u:q"),
    "Chatbot Arena": ({"conversation_a": GOOD, "conversation_b": BAD, "winner": "model_a"}, "u:q"),
    "LLaMA-Factory, Alpaca": (
        {"instruction": "q", "input": "i", "system": "s", "history": [["x", "y"]], "chosen": "good", "rejected": "bad"},
        "s:s u:x a:y u:q|i",
    ),
    "LLaMA-Factory, ShareGPT": (
        {
            "conversations": share(("human", "q")),
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        "u:q",
    ),
    "TRL, system in the prompt": (
        {"prompt": [{"role": "system", "content": "s"}, *said("q")], "chosen": GOOD[1:], "rejected": BAD[1:]},
        "s:s u:q",
    ),
    "TRL, implicit prompt": (
        {"chosen": [{"role": "system", "content": "s"}, *GOOD], "rejected": [{"role": "system", "content": "s"}, *BAD]},
        "s:s u:q",
    ),
    "a system message beside messages": ({"system": "s", "chosen": GOOD, "rejected": BAD}, "s:s u:q"),
}


@pytest.mark.parametrize("form", READ)
def test_each_form_is_a_prompt_and_two_answers(form: str) -> None:
    row, prompt = READ[form]
    chosen, rejected = Pairs().pair(Record("row 1", row))
    assert (short(chosen.messages), short(rejected.messages)) == (f"{prompt} a:good", f"{prompt} a:bad")


def test_a_call_may_be_preferred() -> None:
    row = {
        "prompt": said("q"),
        "chosen": [{"role": "assistant", "tool_calls": [{"function": CALL}]}],
        "rejected": BAD[1:],
        "tools": [TOOL],
    }
    chosen, rejected = Pairs().pair(Record("row 1", row))
    assert (short(chosen.messages), short(rejected.messages)) == ("u:q a+f{'a': 1}", "u:q a:bad")
    assert chosen.variables == rejected.variables == {"tools": [TOOL]}


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "KTO": ({"prompt": "q", "completion": "a", "label": False}, "label of KTO", "KTO's form"),
    "a tie": (
        {"conversation_a": GOOD, "conversation_b": BAD, "winner": "tie"},
        "no preference",
        "prefers none of its answers \\('winner' is 'tie'\\)",
    ),
    "equal scores": (
        {"instruction": "q", "completions": [{"response": "a", "overall_score": 5}] * 2},
        "no preference",
        "no two answers of different scores in 'completions'",
    ),
    "single answers": ({"prompt": "q", "completion": "a"}, "without chosen", "has no 'chosen'"),
    "no prompt": (
        {"chosen": "The sky is blue", "rejected": "The sky is red"},
        "without instruction",
        "has a prompt or",
    ),
    "HelpSteer3": ({"context": GOOD, "response1": "a", "response2": "b"}, "without chosen", "has no 'chosen'"),
    "ends with a question": ({"chosen": said("q"), "rejected": said("q")}, "role order", "has the last word"),
    "other prompts": (
        {"chosen": f"{HUMAN}good", "rejected": "\n\nHuman: q\n\nAssistant: bad"},
        "different prompts",
        "answers to different prompts",
    ),
    "an answer that does not train": (
        {"chosen": [*said("q", "a", "q"), {**GOOD[1], "weight": 0}], "rejected": [*said("q", "a", "q"), BAD[1]]},
        "no answer that trains",
        "keeps its last answer out of the loss",
    ),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_cannot_be_compared_is_refused_by_name(form: str) -> None:
    row, kind, told = REFUSED[form]
    with pytest.raises(RecordError, match=f"row 1.*{told}") as refused:
        Pairs().pair(Record("row 1", row))
    assert refused.value.kind == kind


def test_a_text_that_only_mentions_speakers_is_no_transcript() -> None:
    for text in ("I said:\n\nHuman: hi\n\nAssistant: ho", "Human: hi", "\n\nAssistant: a\n\nHuman: b", ""):
        assert transcript(text) == []
