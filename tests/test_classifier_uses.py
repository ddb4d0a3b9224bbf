"""What a trained classifier is used for: exported with equal scores, and refused where it holds no answer."""

from functools import partial
from pathlib import Path

import pytest
import torch
from cli_runs import call, refusal, run_folders, write_tiny
from text_runs import BLOCK, TinyTexts, write_classification
from transformers import pipeline

from lit_llm.inference.classify import Classifier
from lit_llm.weights.classes import refuse_other_scores
from lit_llm.weights.open import open_with_checkpoint

STEPS = ("--trainer.max_steps=2", "--trainer.val_check_interval=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    from lit_llm.__main__ import main

    assert main(["fit", "-c", str(write_classification(folder)), *STEPS, "--model.optimizer.lr=0.05"]) == 0
    return run_folders(folder)[0]


def test_a_trained_classifier_in_transformers(run, folder, tmp_path, capsys) -> None:
    """Its probabilities by a pipeline, its threshold and its labels; and read back by us, it answers the same."""
    out = tmp_path / "out"
    result = call(capsys, "export", "--checkpoint", run, "--out", out)
    assert result.code == 0, result.err
    assert "(GPT2ForSequenceClassification: ham, spam)" in result.out
    texts = TinyTexts().texts("test")[1]
    ours, again = Classifier.from_checkpoint(run), Classifier.from_checkpoint(out)
    assert torch.equal(ours.module.threshold, again.module.threshold)
    assert again.block_size == BLOCK
    answers = ours.classify(texts)[0]
    for one, (label, p) in zip(again.classify(texts)[0], answers, strict=True):
        assert (one[0], one[1]) == (label, pytest.approx(p, abs=1e-6))
    theirs = pipeline("text-classification", str(out), top_k=None, batch_size=4)(texts, truncation=True)
    for scores, (label, p) in zip(theirs, answers, strict=True):
        assert {each["label"]: each["score"] for each in scores}[label] == pytest.approx(p, abs=1e-5)
    card = (out / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert "`ham`, `spam`" in card
    no_step = ("--trainer.max_steps=0", "--trainer.limit_val_batches=0")
    result = call(capsys, "fit", "-c", folder / "classify.yaml", f"--model.init_from={out}", *no_step)
    assert result.code == 0, result.err
    assert "; new: class_weights" in result.err  # the head is not new
    assert "head.weight" not in result.err.partition("new: ")[2].splitlines()[0]


def test_text_is_not_generated_with_it(run, tmp_path, capsys) -> None:
    for args in (("generate", "--checkpoint", run), ("chat", run)):
        assert "is not a language model: its output layer for words was never trained; lit-llm classify" in refusal(
            call(capsys, *args)
        )
    for kind in ("lit", "adapter"):
        result = call(capsys, "export", "--checkpoint", run, "--out", tmp_path / "x", "--format", kind)
        assert "output layer" in refusal(result)
    assert not (tmp_path / "x").exists()


def test_a_language_model_does_not_classify(folder, tmp_path, capsys) -> None:
    assert call(capsys, "fit", "-c", write_tiny(folder), "--trainer.max_steps=2").code == 0
    assert call(capsys, "export", "--checkpoint", folder / "logs" / "tiny", "--out", tmp_path / "lm").code == 0
    said = refusal(call(capsys, "classify", "--checkpoint", tmp_path / "lm", "x"))
    assert "is a language model; lit-llm classify needs a trained Classification" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pooling": "lit_llm.backbone.pooling.MeanTokens"}, "it pools by lit_llm.backbone.pooling.MeanTokens"),
        ({"forward": "mine.Own.forward"}, "computes its output in its own way"),
    ],
)
def test_other_scores_are_refused(run, change, said) -> None:
    """Of another pooling, or by a module of one's own: no class of transformers computes them."""
    source, checkpoint = open_with_checkpoint(run)
    refuse = partial(refuse_other_scores, architecture="GPT2ForSequenceClassification")
    assert refuse(source, checkpoint).names == ("ham", "spam")
    with pytest.raises(ValueError, match=said):
        refuse(source, checkpoint | {"scores": checkpoint["scores"] | change})
