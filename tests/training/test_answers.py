"""Answers to held-out prompts: which are asked, what is shown, and how they are scored."""

from pathlib import Path
from typing import Any

import pytest
from cli_runs import call, run_folders, write_yaml
from preference_runs import tiny_pairs, write_preferences
from python_runs import tiny_backbone, trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_llm.data.conversations import Question
from lit_llm.inference.sampling import Sampling
from lit_llm.inference.text import Asked, Completion, TextModel
from lit_llm.modules import PreferenceTuning
from lit_llm.training.answers import SampleAnswers, repetition, scores
from lit_llm.training.preference_losses import SimPO


def question(reference: str, tokens: int = 3) -> Question:
    return Question("?", [1], reference, tokens)


def test_repetition_is_the_share_of_repeated_stretches() -> None:
    assert repetition([1, 2, 3, 4, 5, 6, 7]) == 0
    assert repetition([1, 1, 1, 1, 1, 1]) == pytest.approx(2 / 3)
    assert repetition([1, 2, 3]) == 0  # too short to repeat one


def test_scores_of_answers() -> None:
    """Words count whatever their case; a reference that cannot be written counts for no likeness."""
    answers = [
        Completion("The cat.", [5, 6], "stop"),
        Completion("a b c d", [1] * 8, "length"),
        Completion("", [], "stop"),
    ]
    asked = [question("the CAT"), question("a x c d"), question("long", tokens=64)]
    found = scores(asked, answers, 64)
    assert found["end_of_text_rate"] == pytest.approx(2 / 3)
    assert found["repetition"] == pytest.approx(0.8 / 3)
    assert found["exact_match"] == 0.5
    assert found["rouge_l"] == pytest.approx((1 + 0.75) / 2)
    assert scores(asked[2:], answers[2:], 64).keys() == {"end_of_text_rate", "repetition"}


def test_words_of_any_script_count() -> None:
    assert scores([question("Привет, мир")], [Completion("привет мир", [1], "stop")], 64)["rouge_l"] == 1


@pytest.fixture
def run(tmp_path: Path, capsys: Any) -> Path:
    """The folder of a run of four steps with two validations."""
    path = write_preferences(tmp_path)
    own = {
        "class_path": "lit_llm.training.answers.SampleAnswers",
        "init_args": {"count": 4, "shown": 2, "max_new_tokens": 9},
    }
    add = write_yaml(tmp_path / "add.yaml", {"trainer": {"callbacks+": [own]}})
    result = call(capsys, "fit", "-c", path, "-c", add)
    assert result.code == 0, result.err
    return run_folders(tmp_path)[0]


def test_answers_are_what_the_model_writes(run: Path, tmp_path: Path) -> None:
    """Prompt, reference and answer, verbatim, at each validation; the scores are those of all that were asked."""
    events = EventAccumulator(str(run), size_guidance={"tensors": 0})
    events.Reload()
    model = TextModel.from_source(run / "checkpoints" / "last.ckpt")
    questions = tiny_pairs(tmp_path).sample_questions(4, 32)
    answers = list(model.complete_all([q.ids for q in questions], Asked(9, Sampling(0.0))))
    for number in range(2):
        shown = events.Tensors(f"answers/{number}/text_summary")
        assert [event.step for event in shown] == [2, 4]
        text = shown[-1].tensor_proto.string_val[0].decode()
        parts = [part.replace("\n    ", "\n")[4:] for part in text.split("\n\n")[1::2]]
        assert parts == [questions[number].prompt, questions[number].reference, answers[number].text]
    with pytest.raises(KeyError):
        events.Tensors("answers/2/text_summary")
    for name, value in scores(questions, answers, 9).items():
        assert events.Scalars(f"val/answers/{name}")[-1].value == pytest.approx(value), name


def test_what_cannot_be_asked_fails_at_once(tmp_path: Path) -> None:
    data = tiny_pairs(tmp_path)
    with pytest.raises(ValueError, match="answers of 64 tokens fill the model's 41 positions; lower max_new_tokens"):
        trainer(callbacks=[SampleAnswers()]).fit(PreferenceTuning(tiny_backbone(block_size=41), loss=SimPO), data)
    with pytest.raises(ValueError, match="SampleAnswers needs prompts to answer, and object has none"):
        SampleAnswers()._choose(object(), 99)
    with pytest.raises(ValueError, match="count 0 of SampleAnswers cannot be"):
        SampleAnswers(count=0)
