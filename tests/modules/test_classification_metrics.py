"""Scores of a classifier, against scikit-learn and by hand, and the threshold that they choose."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_llm.modules.classification_metrics import best_threshold, decide, scores


@pytest.mark.parametrize("n_classes", [2, 3])
def test_scores_are_those_of_scikit_learn(n_classes) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    draw = torch.Generator().manual_seed(n_classes)
    targets = torch.randint(n_classes, (61,), generator=draw)
    logits = torch.randn(61, n_classes, generator=draw) + F.one_hot(targets, n_classes)
    p, answers = logits.softmax(-1), logits.argmax(-1)
    found = {name: float(value) for name, value in scores(p, targets, answers).items()}
    kind = {"average": "binary" if n_classes == 2 else "macro"}
    ranked = p[:, 1] if n_classes == 2 else p
    hot = targets if n_classes == 2 else F.one_hot(targets)
    expected = {
        "accuracy": metrics.accuracy_score(targets, answers),
        "balanced_accuracy": metrics.balanced_accuracy_score(targets, answers),
        "f1": metrics.f1_score(targets, answers, **kind),
        "auroc": metrics.roc_auc_score(targets, ranked.double() / ranked.double().sum(-1, True), multi_class="ovr")
        if n_classes > 2
        else metrics.roc_auc_score(targets, ranked),
        "average_precision": metrics.average_precision_score(hot, ranked, average="macro"),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert found.keys() == {*expected, "calibration_error"}


def test_calibration_error_by_hand() -> None:
    """Confidence 0.9 and right twice of four times, 0.6 and always right: (4 * 0.4 + 2 * 0.4) / 6."""
    p = torch.tensor([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    targets = torch.tensor([0, 0, 1, 1, 1, 1])
    assert float(scores(p, targets, decide(p))["calibration_error"]) == pytest.approx(0.4, abs=1e-6)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_split_of_one_class(n_classes) -> None:
    """No warning (they are errors here), nothing that is not defined, and no threshold."""
    p, targets = torch.rand(5, n_classes).softmax(-1), torch.ones(5, dtype=torch.long)
    found = scores(p, targets, decide(p))
    assert found.keys() == {"accuracy", "balanced_accuracy", "f1", "calibration_error"}
    assert found["balanced_accuracy"] == found["accuracy"]
    assert best_threshold(p[:, 1], targets) is None


def f1(p: Tensor, targets: Tensor, threshold: float) -> float:
    above = p >= threshold
    return float(2 * (above & (targets == 1)).sum() / (above.sum() + targets.sum()))


def test_no_threshold_is_better() -> None:
    """Against all that decide differently, also where probabilities repeat or all lie on one side."""
    draw = torch.Generator().manual_seed(0)
    for number in range(60):
        targets = torch.randint(2, (9,), generator=draw)
        p = torch.rand(9, generator=draw).mul(4).round().div(4) if number % 2 else torch.rand(9, generator=draw) / 3
        if len(targets.unique()) == 2:
            found = float(best_threshold(p, targets))
            best = max(f1(p, targets, float(t)) for t in torch.linspace(-0.001, 1.001, 1003))
            assert f1(p, targets, found) == pytest.approx(best)


def test_threshold_by_hand() -> None:
    """In the middle between those that it divides; 0.5 where nothing is better."""
    targets = torch.tensor([0, 0, 1, 1])
    assert float(best_threshold(torch.tensor([0.1, 0.2, 0.3, 0.4]), targets)) == pytest.approx(0.25)
    assert float(best_threshold(torch.tensor([0.1, 0.2, 0.6, 0.9]), targets)) == 0.5
    assert best_threshold(torch.tensor([0.1, 0.2, 0.3, float("nan")]), targets) is None
    p = torch.tensor([[0.7, 0.3], [0.8, 0.2]])
    assert decide(p).tolist() == [0, 0]
    assert decide(p, torch.tensor(0.25)).tolist() == [1, 0]
