"""What a model answers as it learns to: to held-out prompts, beside the answers of the records."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torchmetrics.functional.text import rouge_score

from lit_llm.data.conversations import Question
from lit_llm.data.words import words
from lit_llm.inference.sampling import Sampling
from lit_llm.inference.text import Asked, Completion, TextModel
from lit_llm.training.callbacks import verbatim
from lit_llm.training.logger import tensorboard

GRAM = 4  # tokens


class SampleAnswers(Callback):
    """Lets the model answer held-out prompts at each validation, greedily: shown in TensorBoard, and scored.

    Logged are `val/answers/end_of_text_rate` (answers that end by themselves), `val/answers/repetition` (four-token
    stretches of an answer that it has had before: seq-rep-4 of Welleck et al., 2019, https://arxiv.org/abs/1908.04319),
    and of the prompts whose own answer is no longer than `max_new_tokens`, `val/answers/rouge_l` (F-measure of words,
    and of characters where a script puts no spaces between words, as Chinese, Japanese and Thai do not: Lin, 2004,
    https://aclanthology.org/W04-1013) and `val/answers/exact_match`, both up to case and punctuation.

    Args:
        count: Prompts that are answered: the first of the validation split that fit.
        shown: How many of them TensorBoard's Text page shows: prompt, reference, answer.
        max_new_tokens: Tokens of an answer at most.
        batch_size: Answers that are written at once.

    Raises:
        ValueError: If a number is below 1, or `shown` below 0.
    """

    logs = tuple(f"val/answers/{name}" for name in ("end_of_text_rate", "repetition", "rouge_l", "exact_match"))

    def __init__(self, count: int = 32, shown: int = 4, max_new_tokens: int = 64, batch_size: int = 8) -> None:
        for name, number in {"count": count, "max_new_tokens": max_new_tokens, "batch_size": batch_size}.items():
            if number < 1:
                raise ValueError(f"{name} {number} of SampleAnswers cannot be: it is at least 1")
        if shown < 0:
            raise ValueError(f"shown {shown} of SampleAnswers cannot be: it is 0 or larger")
        self.count, self.shown, self.max_new_tokens, self.batch_size = count, shown, max_new_tokens, batch_size
        self._questions: list[Question] | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Choose the prompts; data without any fails here, not in the middle of the run."""
        self._choose(trainer.datamodule, pl_module.backbone.block_size)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Answer, on each device the same, for devices that share a network compute together; show and score."""
        if trainer.sanity_checking:
            return
        backbone = pl_module.backbone
        questions = self._choose(trainer.datamodule, backbone.block_size)
        if not questions:
            return
        training, model = backbone.training, TextModel(backbone.eval(), trainer.datamodule.tokenizer)
        asked = Asked(self.max_new_tokens, Sampling(0.0))
        with torch.compiler.set_stance("force_eager"):  # each length would be compiled anew
            answers = list(model.complete_all([q.ids for q in questions], asked, batch_size=self.batch_size))
        backbone.train(training)
        values = scores(questions, answers, self.max_new_tokens)
        # Equal on all ranks already; Lightning cannot know.
        pl_module.log_dict({f"val/answers/{name}": value for name, value in values.items()}, sync_dist=True)
        logger = tensorboard(trainer)
        if trainer.state.fn == "fit" and logger is not None and trainer.is_global_zero:
            for number, (question, answer) in enumerate(zip(questions[: self.shown], answers, strict=False)):
                parts = {"prompt": question.prompt, "reference": question.reference, "answer": answer.text}
                text = "\n\n".join(f"**{name}**\n\n{verbatim(part)}" for name, part in parts.items())
                logger.experiment.add_text(f"answers/{number}", text, trainer.global_step)

    def _choose(self, data: Any, block_size: int) -> list[Question]:
        """The prompts; none where nothing is held out.

        Raises:
            ValueError: If the data has no conversations, or the answers leave no place for a prompt.
        """
        if self._questions is None:
            if not hasattr(data, "sample_questions"):
                raise ValueError(
                    f"SampleAnswers needs prompts to answer, and {type(data).__name__} has none; take SampleText"
                )
            longest = block_size - self.max_new_tokens
            if longest < 1:
                raise ValueError(
                    f"answers of {self.max_new_tokens} tokens fill the model's {block_size} positions; lower "
                    "max_new_tokens of SampleAnswers"
                )
            self._questions = data.sample_questions(self.count, longest)
        return self._questions


def scores(questions: Sequence[Question], answers: Sequence[Completion], max_new_tokens: int) -> dict[str, float]:
    """What is said of answers, by name; how near they are to references only where one of these could be written.

    Args:
        questions: What was asked, at least one.
        answers: To each.
        max_new_tokens: Tokens of an answer at most.
    """
    found = {
        "end_of_text_rate": _mean([answer.finish_reason == "stop" for answer in answers]),
        "repetition": _mean([repetition(answer.ids) for answer in answers]),
    }
    pairs = [
        (answer.text, question.reference)
        for question, answer in zip(questions, answers, strict=True)
        if question.reference_tokens < max_new_tokens  # one more ends it
    ]
    if pairs:
        said, wanted = ([" ".join(words(text)) or text.strip() for text in side] for side in zip(*pairs, strict=True))
        # The metric's own idea of a word is made of a to z and digits.
        rouge = rouge_score(said, wanted, rouge_keys="rougeL", normalizer=str, tokenizer=str.split)
        found["rouge_l"] = float(rouge["rougeL_fmeasure"])
        found["exact_match"] = _mean([one == other for one, other in zip(said, wanted, strict=True)])
    return found


def repetition(ids: Sequence[int]) -> float:
    """Share of an answer's four-token stretches that it has had before; 0 where there is none."""
    grams = list(zip(*(ids[start:] for start in range(GRAM)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
