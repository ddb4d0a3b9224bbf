"""A module made in Python comes back from its checkpoint without arguments, wherever its parts have names."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from python_runs import trainer
from torch import nn

from lit_llm import GPT
from lit_llm.backbone.layers import CausalSelfAttention, Embedding, GatedMLP, Head
from lit_llm.backbone.rotary import Rotary
from lit_llm.modules import Classification, InstructionTuning, LanguageModeling, PreferenceTuning
from lit_llm.modules.base import BaseModule
from lit_llm.weights.checkpoint import checkpoint_source, read_checkpoint

SIZES: dict[str, Any] = {"vocab_size": 20, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8}
IDS = torch.arange(8)[None]


class OwnNorm(nn.LayerNorm):
    """A part of one's own."""


class OwnGPT(GPT):
    """A backbone of one's own, with a constructor of its own."""

    def __init__(self, depth: int, **kwargs: Any) -> None:
        super().__init__(n_layer=depth, **kwargs)


def saved(module: L.LightningModule, path: Path) -> Path:
    run = trainer()
    run.strategy.connect(module)
    module.trainer = run
    run.save_checkpoint(path)
    return path


def rotated(**kwargs: Any) -> GPT:
    return GPT(
        **SIZES,
        norm=partial(nn.RMSNorm, eps=1e-3),
        attention=partial(CausalSelfAttention, n_kv_head=1, rotary=partial(Rotary, theta=50.0), qk_norm=nn.RMSNorm),
        mlp=partial(GatedMLP, hidden=12, activation=nn.GELU),
        embedding=partial(Embedding, positions=False),
        head=partial(Head, tied=False),
        **kwargs,
    )


BACKBONES = {
    "defaults": lambda: GPT(**SIZES),
    "partials": rotated,
    "layers": lambda: rotated(local_attention=partial(CausalSelfAttention, window=2), pattern="L"),
    "own part": lambda: GPT(**SIZES, norm=OwnNorm),
    "own backbone": lambda: OwnGPT(2, vocab_size=20, block_size=8, n_head=2, n_embd=8, mlp=GatedMLP),
    "positional": lambda: GPT(20, 8, 1, 2, 8),
}
MODULES: dict[str, Any] = {
    "LanguageModeling": LanguageModeling,
    "Classification": partial(Classification, class_names=["a", "b"], dropout=0.5),
    "InstructionTuning": InstructionTuning,
    "PreferenceTuning": PreferenceTuning,
}


def is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(is_plain, [*value, *value.values()]))
    return all(map(is_plain, value)) if isinstance(value, list) else type(value) in (bool, int, float, str, type(None))


def same(one: BaseModule, other: BaseModule) -> bool:
    with torch.no_grad():
        logits = [module.eval().backbone(IDS) for module in (one, other)]
    states = [module.state_dict() for module in (one, other)]
    return torch.equal(*logits) and all(torch.equal(states[0][k], states[1][k]) for k in states[0] | states[1])


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("parts", BACKBONES)
def test_a_module_comes_back_without_arguments(tmp_path, kind, parts) -> None:
    module = MODULES[kind](BACKBONES[parts]())
    path = saved(module, tmp_path / "python.ckpt")
    again = type(module).load_from_checkpoint(path, weights_only=True)
    assert type(again.backbone) is type(module.backbone)
    assert same(again, module)
    assert is_plain(torch.load(path, weights_only=True)["hyper_parameters"])
    source = checkpoint_source(path, read_checkpoint(path))  # what generate, export and --model.init_from read
    assert source.settings == module.hparams["backbone"]


def test_optimizer_and_schedule_come_back(tmp_path) -> None:
    optimizer = partial(torch.optim.SGD, lr=0.25, momentum=0.5)
    schedule = partial(torch.optim.lr_scheduler.StepLR, step_size=3)
    path = saved(LanguageModeling(GPT(**SIZES), optimizer=optimizer, lr_scheduler=schedule), tmp_path / "python.ckpt")
    again = LanguageModeling.load_from_checkpoint(path)
    made = again.optimizer(again.parameters())
    assert (type(made), made.defaults["lr"], made.defaults["momentum"]) == (torch.optim.SGD, 0.25, 0.5)
    assert again.lr_scheduler(made).step_size == 3


def test_what_has_no_name_is_asked_for(tmp_path) -> None:
    class Local(nn.LayerNorm):
        pass

    for norm in (Local, lambda width: nn.LayerNorm(width), partial(Local, eps=1.0)):
        module = LanguageModeling(GPT(**SIZES, norm=norm), optimizer=partial(torch.optim.SGD, lr=0.25))
        path = saved(module, tmp_path / "python.ckpt")
        with pytest.raises(ValueError, match=r"does not say how its backbone is built .*\(path, backbone=\.\.\.\)"):
            LanguageModeling.load_from_checkpoint(path)
        assert same(LanguageModeling.load_from_checkpoint(path, backbone=GPT(**SIZES, norm=norm)), module)
    path = saved(LanguageModeling(GPT(**SIZES), optimizer=lambda groups: torch.optim.SGD(groups, lr=1.0)), path)
    with pytest.raises(ValueError, match=r"does not say how its optimizer is built"):
        LanguageModeling.load_from_checkpoint(path)
    for given in (partial(torch.optim.SGD, lr=0.5), lambda groups: torch.optim.SGD(groups, lr=0.5)):
        again = LanguageModeling.load_from_checkpoint(path, optimizer=given)
        assert again.optimizer(again.parameters()).defaults["lr"] == 0.5


def test_arguments_count_more_than_the_checkpoint(tmp_path) -> None:
    path = saved(LanguageModeling(GPT(**SIZES), layer_decay=0.5), tmp_path / "python.ckpt")
    assert LanguageModeling.load_from_checkpoint(path).layer_decay == 0.5
    assert LanguageModeling.load_from_checkpoint(path, layer_decay=0.75).layer_decay == 0.75


def test_a_fresh_process_computes_the_same(tmp_path) -> None:
    module = LanguageModeling(rotated()).eval()
    path = saved(module, tmp_path / "python.ckpt")
    code = (
        "import sys, torch; from lit_llm.modules import LanguageModeling; "
        "module = LanguageModeling.load_from_checkpoint(sys.argv[1]).eval(); "
        "torch.save(module.backbone(torch.arange(8)[None]).detach(), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, str(path), str(tmp_path / "logits")], check=True)
    assert torch.equal(torch.load(tmp_path / "logits"), module.backbone(IDS))
