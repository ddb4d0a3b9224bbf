"""Classifiers as `...ForSequenceClassification`: what transformers computes is ours, in both directions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from cli_runs import call, refusal
from tiny_pretrained import MODELS, SIZES, TOKENS
from tiny_tokenizers import KINDS
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from lit_llm.inference.classify import Classifier
from lit_llm.weights.open import open_source

V = 331  # more than the tokenizer has ids
NAMES = ["ham", "spam", "ads"]
TEXTS = ["win now", "see you at home", "a prize, call us now", "x", "thanks"]


def write(folder: Path, name: str, **settings: Any) -> Any:
    """A random classifier of transformers with a tokenizer, in a folder."""
    torch.manual_seed(0)
    kind, values = MODELS[name]
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {label: n for n, label in enumerate(NAMES)}}
    config = getattr(transformers, f"{kind}Config")(
        **values | {"vocab_size": V}, **TOKENS | {"pad_token_id": 2}, **labels | settings
    )
    cls = getattr(transformers, f"{kind}ForSequenceClassification")
    model = cls._from_config(config, attn_implementation="eager")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 0.5)
    model.save_pretrained(folder)
    KINDS["byte level"]().save(str(folder / "tokenizer.json"))
    said = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "model_max_length": 32}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **said}))
    return model.eval()


def scores(folder: Path, texts: list[str], side: str = "right") -> torch.Tensor:
    """Probabilities of a batch by transformers."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side)
    with torch.no_grad():
        return model(**tokenizer(texts, return_tensors="pt", padding=True, truncation=True)).logits.softmax(-1)


def ours(folder: Path, texts: list[str]) -> torch.Tensor:
    """Probabilities of a batch by us."""
    found = Classifier.from_checkpoint(folder)
    answers, _ = found.classify(texts)
    assert found.module.class_names == NAMES
    assert [answer[0] in NAMES for answer in answers] == [True] * len(texts)
    return columns(found, texts)


def columns(found: Classifier, texts: list[str]) -> torch.Tensor:
    """(N, K) probabilities."""
    import numpy as np

    from lit_llm.data.texts import Texts

    rows = Texts(texts, np.zeros(len(texts), int), np.arange(len(texts)), found.tokenizer, found.block_size)
    with torch.inference_mode():
        return found.module(rows.__getitems__(range(len(texts)))).softmax(-1)


@pytest.mark.parametrize("name", MODELS)
def test_a_classifier_of_each_family(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Read with equal scores, written as the same class with equal tensors; no text is continued with it."""
    model = write(tmp_path / "theirs", name)
    wanted = scores(tmp_path / "theirs", TEXTS)
    assert (ours(tmp_path / "theirs", TEXTS) - wanted).abs().max() <= 1e-5
    result = call(capsys, "export", "--checkpoint", tmp_path / "theirs", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == [type(model).__name__]
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert again.config.id2label == dict(enumerate(NAMES))
    assert (again.config.label2id, again.config.num_labels) == ({label: n for n, label in enumerate(NAMES)}, 3)
    state = model.state_dict()
    assert state.keys() == again.state_dict().keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in again.state_dict().items())
    assert (scores(tmp_path / "out", TEXTS) - wanted).abs().max() <= 1e-5
    assert (ours(tmp_path / "out", TEXTS) - wanted).abs().max() <= 1e-5
    for command in ("generate", "chat"):
        source = ["--checkpoint", tmp_path / "out"] if command == "generate" else [tmp_path / "out"]
        assert "is not a language model" in refusal(call(capsys, command, *source))


def test_a_pipeline_gives_our_labels(tmp_path: Path) -> None:
    """Also with padding on the left, where positions are relative."""
    write(tmp_path / "m", "llama")
    made = pipeline("text-classification", str(tmp_path / "m"), batch_size=3)
    answers, _ = Classifier.from_checkpoint(tmp_path / "m").classify(TEXTS)
    for (label, probability), one in zip(answers, made(TEXTS), strict=True):
        assert one["label"] == label
        assert one["score"] == pytest.approx(probability, abs=1e-5)
    left, right = (scores(tmp_path / "m", TEXTS, side) for side in ("left", "right"))
    assert (left - right).abs().max() <= 1e-5


def test_what_chooses_no_class_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "m", "llama", problem_type="multi_label_classification")
    assert not open_source(tmp_path / "m").is_language_model
    said = refusal(call(capsys, "classify", "--checkpoint", tmp_path / "m", "x"))
    assert "is not a classifier that chooses one class" in said
    said = refusal(call(capsys, "export", "--checkpoint", tmp_path / "m", "--out", tmp_path / "out"))
    assert "neither a language model nor a classifier" in said
    assert SIZES["vocab_size"] < V
