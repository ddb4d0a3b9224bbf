"""Instruction tuning: next-token training in which the assistant's words alone count."""

from typing import Any

from torch import Tensor
from torchmetrics import MeanMetric

from lit_llm.backbone import GPT
from lit_llm.batch import IGNORE_INDEX
from lit_llm.modules.language_modeling import LanguageModeling


class InstructionTuning(LanguageModeling):
    """Trains a backbone to answer: language modelling on conversations, of which the answers carry loss.

    Each token of an answer weighs the same, however batches and devices divide them. `val/loss` and `val/perplexity`
    are those of the answers; `val/token_accuracy` is the share of their tokens that the model holds the likeliest. What
    it writes by itself is shown and scored by the callback `lit_llm.training.answers.SampleAnswers`.

    Args:
        backbone: The network.
        **kwargs: Those of `LanguageModeling`.
    """

    logs = (*LanguageModeling.logs, "val/token_accuracy")

    def __init__(self, backbone: GPT, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.token_accuracy = MeanMetric()

    def _judge(self, logits: Tensor, targets: Tensor) -> Tensor:
        is_right = (logits.argmax(dim=-1) == targets)[targets != IGNORE_INDEX]
        self.token_accuracy.update(is_right.float())
        return super()._judge(logits, targets)

    def _means(self, split: str) -> dict[str, Tensor]:
        share = self.token_accuracy.compute()
        self.token_accuracy.reset()
        return {**super()._means(split), f"{split}/token_accuracy": share}
