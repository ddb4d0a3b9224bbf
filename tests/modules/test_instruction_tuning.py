"""Instruction tuning: what is measured, and that no division of packed windows changes the gradients."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from python_runs import C, Call, H, tiny_backbone, trainer
from torch import Tensor

from lit_llm.backbone.context import Context
from lit_llm.batch import IGNORE_INDEX
from lit_llm.data.instructions import Instructions
from lit_llm.data.tokenizer import Bytes
from lit_llm.modules import InstructionTuning

ROWS, T = 8, 31


def data(folder: Path, **settings: Any) -> Instructions:
    rows = [{"instruction": f"Say {i}.", "output": f"{i} " * (1 + i % 5)} for i in range(60)]
    (folder / "rows.json").write_text(json.dumps(rows))
    defaults = {"template": "plain", "block_size": T, "batch_size": 4, "val_fraction": 0.3}
    return Instructions(str(folder / "rows.json"), Bytes(), **{**defaults, **settings})


def module() -> InstructionTuning:
    return InstructionTuning(tiny_backbone(6.0, block_size=T, n_head=H, n_embd=C))


def gradients(folder: Path, batch_size: int) -> Tensor:
    """Those of one optimizer step over the first eight windows, in batches of so many."""
    found: list[Tensor] = []
    keep = Call(
        "on_before_optimizer_step",
        lambda trainer, module, optimizer: found.append(torch.cat([p.grad.flatten() for p in module.parameters()])),
    )
    run = trainer(max_steps=1, accumulate_grad_batches=ROWS // batch_size, limit_val_batches=0, callbacks=[keep])
    run.fit(module(), data(folder, batch_size=batch_size))
    return found[0]


@pytest.mark.parametrize("batch_size", [8, 4, 1])
def test_no_division_of_packed_windows_changes_the_gradients(tmp_path: Path, batch_size: int) -> None:
    """N7: 1 x 8, 2 x 4 and 8 x 1 windows, with targets of -100: those of the mean over all targets, to rounding."""
    served = data(tmp_path, batch_size=ROWS)
    batch = next(iter(served.train_dataloader()))
    counts = (batch.targets != IGNORE_INDEX).sum(dim=1)
    assert len(set(counts.tolist())) > 1  # else a mean of means would do
    assert (batch.documents.amax(dim=1) > 1).any()
    backbone = tiny_backbone(6.0, block_size=T, n_head=H, n_embd=C)
    F.cross_entropy(backbone(batch.idx, Context(batch.documents)).flatten(0, 1), batch.targets.flatten()).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in backbone.parameters()])
    found = gradients(tmp_path, batch_size)
    assert float((found - expected).norm() / expected.norm()) < 1e-6


def test_what_is_measured_are_the_answers(tmp_path: Path) -> None:
    """Loss, perplexity and accuracy over their tokens; whether prompts carry loss in training does not matter."""
    logged = []
    for mask in (True, False):
        served, run = data(tmp_path, mask_prompt=mask), trainer()
        run.validate(module(), served, verbose=False)
        logged.append({name: float(value) for name, value in run.callback_metrics.items()})
    assert logged[0] == logged[1]
    losses, hits = [], []
    backbone = module().backbone.eval()
    for batch in served.val_dataloader():
        real = batch.targets != IGNORE_INDEX
        logits = backbone(batch.idx, Context(batch.documents))[real].detach()
        losses.append(F.cross_entropy(logits, batch.targets[real], reduction="none"))
        hits.append(logits.argmax(-1) == batch.targets[real])
    expected = torch.cat(losses).mean()
    assert logged[0]["val/loss"] == pytest.approx(float(expected), rel=1e-5)
    assert logged[0]["val/perplexity"] == pytest.approx(float(expected.exp()), rel=1e-4)
    assert logged[0]["val/token_accuracy"] == pytest.approx(float(torch.cat(hits).float().mean()))
    assert len(served.prepared.examples["train"].learnt()) > len(data(tmp_path).prepared.examples["train"].learnt())
