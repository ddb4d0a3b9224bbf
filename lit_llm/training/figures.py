"""Pictures of how a classification does, in TensorBoard: confusion matrix, ROC curve, reliability diagram."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torchmetrics.functional import classification as functional

from lit_llm.training.logger import tensorboard

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 15  # of the reliability diagram, as of the calibration error
NUMBERED = 20  # classes up to which the cells of a confusion matrix show their numbers
BLUE, GREY = "#1f77b4", "#8c8c8c"


class ClassifierFigures(Callback):
    """Draws the validation texts into TensorBoard's Images page, at each validation of a training.

    The confusion matrix of the most probable classes; the ROC curve of the second class of two, with the threshold that
    was chosen, or of each class against the rest; and the reliability diagram, whose bars would end on the diagonal if
    the confidence in the most probable class were how often it is right. Needs matplotlib
    (`pip install 'lit-llm[classify]'`); without it one line says so, and nothing is drawn.
    """

    def __init__(self) -> None:
        self._draws = True

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse a module that tells no classes apart, and find matplotlib.

        Raises:
            ValueError: If the module is no classification.
        """
        if not hasattr(pl_module, "validated"):
            raise ValueError(f"ClassifierFigures draws classes, and {type(pl_module).__name__} has none; leave it out")
        try:
            import matplotlib  # noqa: F401 (slow to import, so only a run that draws does)
        except ImportError:
            if self._draws and trainer.is_global_zero:
                print("no figures: they need matplotlib (pip install 'lit-llm[classify]')", file=sys.stderr)
            self._draws = False

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw."""
        answers = pl_module.validated
        is_training = trainer.state.fn == "fit" and not trainer.sanity_checking
        logger = tensorboard(trainer)
        is_drawn = self._draws and is_training and trainer.is_global_zero
        if logger is None or not (is_drawn and answers is not None and len(answers.targets)):
            return
        if not answers.logits.isfinite().all():
            return  # nothing to see in NaN, and the loss shows it
        names, threshold = pl_module.class_names, pl_module.threshold
        probabilities, targets = answers.probabilities.cpu(), answers.targets.cpu()
        value = None if threshold is None else float(threshold)
        for name, figure in figures(probabilities, targets, names, value):
            logger.experiment.add_figure(f"val/{name}", figure, trainer.global_step)


def figures(
    probabilities: Tensor, targets: Tensor, class_names: list[str], threshold: float | None = None
) -> Iterator[tuple[str, "Figure"]]:
    """Names and figures of a split.

    Args:
        probabilities: (N, K).
        targets: (N,).
        class_names: Names of the K classes.
        threshold: Of two classes, the probability from which on the second one is answered. None: not to be shown.
    """
    from matplotlib.figure import Figure  # without pyplot, which would keep every figure and ask for a screen

    n_classes = len(class_names)
    class_names = [name.replace("$", r"\$") for name in class_names]  # which would begin a formula
    side = min(max(4.4, 0.4 * n_classes + 2.6), 14)  # inches
    for name, draw in {"confusion": _confusion, "roc": _roc, "reliability": _reliability}.items():
        size = side if name == "confusion" else 4.4
        figure = Figure(figsize=(size + 0.6, size), dpi=100, layout="constrained")
        draw(figure.add_subplot(), probabilities, targets, class_names, threshold)
        yield name, figure


def _confusion(axes: "Axes", probabilities: Tensor, targets: Tensor, names: list[str], threshold: float | None) -> None:
    n = len(names)
    counts = functional.multiclass_confusion_matrix(probabilities.argmax(dim=-1), targets, n)  # (K, K): target, answer
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.figure.colorbar(image, ax=axes, label="share of the texts of its class", shrink=0.8)
    labels = [name if len(name) <= 16 else f"{name[:15]}…" for name in names]
    slanted: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(n), labels, **(slanted if n > 3 or max(map(len, labels)) > 10 else {}))
    axes.set_yticks(range(n), labels)
    axes.set(xlabel="most probable class", ylabel="true class", title=f"confusion of {int(counts.sum())} texts")
    for row in range(n if n <= NUMBERED else 0):
        for column in range(n):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", color=colour)


def _roc(axes: "Axes", probabilities: Tensor, targets: Tensor, names: list[str], threshold: float | None) -> None:
    n = len(names)
    present = targets.bincount(minlength=n).nonzero().flatten().tolist()
    axes.plot([0, 1], [0, 1], "--", color=GREY, label="guessing")
    ranked = [number for number in ([1] if n == 2 else present) if len(present) > 1]
    for number in ranked:
        score, is_class = probabilities[:, number], (targets == number).long()
        false, true, _ = functional.binary_roc(score, is_class)
        label = f"'{names[number]}': area {float(functional.binary_auroc(score, is_class)):.3f}"
        axes.plot(false.numpy(), true.numpy(), color=BLUE if n == 2 else None, label=label)
        if n == 2 and threshold is not None:
            above = score >= threshold
            point = [float(above[is_class == value].float().mean()) for value in (0, 1)]
            axes.plot(*point, "o", color=BLUE, label=f"threshold {threshold:.3f}")
    what = f"of '{names[1]}'" if n == 2 else "of each class against the rest"
    title = f"ROC {what}" if ranked else "no ROC: all texts are of one class"
    axes.set(
        xlabel="false positive rate", ylabel="true positive rate", title=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02)
    )
    axes.set_aspect("equal")
    if len(ranked) <= NUMBERED:
        axes.legend(loc="lower right", fontsize="small")


def _reliability(
    axes: "Axes", probabilities: Tensor, targets: Tensor, names: list[str], threshold: float | None
) -> None:
    confidence, answer = probabilities.max(dim=-1)
    edges = torch.linspace(0, 1, BINS + 1)
    place = torch.bucketize(confidence, edges, right=True).sub(1).clamp(0, BINS - 1)
    count = torch.bincount(place, minlength=BINS)
    right = torch.bincount(place, weights=(answer == targets).double(), minlength=BINS) / count.clamp(min=1)
    mean = torch.bincount(place, weights=confidence.double(), minlength=BINS) / count.clamp(min=1)
    error = float((count * (right - mean).abs()).sum() / count.sum())
    used = count > 0
    left, x, y = (values[used].numpy() for values in (edges[:-1], mean, right))
    axes.plot([0, 1], [0, 1], "--", color=GREY, label="as confident as right")
    axes.bar(left, y, width=1 / BINS, align="edge", color=BLUE, alpha=0.35, edgecolor=BLUE)
    axes.plot(x, y, "o", color=BLUE, markersize=4, label="a bin, and how many texts")
    for place_x, place_y, number in zip(x, y, count[used].tolist(), strict=True):
        axes.annotate(
            str(number), (place_x, place_y), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=7
        )
    axes.set(xlabel="confidence in the most probable class", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.06))
    axes.set_title(f"reliability: calibration error {error:.3f}")
    axes.legend(loc="upper left", fontsize="small")
