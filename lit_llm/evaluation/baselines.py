"""What simple means achieve on the texts that a classification is trained on: the most frequent class, and TF-IDF."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lit_llm.batch import IGNORE_INDEX
from lit_llm.modules.classification_metrics import best_threshold, decide, scores
from lit_llm.training.callbacks import where_to_look, why_no_validation
from lit_llm.training.items import write_items
from lit_llm.training.logger import tensorboard

SHOWN = ("accuracy", "balanced_accuracy", "f1")
INVERSE_REGULARISATION = 10.0  # of the logistic regression; see Tfidf
TITLES = {"majority": "most frequent class", "tfidf": "TF-IDF"}


class Majority:
    """Answers the most frequent class of the training texts, with the share of each class as its probability.

    Args:
        texts: Training texts.
        targets: (N,) numbers of their classes.
        n_classes: How many there are.
    """

    def __init__(self, texts: Sequence[str], targets: Tensor, n_classes: int) -> None:
        self.shares = targets.bincount(minlength=n_classes) / max(len(targets), 1)

    def probabilities(self, texts: Sequence[str]) -> Tensor:
        """(N, K) of so many texts."""
        return self.shares.expand(len(texts), -1)


class Tfidf:
    """Logistic regression on the weighted counts of words and of pairs of words (scikit-learn).

    Counts are damped (1 + log) and weighted by inverse document frequency (Sparck Jones, 1972,
    https://doi.org/10.1108/eb026526), rows have length 1. C is 10 and fixed: rows that short make the default of 1 a
    strong pull towards the shares of the classes, and a baseline that were tuned would be another experiment.

    Args:
        texts: Training texts.
        targets: (N,) numbers of their classes.
        n_classes: How many there are.

    Raises:
        ValueError: If scikit-learn is not installed, or the texts are of one class or hold no word.
    """

    def __init__(self, texts: Sequence[str], targets: Tensor, n_classes: int) -> None:
        try:
            from sklearn.feature_extraction.text import TfidfVectorizer
            from sklearn.linear_model import LogisticRegression
        except ImportError as error:
            raise ValueError("it needs scikit-learn (pip install 'lit-llm[classify]')") from error
        if len(targets.unique()) < 2:
            raise ValueError("the training texts are of one class")
        self.n_classes = n_classes
        # A word of one letter or digit counts, which scikit-learn's own pattern leaves out.
        self.vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
        try:
            rows = self.vectorizer.fit_transform(texts)
        except ValueError as error:  # its empty vocabulary
            raise ValueError("the training texts hold no word") from error
        self.regression = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000)
        self.regression.fit(rows, targets.numpy())

    def probabilities(self, texts: Sequence[str]) -> Tensor:
        """(N, K); 0 for a class without a training text."""
        whole = torch.zeros(len(texts), self.n_classes)
        if len(texts):
            known = torch.from_numpy(self.regression.predict_proba(self.vectorizer.transform(texts)))
            whole[:, torch.as_tensor(self.regression.classes_)] = known.float()
        return whole


class ClassifierBaselines(Callback):
    """Logs what the most frequent class and TF-IDF with logistic regression achieve on the texts of a classification.

    `baseline/majority/…` and `baseline/tfidf/…` at each validation, on the whole validation split, of the most probable
    class as `val/…` are; a chart of the balanced accuracies on TensorBoard's Custom Scalars page; a table that closes
    the run's output. At a test `test/baseline/…` and, beside `test_items.csv`, `test_items.majority.csv` and
    `test_items.tfidf.csv`: as for the model, the threshold of two classes is chosen on the validation texts. What
    cannot be made (scikit-learn is missing, say: `pip install 'lit-llm[classify]'`) is told in one line and left out.
    """

    logs = tuple(f"baseline/{name}/{score}" for name in TITLES for score in SHOWN)

    def __init__(self) -> None:
        self._made: dict[str, Majority | Tfidf] | None = None
        self._validated: dict[str, dict[str, float]] | None = None
        self._thresholds: dict[str, Tensor | None] = {}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse data without classes.

        Raises:
            ValueError: If the data has none.
        """
        if not getattr(trainer.datamodule, "class_names", None):
            name = type(trainer.datamodule).__name__
            raise ValueError(f"ClassifierBaselines needs texts with classes, and {name} has none; leave it out")

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Lay out the chart."""
        logger = tensorboard(trainer)
        if logger is not None and trainer.is_global_zero:
            lines = [f"baseline/{name}/balanced_accuracy" for name in TITLES]
            chart = {"balanced accuracy and that of simple means": ["Multiline", ["val/balanced_accuracy", *lines]]}
            logger.experiment.add_custom_scalars({"classification": chart})

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the lines."""
        for name, values in self._on_validation(trainer).items():
            logged = {f"baseline/{name}/{score}": value for score, value in values.items()}
            pl_module.log_dict(logged, sync_dist=True)

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the scores of the test texts, and write what is said of each of them."""
        data = trainer.datamodule
        rows, texts, targets = _known(data, "test")
        if not texts:
            return
        self._on_validation(trainer)
        names = data.class_names
        for name, baseline in self._baselines(trainer).items():
            probabilities = baseline.probabilities(texts)
            answers = decide(probabilities, self._thresholds[name])
            values = scores(probabilities, targets, answers)
            pl_module.log_dict({f"test/baseline/{name}/{score}": values[score] for score in SHOWN}, sync_dist=True)
            columns = {
                "id": rows,
                "target": [names[number] for number in targets.tolist()],
                "prediction": [names[number] for number in answers.tolist()],
                **{f"p_{of}": column for of, column in zip(names, probabilities.T.tolist(), strict=True)},
            }
            if trainer.logger is not None and not trainer.fast_dev_run and trainer.log_dir and trainer.is_global_zero:
                write_items(Path(trainer.log_dir) / f"test_items.{name}.csv", [columns])

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Say how far the model came."""
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        metrics = trainer.callback_metrics
        kinds = {"the model": "val/{}", **{title: f"baseline/{name}/{{}}" for name, title in TITLES.items()}}
        print(f"\n{'on validation':22} balanced accuracy     F1")
        for title, tag in kinds.items():
            values = [metrics.get(tag.format(score)) for score in ("balanced_accuracy", "f1")]
            shown = ["-" if value is None else f"{float(value):.3f}" for value in values]
            print(f"{title:22} {shown[0]:>17}  {shown[1]:>5}")
        if "val/loss" not in metrics:
            print(why_no_validation(trainer))
        print("\n".join(f"{name:22} {value}" for name, value in where_to_look(trainer).items()))

    def _baselines(self, trainer: Any) -> dict[str, Majority | Tfidf]:
        """Both, made of the training texts on first use; every rank makes its own, and they are equal."""
        if self._made is None:
            self._made = {}
            data = trainer.datamodule
            _, texts, targets = _known(data, "train")
            kinds: dict[str, type[Majority | Tfidf]] = {"majority": Majority, "tfidf": Tfidf}
            for name, kind in kinds.items():
                try:
                    self._made[name] = kind(texts, targets, len(data.class_names))
                except ValueError as error:
                    if trainer.is_global_zero:
                        print(f"the baseline {TITLES[name]} is left out: {error}", file=sys.stderr)
        return self._made

    def _on_validation(self, trainer: Any) -> dict[str, dict[str, float]]:
        """Scores of both on the validation texts, which do not change; the thresholds follow from there."""
        if self._validated is None:
            self._validated = {}
            data = trainer.datamodule
            _, texts, targets = _known(data, "val") if data.has("val") else ([], [], torch.zeros(0).long())
            for name, baseline in self._baselines(trainer).items():
                self._thresholds[name] = None
                if not texts:
                    continue
                probabilities = baseline.probabilities(texts)
                values = scores(probabilities, targets, decide(probabilities))
                self._validated[name] = {score: float(values[score]) for score in SHOWN}
                if name == "tfidf" and probabilities.shape[1] == 2:
                    self._thresholds[name] = best_threshold(probabilities[:, 1], targets)
        return self._validated


def _known(data: Any, split: str) -> tuple[list[int], list[str], Tensor]:
    """The texts of a split whose class is known: their numbers, themselves, and their (N,) targets."""
    found = zip(*data.texts(split), strict=True)
    known = [(int(row), text, int(target)) for row, text, target in found if int(target) != IGNORE_INDEX]
    return [row for row, _, _ in known], [text for _, text, _ in known], torch.tensor([t for *_, t in known]).long()
