"""Preference tuning: what is compared, with which reference, and that it learns."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule
from python_runs import B, Call, T, V, tiny_backbone, trainer
from torch import Tensor

from lit_llm.batch import IGNORE_INDEX, PreferenceBatch
from lit_llm.modules import PreferenceTuning
from lit_llm.training.preference_losses import DPO, ORPO, SimPO

PAIRS = 12


def answers() -> tuple[Tensor, Tensor]:
    """(pairs, 2, T) ids and targets: prompts of two tokens, answers of different lengths."""
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(V, (PAIRS, 2, T + 1), generator=generator)
    tokens[:, 1, :3] = tokens[:, 0, :3]  # one prompt for both
    idx, targets = tokens[..., :-1], tokens[..., 1:].clone()
    targets[..., :2] = IGNORE_INDEX
    for row in range(PAIRS):
        targets[row, row % 2, 3 + row % 4 :] = IGNORE_INDEX
    return idx, targets


class PairsData(LightningDataModule):
    """The last third is for validation; the last batch of each is ragged."""

    num_pairs, vocab_size, block_size = PAIRS, V, T
    pairs_fingerprint = "of these"

    def batches(self, rows: range) -> list[PreferenceBatch]:
        idx, targets = answers()
        parts = torch.tensor(list(rows)).split(B)
        return [
            PreferenceBatch(*(x[part].transpose(0, 1).flatten(0, 1) for x in (idx, targets)), part) for part in parts
        ]

    def pairs_dataloader(self) -> Iterator[PreferenceBatch]:
        yield from self.batches(range(PAIRS))

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(self.batches(range(8)), batch_size=None)  # type: ignore[arg-type]

    def val_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(self.batches(range(8, PAIRS)), batch_size=None)  # type: ignore[arg-type]

    def tokenizer_state(self) -> dict[str, Any]:
        return {}


def by_hand(backbone: torch.nn.Module) -> Tensor:
    """(pairs, 2): log-probability of each answer."""
    idx, targets = answers()
    said = torch.zeros(PAIRS, 2)
    for row in range(PAIRS):
        for which in range(2):
            logits = backbone(idx[row, which][None])[0].log_softmax(-1)
            places = targets[row, which] != IGNORE_INDEX
            said[row, which] = logits[places].gather(1, targets[row, which, places][:, None]).sum()
    return said


def test_the_reference_is_the_model_of_the_beginning() -> None:
    """Log-probabilities of answers alone, by row; asked once, with dropout off."""
    module = PreferenceTuning(tiny_backbone(6.0))
    with torch.no_grad():
        expected = by_hand(module.backbone.eval())
    module.backbone.train()
    trainer(max_steps=2, limit_val_batches=0).fit(module, PairsData())
    assert module.reference is not None
    torch.testing.assert_close(module.reference, expected, rtol=1e-5, atol=1e-4)  # fp32, sums of up to 5 terms of 1e2


def test_the_loss_starts_at_ln_2_and_falls() -> None:
    """And the margin between the rewards grows from 0."""
    losses: list[float] = []
    seen = Call("on_train_batch_end", lambda trainer, module, *_: losses.append(float(module.step_loss)))
    module = PreferenceTuning(tiny_backbone(6.0), optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-3))
    run = trainer(max_steps=12, callbacks=[seen])
    run.fit(module, PairsData())
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)  # log-probabilities of about -100, in fp32
    assert losses[-1] < 0.6
    assert run.callback_metrics["train/reward_margin"] > 0.2
    assert run.callback_metrics["train/reward_accuracy"] == 1.0


def test_validation_is_over_pairs() -> None:
    """Means over the held-out pairs, each once, beside the reference of the beginning."""
    module = PreferenceTuning(tiny_backbone(6.0), loss=lambda: DPO(0.5))
    data, run = PairsData(), trainer(max_steps=2)
    run.fit(module, data)
    [values] = trainer().validate(module, data, verbose=False)
    with torch.no_grad():
        gains = (by_hand(module.backbone.eval()) - module.reference)[8:] * 0.5
    margin = gains[:, 0] - gains[:, 1]
    assert values["val/reward_margin"] == pytest.approx(margin.mean().item(), abs=1e-4)
    assert values["val/loss"] == pytest.approx(-torch.nn.functional.logsigmoid(margin).mean().item(), abs=1e-4)
    assert values["val/reward_accuracy"] == pytest.approx((margin > 0).float().mean().item())


def test_a_run_that_goes_on_keeps_its_reference(tmp_path: Path) -> None:
    """Whatever the weights of the module that goes on."""
    module = PreferenceTuning(tiny_backbone(6.0))
    run = trainer(max_steps=2)
    run.fit(module, PairsData())
    run.save_checkpoint(tmp_path / "last.ckpt")
    other = PreferenceTuning(tiny_backbone(1.0))
    trainer(max_steps=3).fit(other, PairsData(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert module.reference is not None
    assert torch.equal(other.reference, module.reference)


@pytest.mark.parametrize("loss", [SimPO, ORPO])
def test_losses_without_a_reference_ask_none(loss: Any) -> None:
    module = PreferenceTuning(tiny_backbone(6.0), loss=loss)
    trainer(max_steps=2, limit_val_batches=0).fit(module, PairsData())
    assert module.reference is None


def test_a_batch_that_only_fills_up_adds_nothing() -> None:
    """What a rank gets that has no pairs left."""
    module, data = PreferenceTuning(tiny_backbone(6.0), loss=SimPO), PairsData()
    batch = data.batches(range(8, 10))[0]
    module.validation_step(batch, 0)
    expected = module.means.compute()
    empty = batch._replace(targets=torch.full_like(batch.targets, IGNORE_INDEX))
    module.validation_step(empty, 1)
    assert module.means.compute() == expected


def test_without_a_reference_there_is_no_score() -> None:
    with pytest.raises(ValueError, match="give a checkpoint of the run"):
        trainer().validate(PreferenceTuning(tiny_backbone()), PairsData(), verbose=False)
