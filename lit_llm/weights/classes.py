"""Classifiers of texts in Hugging Face's layout (`...ForSequenceClassification`): how they are read and written.

Such a class of `transformers` multiplies the vector of the last token that is not padding by `score.weight`, without a
bias. What computes its scores in another way is refused.
"""

import re
from collections.abc import Mapping
from typing import Any

from lit_llm.weights.matching import HEADS, Stored
from lit_llm.weights.source import Classes, Source

SCORE = "score.weight"
HEAD = ("head.linear.weight", "head.linear.bias")  # ours for words, which a folder of a classifier has not
THRESHOLD = "decision_threshold"  # in config.json, which transformers keeps and does not use
SINGLE = "single_label_classification"
OTHER_TASKS = re.compile(r"Classification|QuestionAnswering|MultipleChoice|RewardModel")  # in class names
FORWARD = "lit_llm.modules.classification.Classification.forward"
POOLING = "lit_llm.backbone.pooling.LastToken"
INSTEAD = "; lit-llm classify and predict read the checkpoint itself"


def is_language_model(config: Mapping[str, Any], stored: Mapping[str, Stored]) -> bool:
    """Whether a folder holds an output layer for words.

    Args:
        config: The content of its config.json.
        stored: Its tensors by name, where the config names no class.
    """
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        return SCORE not in stored
    return not any(OTHER_TASKS.search(str(name)) for name in architectures)


def classes_of(config: Mapping[str, Any], stored: Mapping[str, Stored]) -> Classes | None:
    """The classes that a folder tells apart; None if it does something else than to choose one of several.

    Args:
        config: The content of its config.json.
        stored: Its tensors by name.
    """
    if is_language_model(config, stored) or config.get("problem_type") not in (None, SINGLE):
        return None
    if [name for name in stored if HEADS.search(name)] != [SCORE]:
        return None
    labels = config.get("id2label") or {}
    names = tuple(str(labels.get(str(n), f"LABEL_{n}")) for n in range(stored[SCORE].shape[0]))
    return Classes(names, SCORE, THRESHOLD) if len(names) > 1 else None


def classes_config(architecture: str, classes: Classes, threshold: float | None) -> dict[str, Any]:
    """What config.json says of the classes.

    Args:
        architecture: The class in `transformers`.
        classes: Their names.
        threshold: Probability from which on the second of two classes is answered. None: the most probable one is.
    """
    said = {} if threshold is None else {THRESHOLD: threshold}
    return {
        "architectures": [architecture],
        "id2label": {str(number): name for number, name in enumerate(classes.names)},
        "label2id": {name: number for number, name in enumerate(classes.names)},
        "problem_type": SINGLE,
        **said,
    }


def refuse_other_scores(source: Source, checkpoint: dict[str, Any], architecture: str) -> Classes:
    """The classes of a source, if `transformers` computes the same scores of them.

    Args:
        source: One that is no language model.
        checkpoint: What it holds beside the weights, if it is a checkpoint.
        architecture: The class in `transformers`.

    Raises:
        ValueError: If they are computed in another way, or there are none.
    """
    if not checkpoint:
        if source.classes is None:
            raise ValueError("it is neither a language model nor a classifier that chooses one of several classes")
        return source.classes
    kind = checkpoint["hyper_parameters"].get("_class_path") or "its module"
    scores = checkpoint.get("scores") or {}
    if source.classes is None or scores.get("forward") != FORWARD:
        raise ValueError(f"{kind} computes its output in its own way, unlike {architecture}{INSTEAD}")
    if scores.get("pooling") != POOLING:
        raise ValueError(
            f"it pools by {scores.get('pooling')} (--model.pooling), and {architecture} reads the last token{INSTEAD}"
        )
    own = {"class_weights", source.classes.head, source.classes.threshold}
    if others := sorted(name for name in source.stored if not name.startswith("backbone.") and name not in own):
        raise ValueError(f"it has {', '.join(others[:3])}, for which {architecture} has no place{INSTEAD}")
    return source.classes
