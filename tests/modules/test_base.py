"""What every module shares: its optimizer, what it refuses, and what it puts into a checkpoint."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from cli_runs import same
from python_runs import C, H, T, V, tiny_backbone, tiny_data, tiny_module, trainer
from torch import nn
from torch.optim import SGD, AdamW

from lit_llm.modules import LanguageModeling
from lit_llm.training.optim import MuonAdamW, WarmupCosine, WarmupStableDecay


def test_groups_have_names_and_decay_stops_at_vectors() -> None:
    """Matrices and tables are decayed, norms and biases are not; every parameter is in one group."""
    module = tiny_module(optimizer=partial(AdamW, weight_decay=0.3))
    groups = {group["name"]: group for group in module.configure_optimizers()["optimizer"].param_groups}
    decay = {name: (group["weight_decay"], {p.ndim for p in group["params"]}) for name, group in groups.items()}
    assert decay == {"matrices": (0.3, {2}), "tables": (0.3, {2}), "vectors": (0.0, {1})}
    assert sum(len(group["params"]) for group in groups.values()) == len(list(module.parameters()))


@pytest.mark.parametrize("optimizer", [SGD, AdamW, MuonAdamW])
def test_learning_rates_that_cannot_be_are_refused(optimizer: Any) -> None:
    """C9: NaN gets past torch; every rate is quoted."""
    for rate in (math.nan, math.inf, 0.0, -0.5):
        with pytest.raises(ValueError, match=str(rate)):
            tiny_module(optimizer=partial(optimizer, lr=rate)).configure_optimizers()
    assert tiny_module(optimizer=partial(optimizer, lr=0.5)).configure_optimizers()


def test_schedule_counts_optimizer_steps(tmp_path) -> None:
    """Not batches: two of them make one step here."""
    schedule = partial(WarmupStableDecay, warmup_steps=0, max_steps=5, decay_steps=5)
    module = tiny_module(optimizer=partial(SGD, lr=0.5), lr_scheduler=schedule)
    run = trainer(accumulate_grad_batches=2, limit_val_batches=0)
    run.fit(module, tiny_data(tmp_path))
    assert run.fit_loop.total_batch_idx + 1 == 6
    assert {group["lr"] for group in module.optimizers().param_groups} == {0.5 * (5 - 3) / 5}


@pytest.mark.parametrize("optimizer", [AdamW, MuonAdamW])
def test_a_new_schedule_holds_from_the_first_step(tmp_path, optimizer: Any) -> None:
    """A checkpoint brings the rate at which its own schedule stood; the first step of a longer run takes the new one.

    Without a change of schedule the weights are those of a run without a stop.
    """
    data, steps = tiny_data(tmp_path), {"limit_val_batches": 0, "max_steps": 5}

    def module(planned: int) -> LanguageModeling:
        return tiny_module(
            optimizer=partial(optimizer, lr=0.01),
            lr_scheduler=partial(WarmupCosine, warmup_steps=1, max_steps=planned, floor=0.0),
        )

    first = trainer(**steps | {"max_steps": 3})
    first.fit(module(3), data)
    first.save_checkpoint(tmp_path / "3.ckpt")
    before = first.lightning_module.state_dict()
    assert {group["lr"] for group in first.optimizers[0].param_groups} == {0.0}
    longer = module(9)
    trainer(**steps | {"max_steps": 4}).fit(longer, data, ckpt_path=tmp_path / "3.ckpt", weights_only=True)
    assert not same(before, longer.state_dict())  # at a rate of 0 nothing would have moved
    assert {group["lr"] for group in longer.optimizers().param_groups} == {0.01 * 0.5 * (1 + math.cos(math.pi * 3 / 8))}

    whole, part, rest = module(9), module(9), module(9)
    trainer(**steps).fit(whole, tiny_data(tmp_path))
    first = trainer(**steps | {"max_steps": 3})
    first.fit(part, tiny_data(tmp_path))
    first.save_checkpoint(tmp_path / "3.ckpt")
    trainer(**steps).fit(rest, tiny_data(tmp_path), ckpt_path=tmp_path / "3.ckpt", weights_only=True)
    assert same(whole.state_dict(), rest.state_dict())


def test_parameters_outside_the_backbone_train_too() -> None:
    """Those of an injected loss, say."""
    module = tiny_module(loss=lambda: nn.Linear(V, 1))
    optimizer = module.configure_optimizers()["optimizer"]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(module.parameters()))


@pytest.mark.parametrize("planned", [None, 7])
def test_a_schedule_without_an_end_ends_with_the_run(tmp_path, planned: int | None) -> None:
    schedule = partial(WarmupCosine, warmup_steps=2, max_steps=planned, floor=0.0)
    module = tiny_module(lr_scheduler=schedule)
    trainer(max_steps=4, limit_val_batches=0).fit(module, tiny_data(tmp_path))
    assert (module.optimizers().param_groups[0]["lr"] == 0) == (planned is None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": V - 1}, "the tokenizer has 257 ids and the backbone embeds 256"),
        ({"block_size": T - 1}, "--data.block_size 7 is beyond the backbone's block_size 6; lower it"),
    ],
)
def test_data_that_the_backbone_cannot_read_is_refused(tmp_path, settings, message) -> None:
    """Before a step is taken; CUDA would say no more than that an assert failed."""
    for run in (trainer().fit, trainer().validate):
        with pytest.raises(ValueError, match=message):
            run(tiny_module(backbone=tiny_backbone(**settings)), tiny_data(tmp_path))


def test_a_larger_backbone_reads_the_data(tmp_path) -> None:
    module = tiny_module(backbone=tiny_backbone(vocab_size=V + 3, block_size=T + 2))
    trainer(max_steps=1).fit(module, tiny_data(tmp_path))


class Sized(LanguageModeling):
    """A module with a setting of its own."""

    def __init__(self, backbone: nn.Module, width: int = 3, part: Any = None) -> None:
        super().__init__(backbone)
        self.width = width


def test_a_module_made_in_python_has_a_safe_checkpoint(tmp_path) -> None:
    """Trap 4: its hyper-parameters hold no object, so that it loads without running code; numbers are kept."""
    module, run = Sized(tiny_backbone(), width=5, part=nn.Linear(2, 3)), trainer(max_steps=2, limit_val_batches=0)
    plain = {"lr_scheduler": None, "compile": False, "activation_checkpointing": False, "init_from": None}
    plain |= {"random_start": False}
    plain |= {"trainable": None, "unfreeze_by": "step", "layer_decay": 1.0, "lora": None, "width": 5}
    plain |= {"optimizer": {"class_path": "torch.optim.adamw.AdamW"}, "backbone": module.backbone.recorded}
    plain |= {"loss": {"class_path": "torch.nn.modules.loss.CrossEntropyLoss"}}
    plain |= {"_instantiator": "lightning.pytorch.cli.instantiate_module", "_class_path": f"{__name__}.Sized"}
    assert dict(module.hparams) == plain
    run.fit(module, tiny_data(tmp_path))
    path = tmp_path / "python.ckpt"
    run.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["hyper_parameters"] == plain
    assert checkpoint["tokenizer"] == {"class_path": "lit_llm.data.tokenizer.Bytes"}

    again = Sized.load_from_checkpoint(path, backbone=tiny_backbone(scale=0.0), part=None)
    assert again.width == 5
    assert same(again.state_dict(), module.state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        Sized.load_from_checkpoint(path, backbone=tiny_backbone(n_embd=C + H), part=None)


def test_without_a_data_module_there_is_no_tokenizer_to_keep(tmp_path) -> None:
    """Loaders alone train as well, and the checkpoint does not claim what nobody knows."""
    data = tiny_data(tmp_path)
    data.prepare_data()
    data.setup("fit")
    run = trainer(max_steps=1)
    run.fit(tiny_module(), data.train_dataloader(), data.val_dataloader())
    run.save_checkpoint(tmp_path / "x.ckpt")
    assert "tokenizer" not in torch.load(tmp_path / "x.ckpt", weights_only=True)
