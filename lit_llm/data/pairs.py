"""Records as pairs of a chosen and a rejected answer: in the forms in which data sets of preferences come."""

import re
from typing import Any

from lit_llm.data.fields import CHOICES
from lit_llm.data.forms import Forms
from lit_llm.data.messages import RecordError, spoken, text_of
from lit_llm.data.prompts import Message
from lit_llm.data.record_row import Row, talk_key
from lit_llm.data.records import Record
from lit_llm.data.turns import Talk, in_turns

FORMS = "a preference pair has chosen and rejected, and a prompt or an instruction"
SPEAKER = re.compile(r"(?:^|\n\n) *(Human|Assistant):")  # of transcripts (hh-rlhf)
SCORES = ("overall_score", "fine-grained_score", "score", "rating")


class Pairs(Forms):
    """Reads records as pairs of conversations that differ in their last answer alone."""

    def pair(self, record: Record) -> tuple[Talk, Talk]:
        """The conversation with the chosen answer, and the one with the rejected answer.

        Raises:
            RecordError: If no preference could be learnt from it.
        """
        row = self.row(record)
        variables = self.variables(row)
        chosen, rejected = (
            Talk(row.name, in_turns(row.name, self._answered(row, *side), self.notes, to_the_end=True), variables)
            for side in self._sides(row)
        )
        if chosen.messages[:-1] != rejected.messages[:-1]:
            raise RecordError(
                "different prompts",
                f"{row.name} has chosen and rejected answers to different prompts; those of a pair have one",
            )
        if _answer(chosen) == _answer(rejected):
            raise RecordError(
                "equal sides",
                f"{row.name} has one and the same answer as chosen and as rejected, so none is preferred",
            )
        if not all(side.messages[-1].get("train", True) for side in (chosen, rejected)):
            raise RecordError("no answer that trains", f"{row.name} keeps its last answer out of the loss")
        self.count(row)
        return chosen, rejected

    def _sides(self, row: Row) -> tuple[tuple[str, Any], tuple[str, Any]]:
        """The names and values of the chosen and of the rejected answer."""
        if row.has("chosen") or row.has("rejected"):
            for key in ("chosen", "rejected"):
                row.demand(key, FORMS)
            return ("chosen", row.take("chosen")), ("rejected", row.take("rejected"))
        for (first, second, choice), (is_first, is_second) in CHOICES.items():
            if row.has(first) and row.has(second) and row.has(choice):
                sides = (first, row.take(first)), (second, row.take(second))
                value = row.take(choice)
                if value not in (is_first, is_second):
                    raise RecordError(
                        "no preference", f"{row.name} prefers none of its answers ('{choice}' is {value!r})"
                    )
                return sides if value == is_first else sides[::-1]
        for key, text, scores in (("completions", "response", SCORES), ("answers", "answer", ("rank",))):
            if row.says(key) and isinstance(row.content[key], list):
                return _by_scores(row, key, text, scores)
        row.demand("chosen", FORMS)
        raise AssertionError

    def _answered(self, row: Row, key: str, value: Any) -> list[Message]:
        """The conversation that ends with an answer: a text, a message after the prompt, all messages, a transcript."""
        if isinstance(value, str):
            has_prompt = self.question(row) is not None or talk_key(row) is not None or row.says("history")
            if not has_prompt and (turns := transcript(value)):
                return [*self.system(row), *turns]
            return [*self._prompt(row), {"role": "assistant", "content": text_of(row.name, key, value)}]
        if not isinstance(value, list | dict):
            text_of(row.name, key, value)
        said = spoken(row.name, value if isinstance(value, list) else [value], self.notes, self.names.of_messages)
        if said and said[0]["role"] == "assistant":
            return [*self._prompt(row), *said]
        row.taken.update(("prompt", "instruction"))  # which such messages repeat
        has_system = bool(said) and said[0]["role"] == "system"
        return said if has_system else [*self.system(row), *said]

    def _prompt(self, row: Row) -> list[Message]:
        question = self.question(row)
        if question is None and (talk := talk_key(row)) is not None:
            return self.turns(row, talk)
        if question is None and isinstance(row.content.get("history"), str):  # SHP's
            return [*self.system(row), {"role": "user", "content": row.text("history")}]
        if question is None:
            row.demand(
                "instruction", "a preference pair has a prompt or an instruction, or chosen and rejected messages"
            )
        assert question is not None
        text = row.content[question]
        if isinstance(text, str) and (turns := transcript(text)):
            row.take(question)
            return [*self.system(row), *turns]
        return self.asked(row, question)


def transcript(text: str) -> list[Message]:
    """The turns of a transcript that begins with `Human:` and goes on with `Assistant:`; none if it is no such text."""
    before, *parts = SPEAKER.split(text.rstrip())
    if before.strip() or "Assistant" not in parts[::2] or parts[0] != "Human":
        return []
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = zip(parts[::2], parts[1::2], strict=True)
    said = [{"role": roles[who], "content": words.strip()} for who, words in turns]
    if said[-1] == {"role": "assistant", "content": ""}:  # where an answer is to follow
        said.pop()
    return said


def _by_scores(row: Row, key: str, text: str, names: tuple[str, ...]) -> tuple[tuple[str, Any], tuple[str, Any]]:
    """The best and the worst of several answers; a rank of 1 is the best."""
    found = []
    for answer in row.take_list(key):
        score = (
            next((answer[name] for name in names if answer.get(name) is not None), None)
            if isinstance(answer, dict)
            else None
        )
        if isinstance(score, int | float) and isinstance(answer.get(text), str):
            found.append((-score if names == ("rank",) else score, answer[text]))
    if len(found) < 2 or min(found)[0] == max(found)[0]:
        raise RecordError("no preference", f"{row.name} has no two answers of different scores in '{key}'")
    scores = [score for score, _ in found]
    return tuple((key, found[scores.index(pick(scores))][1]) for pick in (max, min))  # type: ignore[return-value]


def _answer(talk: Talk) -> tuple[str, Any]:
    last = talk.messages[-1]
    return (last["content"] or "").strip(), last.get("tool_calls")
