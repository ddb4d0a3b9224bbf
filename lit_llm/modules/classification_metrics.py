"""How well texts are put into classes: scores of a whole split, by torchmetrics, and the threshold of two classes."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional import classification as functional
from torchmetrics.utilities import dim_zero_cat

from lit_llm.batch import IGNORE_INDEX

SCORES = ("accuracy", "balanced_accuracy", "f1", "calibration_error", "auroc", "average_precision")
CALIBRATION_BINS = 15  # of equal width, as Guo et al. (2017) take


class Answers(NamedTuple):
    """What a model says of the texts of a split whose class is known."""

    logits: Tensor  # (N, K)
    targets: Tensor  # (N,)

    @property
    def probabilities(self) -> Tensor:
        """(N, K), by softmax."""
        return self.logits.softmax(dim=-1)


class Collected(Metric):
    """All logits and targets of a split, from all ranks: areas under curves, and thresholds, need them together."""

    full_state_update = False
    logits: Any
    targets: Any

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.add_state("logits", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Add the texts of a batch whose class is known.

        Args:
            logits: (B, K).
            targets: (B,) numbers of classes, or -100.
        """
        known = targets != IGNORE_INDEX
        self.logits.append(logits.detach()[known].float())
        self.targets.append(targets[known])

    def compute(self) -> Answers:
        """The whole split."""
        if not isinstance(self.targets, Tensor) and not self.targets:
            return Answers(torch.zeros(0, self.n_classes), torch.zeros(0, dtype=torch.long))
        return Answers(dim_zero_cat(self.logits), dim_zero_cat(self.targets))


def decide(probabilities: Tensor, threshold: Tensor | float | None = None) -> Tensor:
    """(N, K) probabilities to the (N,) numbers of the classes that are answered.

    Args:
        probabilities: Of each class.
        threshold: Of two classes, the second is answered from this probability on. None: the most probable class.
    """
    if threshold is None or probabilities.shape[-1] != 2:
        return probabilities.argmax(dim=-1)
    return (probabilities[:, 1] >= threshold).long()


def mean_loss(answers: Answers) -> Tensor:
    """Cross-entropy in nats a text, each text with the same weight; NaN shows."""
    return F.cross_entropy(answers.logits, answers.targets)


def scores(probabilities: Tensor, targets: Tensor, answers: Tensor) -> dict[str, Tensor]:
    """Scores of a split, by name.

    `accuracy`; `balanced_accuracy`, the mean recall of the classes that occur; `f1`, of the second class of two, else
    the mean over the classes; `auroc` and `average_precision`, of the second class of two, else the mean over the
    classes that occur, each against the rest, and left out where all texts are of one class, since then they are not
    defined; `calibration_error`, by how much the confidence in the most probable class and the accuracy differ, in 15
    bins (Guo et al., 2017, https://arxiv.org/abs/1706.04599).

    Args:
        probabilities: (N, K), which alone decide about the last three.
        targets: (N,), at least one.
        answers: (N,) numbers of the classes that were answered, which decide about the first three.
    """
    n_classes = probabilities.shape[-1]
    present = targets.bincount(minlength=n_classes).nonzero().flatten().tolist()
    recall = functional.multiclass_recall(answers, targets, n_classes, average=None)
    if n_classes == 2:
        f1 = functional.binary_f1_score(answers, targets)
    else:
        f1 = functional.multiclass_f1_score(answers, targets, n_classes, average="macro")
    bins = CALIBRATION_BINS
    values = {
        "accuracy": functional.multiclass_accuracy(answers, targets, n_classes, average="micro"),
        "balanced_accuracy": recall[present].mean(),
        "f1": f1,
        "calibration_error": functional.multiclass_calibration_error(probabilities, targets, n_classes, n_bins=bins),
    }
    if len(present) > 1:
        ranked = [1] if n_classes == 2 else present
        pairs = [(probabilities[:, number], (targets == number).long()) for number in ranked]
        values["auroc"] = torch.stack([functional.binary_auroc(*pair) for pair in pairs]).mean()
        precision = [functional.binary_average_precision(*pair) for pair in pairs]
        values["average_precision"] = torch.stack(precision).mean()
    return values


def best_threshold(probabilities: Tensor, targets: Tensor) -> Tensor | None:
    """The probability of the second of two classes from which on answering it gives the best F1 of that class.

    0.5 where it is among the best. Else the middle between the two probabilities, of texts that are answered apart,
    where the best F1 is reached; of several such places the one nearest to 0.5. None if all texts are of one class,
    which says nothing of where to divide, or if a probability is NaN. (Lipton et al., 2014,
    https://arxiv.org/abs/1402.1892, on F1 and thresholds.)

    Args:
        probabilities: (N,) of the second class.
        targets: (N,), 0 or 1.
    """
    if len(targets.unique()) < 2 or probabilities.isnan().any():
        return None
    found, place = probabilities.unique(return_inverse=True)  # ascending
    counts = torch.stack([targets == 0, targets == 1]).to(torch.float64)  # (2, N)
    summed = counts.new_zeros(2, len(found) + 1)
    summed[:, 1:].index_add_(1, place, counts)
    wrong, right = counts.sum(dim=1, keepdim=True) - summed.cumsum(dim=1)  # answered the second class, of each class
    f1 = 2 * right / (right + wrong + counts[1].sum())
    # Candidates divide before the first, between two neighbours, and after the last.
    edges = torch.cat([found.new_zeros(1), found, found.new_ones(1)]).double()
    candidates = (edges[:-1] + edges[1:]) / 2
    if f1[int((found < 0.5).sum())] >= f1.max() - 1e-12:
        return found.new_tensor(0.5)
    best = candidates[f1 >= f1.max() - 1e-12]
    return best[(best - 0.5).abs().argmin()].to(found.dtype)
