"""Whole texts into classes."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_llm.backbone import GPT
from lit_llm.backbone.pooling import LastToken
from lit_llm.batch import IGNORE_INDEX, TextBatch
from lit_llm.modules.base import BaseModule
from lit_llm.modules.classification_metrics import SCORES, Answers, Collected, best_threshold, decide, mean_loss, scores
from lit_llm.weights.source import Source


class Classification(BaseModule):
    """Trains a backbone, with a small output layer in place of that of the vocabulary, to tell classes of texts apart.

    That layer has no bias, as in transformers' `…ForSequenceClassification`, as which a classifier is exported.

    `val/…` are the scores of the most probable class. Of two classes, each validation of a training chooses the
    probability from which on the second one is answered: its best F1 on the validation texts. It lies in the checkpoint
    (`threshold`), and decides in test, predict and classify. Of more classes the most probable one does.

    Args:
        backbone: The network.
        class_names: Names of the classes, in the order of their numbers; on the command line those of the data.
        pooling: Called with nothing; maps (B, T, C) hidden states and (B,) lengths to (B, C). Others than that of the
            last token: lit_llm.backbone.pooling.FirstToken, lit_llm.backbone.pooling.MeanTokens.
        loss: Loss of (N, K) logits against (N,) targets, of which -100 are left out; one of torch's is told not to
            reduce, another one gives the loss of each text, or their sum if there are no class weights.
        class_weights: Weights of the texts of each class in the training loss, 0 or larger, or `balanced`: number of
            training texts / (number of classes * texts of the class). None: all texts weigh the same.
        dropout: Probability with which a channel of the pooled vector is dropped in training, in [0, 1].
        **kwargs: Those of `BaseModule`.

    Raises:
        ValueError: If there are fewer than two classes or two of one name, the weights are not one finite number of at
            least 0 for each class, or the dropout is no probability.
    """

    uses_head = False  # of the backbone
    batch_kind = TextBatch
    logs = (*BaseModule.logs, "val/loss", *(f"val/{name}" for name in SCORES), "val/threshold")

    def __init__(
        self,
        backbone: GPT,
        class_names: list[str],
        pooling: Callable[[], nn.Module] = LastToken,
        loss: Callable[[], nn.Module] = nn.CrossEntropyLoss,
        class_weights: list[float] | Literal["balanced"] | None = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        n_classes = len(class_names)
        if n_classes < 2 or len(set(class_names)) < n_classes:
            raise ValueError(f"the class names {class_names} cannot be: there are at least two, and all differ")
        self.class_names, self._weighting = list(class_names), class_weights
        self.pooling = pooling()
        self.dropout = nn.Dropout(dropout)
        # Without a bias, as the classifiers of transformers have it, so that `lit-llm export` can write one.
        self.head = nn.Linear(backbone.embedding.tokens.weight.shape[1], n_classes, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)  # as all of GPT-2's
        made: Any = loss()
        if hasattr(made, "reduction"):
            made.reduction = "none"
        self.loss = made
        self.class_weights: Tensor
        self.register_buffer("class_weights", _weights(class_weights, n_classes))
        if n_classes != 2:  # none of which has a threshold
            self.logs = tuple(name for name in self.logs if name != "val/threshold")
        self.threshold: Tensor | None
        self.register_buffer("threshold", torch.tensor(0.5) if n_classes == 2 else None)
        self.collected = Collected(n_classes)
        self.validated: Answers | None = None  # by the last validation, for whoever draws it

    def setup(self, stage: str) -> None:
        """Start from the weights asked for, and count the classes if their weights are to be balanced.

        Raises:
            ValueError: If a class without a training text is to be balanced, and as in `BaseModule`.
        """
        super().setup(stage)
        if stage != "fit":
            return
        weighting = self._weighting
        if weighting == "balanced":
            counts = self.trainer.datamodule.class_counts("train")  # type: ignore[attr-defined]
            if 0 in counts:
                raise ValueError(
                    f"class_weights balanced cannot be: no training text is of the class "
                    f"'{self.class_names[counts.index(0)]}'"
                )
            weighting = [sum(counts) / (len(counts) * count) for count in counts]
        # After those of `init_from`: here the config counts.
        self.class_weights.copy_(_weights(weighting, len(self.class_names)))

    def takes_whole(self, source: Source) -> bool:
        """Whether the head is taken as well: that of this class, or of a folder with the same classes.

        Raises:
            ValueError: If this class has written the head, for other classes.
        """
        is_own, names = super().takes_whole(source), list(source.classes.names if source.classes else ())
        if is_own and names and names != self.class_names:
            raise ValueError(
                f"'{source.name}' tells the classes {', '.join(names)} apart, and the data has "
                f"{', '.join(self.class_names)}; take the data of that run, or start from a checkpoint of another "
                "task, which gives its backbone alone"
            )
        return is_own or (source.folder is not None and names == self.class_names)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put beside the weights how scores are computed and how long a text may be."""
        super().on_save_checkpoint(checkpoint)
        parts: dict[str, Any] = {"forward": type(self).forward, "pooling": type(self.pooling)}
        checkpoint["scores"] = {name: f"{part.__module__}.{part.__qualname__}" for name, part in parts.items()}
        if (data := getattr(self.trainer, "datamodule", None)) is not None:
            checkpoint["block_size"] = data.block_size

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the weights of the classes that the config asks for: a run that goes on may change them."""
        super().on_load_checkpoint(checkpoint)
        if self._trainer is not None and self.trainer.state.fn == "fit":
            checkpoint["state_dict"]["class_weights"] = self.class_weights.clone()

    def forward(self, batch: TextBatch) -> Tensor:
        """Maps a batch to its (B, K) logits."""
        hidden = self.backbone.hidden_states(batch.idx)  # (B, T, C)
        return self.head(self.dropout(self.pooling(hidden, batch.lengths)))

    def training_step(self, batch: TextBatch, batch_idx: int) -> Tensor:
        """What a batch adds to the mean loss of its optimizer step, in which a text has the weight of its class."""
        total, weight = self.weighted_loss(self(batch).float(), batch.targets)
        return self.share_of_step(total, weight, batch_idx)

    def weighted_loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the losses, each times the weight of the target's class, and the sum of these weights.

        Args:
            logits: (N, K).
            targets: (N,), -100 where the class is not known.

        Raises:
            ValueError: If classes have weights, and the loss gives the sum of all texts.
        """
        losses = self.loss(logits, targets)
        weights = self.class_weights[targets.clamp(min=0)] * (targets != IGNORE_INDEX)  # (N,)
        if losses.shape == targets.shape:
            return (losses * weights).sum(), weights.sum()
        if self._weighting is not None:
            raise ValueError(
                f"{type(self.loss).__name__} gives one loss for all texts, which class_weights cannot weigh; let it "
                "give one for each text"
            )
        return losses, weights.sum()

    def validation_step(self, batch: TextBatch, batch_idx: int) -> None:
        """Keep what is said of a batch."""
        self.collected.update(self(batch), batch.targets)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation texts, and choose the threshold by them."""
        self.validated = answers = self._collect()
        self._log_scores("val", answers, None)
        is_training = self.trainer.state.fn == "fit" and not self.trainer.sanity_checking
        if self.threshold is not None and is_training:
            if (best := best_threshold(answers.probabilities[:, 1], answers.targets)) is not None:
                self.threshold.copy_(best)
            self.log("val/threshold", self.threshold, sync_dist=True)

    def test_step(self, batch: TextBatch, batch_idx: int) -> dict[str, list]:
        """Keep what is said of a batch; columns of `test_items.csv`, with a line for each text of a known class."""
        logits = self(batch).float()
        self.collected.update(logits, batch.targets)
        known = batch.targets != IGNORE_INDEX
        columns = self._columns(batch.rows[known], logits[known], "prediction")
        targets = [self.class_names[number] for number in batch.targets[known].tolist()]
        return {"id": columns.pop("id"), "target": targets, **columns}

    def on_test_epoch_end(self) -> None:
        """Log the scores of the test texts."""
        self._log_scores("test", self._collect(), self.threshold)

    def predict_step(self, batch: TextBatch, batch_idx: int) -> dict[str, list]:
        """Columns of `predictions.csv`, with a line for each text."""
        is_text = batch.rows >= 0  # not what a rank without a text has got
        return self._columns(batch.rows[is_text], self(batch).float()[is_text], "label")

    def _columns(self, rows: Tensor, logits: Tensor, answer: str) -> dict[str, list]:
        probabilities = logits.softmax(dim=-1)
        labels = [self.class_names[number] for number in decide(probabilities, self.threshold).tolist()]
        by_class = zip(self.class_names, probabilities.T.tolist(), strict=True)
        return {"id": rows.tolist(), answer: labels, **{f"p_{name}": column for name, column in by_class}}

    def _collect(self) -> Answers:
        answers = self.collected.compute()
        self.collected.reset()
        return answers

    def _log_scores(self, split: str, answers: Answers, threshold: Tensor | None) -> None:
        if not len(answers.targets):
            return  # no class is known, and nothing can be said
        # In fp32 all that is surer than 1 - 6e-8 would be 1, and tied in the areas under curves.
        exact = answers.logits.double().softmax(dim=-1)
        values = {"loss": mean_loss(answers)}
        values |= scores(exact, answers.targets, decide(answers.probabilities, threshold))
        bar = ("loss", "balanced_accuracy")
        for name, value in values.items():  # equal on all ranks already; Lightning cannot know
            self.log(f"{split}/{name}", value.float(), prog_bar=name in bar, sync_dist=True)


def _weights(wanted: list[float] | str | None, n_classes: int) -> Tensor:
    """(K,) weights of the classes; 1 where none are said, or where those of the texts are not known yet."""
    if wanted is None or isinstance(wanted, str):
        return torch.ones(n_classes)
    weights = torch.tensor(wanted)
    if len(wanted) != n_classes or not (weights.isfinite().all() and (weights >= 0).all() and weights.any()):
        raise ValueError(
            f"class_weights {wanted} cannot be: they are {n_classes} numbers, one for each class, none of them "
            "negative and not all 0"
        )
    return weights
