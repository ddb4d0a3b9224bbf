"""Preference tuning by the command line: fitted, resumed, validated, with adapters, on two ranks; and refused."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runs import call, equal_at_the_end, refusal, run_folders, tiny_config, weights, write_text, write_yaml
from preference_runs import BLOCK, pairs, tiny_pairs, write_preferences
from python_runs import tiny_backbone, trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_llm.modules import PreferenceTuning

LN_2 = math.log(2)
CLOSE = 1e-6  # of log-probabilities near 100 nats, times beta: the batches are padded in another way


def scalars(run: Path, name: str) -> list[float]:
    events = EventAccumulator(str(run))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


def test_a_run_goes_on_and_is_scored(tmp_path: Path, capsys: Any) -> None:
    """It starts at ln 2 and learns; stopped after two steps it ends in the same weights, with the same reference."""
    config = write_preferences(tmp_path)
    for options in ([], ["--trainer.max_steps=2"]):
        result = call(capsys, "fit", "-c", config, *options)
        assert result.code == 0, result.err
        assert "asking the reference model for its log-probabilities of 14 pairs" in result.err
    result = call(capsys, "fit", "-c", config, "--ckpt_path=last")
    assert result.code == 0, result.err
    assert "asking the reference" not in result.err
    whole, _, resumed = run_folders(tmp_path)
    assert equal_at_the_end(whole, resumed)
    assert torch.equal(weights(whole)["reference"], weights(resumed)["reference"])
    losses, margins = scalars(whole, "train/loss"), scalars(whole, "val/reward_margin")
    assert losses[0] == pytest.approx(LN_2, abs=CLOSE)
    assert losses[-1] < losses[0]
    assert 0 < margins[0] < margins[-1]
    scored = call(capsys, "validate", "-c", config, "--ckpt_path", whole / "checkpoints" / "last.ckpt")
    assert scored.code == 0, scored.err
    shown = re.search(r"val/loss\W+([\d.]+)", scored.out)
    assert shown is not None
    assert float(shown[1]) == pytest.approx(scalars(whole, "val/loss")[-1], rel=1e-5)


def test_with_adapters_the_base_is_the_reference(tmp_path: Path, capsys: Any) -> None:
    """B starts at 0: the reference is the source, and the first loss ln 2; the base stays as it is."""
    config = write_preferences(tmp_path)
    assert call(capsys, "fit", "-c", config).code == 0
    (base,) = run_folders(tmp_path)
    start = (
        "--model.init_from",
        base / "checkpoints" / "last.ckpt",
        "--model.lora.rank=3",
        "--model.optimizer.lr=0.01",
    )
    result = call(capsys, "fit", "-c", config, *start)
    assert result.code == 0, result.err
    run = run_folders(tmp_path)[1]
    losses = scalars(run, "train/loss")
    assert losses[0] == pytest.approx(LN_2, abs=CLOSE)
    assert losses[-1] < losses[0]
    before, after = weights(base)["state_dict"], weights(run)["state_dict"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert call(capsys, "fit", "-c", config, *start, "--ckpt_path=last", "--trainer.max_steps=5").code == 0


def test_two_ranks_share_the_reference(tmp_path: Path) -> None:
    """Each asks for its share of the pairs; both know all of them."""

    def reference(ranks: int) -> torch.Tensor:
        class Kept(PreferenceTuning):
            def on_train_start(self) -> None:
                super().on_train_start()
                torch.save(self.reference, tmp_path / f"{ranks}.{self.global_rank}.pt")

        run = trainer(max_steps=1, devices=ranks, strategy="ddp_fork" if ranks > 1 else "auto", limit_val_batches=0)
        run.fit(Kept(tiny_backbone(5.0, block_size=BLOCK)), tiny_pairs(tmp_path, batch_size=2))
        return torch.load(tmp_path / f"{ranks}.{ranks - 1}.pt")

    # Sums of up to 20 terms of 10 nats in fp32, of batches that are padded in another way.
    torch.testing.assert_close(reference(2), reference(1), rtol=1e-6, atol=1e-4)


BAD = {
    "has one and the same answer as chosen and as rejected": {"prompt": "a", "chosen": "b", "rejected": "b"},
    "has no 'rejected' (its fields: prompt, chosen)": {"prompt": "a", "chosen": "b"},
    "has no 'chosen' (its fields: prompt, rejected)": {"prompt": "a", "rejected": "b"},
}


@pytest.mark.parametrize("told", BAD)
def test_a_bad_pair_is_told_in_a_sentence(tmp_path: Path, capsys: Any, told: str) -> None:
    said = refusal(call(capsys, "fit", "-c", write_preferences(tmp_path, [*pairs(), BAD[told]])))
    assert f"pairs.json' record 15 {told}" in said


def test_what_does_not_belong_together(tmp_path: Path, capsys: Any) -> None:
    """Other pairs than those of the reference; another kind of data; nothing that the reference has said."""
    config = write_preferences(tmp_path)
    assert call(capsys, "fit", "-c", config).code == 0
    others = call(
        capsys, "validate", "-c", config, "--ckpt_path=last", "--data.block_size=40", "--data.template=alpaca"
    )
    assert others.code == 2
    write_preferences(tmp_path, pairs(15))
    said = refusal(call(capsys, "validate", "-c", config, "--ckpt_path=last"))
    assert "holds what the reference says of 14 pairs, and the data has 15, which are others" in said
    run = run_folders(tmp_path)[0]
    said = refusal(call(capsys, "validate", "-c", config, "--model.init_from", run))
    assert "what the reference says of these pairs is not known" in said
    tiny = tiny_config(tmp_path)
    write_text(tmp_path / "text.txt")
    tiny["model"]["class_path"] = "lit_llm.modules.PreferenceTuning"
    said = refusal(call(capsys, "fit", "-c", write_yaml(tmp_path / "other.yaml", tiny)))
    assert "PreferenceTuning and Pretraining do not belong together: PreferenceTuning is about pairs of answers" in said
    tiny["model"]["class_path"] = "lit_llm.modules.InstructionTuning"
    said = refusal(call(capsys, "fit", "-c", write_yaml(tmp_path / "other.yaml", tiny)))
    assert "InstructionTuning learns from conversations, and Pretraining has none" in said
