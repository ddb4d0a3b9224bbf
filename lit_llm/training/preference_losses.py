"""Losses of preference tuning: what two answers to one prompt, of which one is preferred, ask of a model."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Pairs(NamedTuple):
    """What is known of preferred (chosen) answers and the others (rejected); each tensor (B,).

    Args:
        chosen: Log-probability of each chosen answer, in nats, summed over its tokens.
        rejected: The same of the rejected answers.
        chosen_tokens: Tokens of the chosen answers.
        rejected_tokens: Tokens of the rejected answers.
        reference_chosen: Log-probabilities of the chosen answers under the reference model. None: there is none.
        reference_rejected: The same of the rejected answers.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    reference_chosen: Tensor | None = None
    reference_rejected: Tensor | None = None


class PreferenceLoss(nn.Module):
    """A loss of pairs of answers, and the rewards that it implies."""

    needs_reference = True  # the log-probabilities of a model that does not change

    def forward(self, pairs: Pairs) -> Tensor:
        """The loss of each pair, (B,)."""
        raise NotImplementedError

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Implicit rewards of the chosen and the rejected answers, (B,) each."""
        raise NotImplementedError


class DPO(PreferenceLoss):
    """Direct preference optimization (Rafailov et al., 2023, https://arxiv.org/abs/2305.18290).

    Args:
        beta: Strength of the pull towards the reference; above 0.
        label_smoothing: Share of the preferences that are believed to be wrong, in [0, 0.5)
            (Mitchell, 2023, https://ericmitchell.ai/cdpo.pdf).

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, beta: float = 0.1, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.beta = _positive("beta", beta)
        if not 0 <= label_smoothing < 0.5:
            raise ValueError(f"label_smoothing {label_smoothing} cannot be: a share of wrong labels lies in [0, 0.5)")
        self.label_smoothing = label_smoothing

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Beta times how much likelier an answer has become than under the reference."""
        chosen, rejected = _gains(pairs)
        return self.beta * chosen, self.beta * rejected

    def forward(self, pairs: Pairs) -> Tensor:
        """The loss of each pair, (B,); ln 2 where the model is the reference."""
        chosen, rejected = self.rewards(pairs)
        margin = chosen - rejected
        return -(1 - self.label_smoothing) * F.logsigmoid(margin) - self.label_smoothing * F.logsigmoid(-margin)


class IPO(DPO):
    """Identity preference optimization: a margin of 1 / (2 beta), and no more (Azar et al., 2023).

    https://arxiv.org/abs/2310.12036

    Args:
        beta: Strength of the pull towards the reference (tau of the paper); above 0.

    Raises:
        ValueError: If `beta` is not above 0.
    """

    def __init__(self, beta: float = 0.1) -> None:
        super().__init__(beta)

    def forward(self, pairs: Pairs) -> Tensor:
        """The loss of each pair, (B,)."""
        chosen, rejected = _gains(pairs)
        return (chosen - rejected - 1 / (2 * self.beta)) ** 2


class SimPO(PreferenceLoss):
    """Simple preference optimization: mean log-probabilities, a margin, no reference (Meng et al., 2024).

    https://arxiv.org/abs/2405.14734

    Args:
        beta: Scale of the rewards; above 0.
        gamma: By how much the reward of the chosen answer shall be larger; 0 or more.

    Raises:
        ValueError: If an argument is out of its range.
    """

    needs_reference = False

    def __init__(self, beta: float = 2.0, gamma: float = 1.0) -> None:
        super().__init__()
        self.beta = _positive("beta", beta)
        if gamma < 0:
            raise ValueError(f"gamma {gamma} cannot be: the margin is 0 or larger")
        self.gamma = gamma

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Beta times the mean log-probability of a token."""
        chosen, rejected = _means(pairs)
        return self.beta * chosen, self.beta * rejected

    def forward(self, pairs: Pairs) -> Tensor:
        """The loss of each pair, (B,)."""
        chosen, rejected = self.rewards(pairs)
        return -F.logsigmoid(chosen - rejected - self.gamma)


class ORPO(PreferenceLoss):
    """Odds ratio preference optimization: learns the chosen answer and prefers it, in one (Hong et al., 2024).

    https://arxiv.org/abs/2403.07691

    Args:
        weight: Weight of the preference beside the loss of the chosen answer (lambda of the paper); above 0.

    Raises:
        ValueError: If `weight` is not above 0.
    """

    needs_reference = False

    def __init__(self, weight: float = 0.1) -> None:
        super().__init__()
        self.weight = _positive("weight", weight)

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """The weight times the mean log-probability of a token."""
        chosen, rejected = _means(pairs)
        return self.weight * chosen, self.weight * rejected

    def forward(self, pairs: Pairs) -> Tensor:
        """The loss of each pair, (B,)."""
        chosen, rejected = _means(pairs)
        return -chosen - self.weight * F.logsigmoid(_log_odds(chosen) - _log_odds(rejected))


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} {value} cannot be: it is above 0")
    return value


def _gains(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """How much likelier the answers have become, in nats."""
    assert pairs.reference_chosen is not None
    assert pairs.reference_rejected is not None
    return pairs.chosen - pairs.reference_chosen, pairs.rejected - pairs.reference_rejected


def _means(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Mean log-probability of a token of each answer."""
    return pairs.chosen / pairs.chosen_tokens, pairs.rejected / pairs.rejected_tokens


def _log_odds(log_probability: Tensor) -> Tensor:
    """log(p / (1 - p)); a p that rounds to 1 counts as the next smaller number."""
    surely = log_probability.clamp(max=-torch.finfo(log_probability.dtype).eps)
    return surely - torch.log(-torch.expm1(surely))
