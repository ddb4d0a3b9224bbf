"""Averaged weights on the command line: a file has one score, whoever asks for it."""

import pytest
import torch
from cli_runs import call, events, refusal, run_folders, same, weights
from text_runs import write_classification

from lit_llm.weights.checkpoint import open_checkpoint
from lit_llm.weights.open import open_source

EMA = ("--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.9")


def score(run) -> float:
    (event,) = events(run).Scalars("test/loss")
    return event.value


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
def test_the_test_at_the_end_scores_the_averaged_weights_of_the_best_file(tmp_path, capsys) -> None:
    """As `lit-llm test` of that file does; it is another number than that of the raw weights."""
    args = ("-c", write_classification(tmp_path))
    assert call(capsys, "fit", *args, "--test_best=true").code == 0
    assert call(capsys, "fit", *args, *EMA, "--test_best=true").code == 0
    _, averaged = run_folders(tmp_path)
    best = averaged / "checkpoints" / "best.ckpt"
    for more in ((), EMA):
        assert call(capsys, "test", *args, *more, f"--ckpt_path={best}").code == 0
    assert [score(run) == score(averaged) for run in run_folders(tmp_path)] == [False, True, True, True]
    file = weights(averaged, "best")
    assert not same(file["state_dict"], file["current_model_state"])
    read = open_checkpoint(averaged, ("best",))[1]["state_dict"]  # what generate, classify and export read
    assert same(read, file["state_dict"])
    name = "backbone.embedding.tokens.weight"
    assert torch.equal(open_source(best).backbone().state_dict()[name.removeprefix("backbone.")], read[name])
    said = refusal(call(capsys, "fit", *args, f"--ckpt_path={averaged}", "--trainer.max_steps=6"))
    assert said.startswith(
        "the run of the checkpoint averages its weights by EMAWeightAveraging, and --trainer.callbacks"
    )
