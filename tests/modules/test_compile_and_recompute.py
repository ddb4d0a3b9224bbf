"""Blocks that are compiled or computed again: another way to the same numbers, under the same names."""

import os
import shutil
from functools import partial
from typing import Any

import pytest
import torch
from cli_runs import same
from python_runs import Call, T, V, tiny_backbone, tiny_data, tiny_module, trainer
from torch import Tensor, nn

from lit_llm.backbone.layers import CausalSelfAttention, Embedding, GatedMLP
from lit_llm.backbone.rotary import Rotary
from lit_llm.modules import LanguageModeling
from lit_llm.training.losses import LinearCrossEntropy

ROTARY = {
    "embedding": partial(Embedding, positions=False),
    "attention": partial(CausalSelfAttention, rotary=Rotary, window=3),
}
GATED = {"mlp": GatedMLP}
DROPOUT = {"embedding": partial(Embedding, dropout=0.3), "attention": partial(CausalSelfAttention, dropout=0.3)}

pytestmark = [  # what torch's compiler does inside
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]
compiler = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler")


def losses_and_weights(folder: Any, parts: dict[str, Any], **settings: Any) -> tuple[list[float], dict[str, Tensor]]:
    """Of three steps."""
    seen: list[float] = []
    watch = Call("on_train_batch_end", lambda trainer, module, outputs, *_: seen.append(float(outputs["loss"])))
    module = tiny_module(backbone=tiny_backbone(6.0, n_layer=3, **parts), **settings)
    trainer(callbacks=[watch]).fit(module, tiny_data(folder))
    return seen, module.state_dict()


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, LinearCrossEntropy])
@pytest.mark.parametrize("parts", [ROTARY, DROPOUT, GATED], ids=["rotary", "dropout", "gated"])
@pytest.mark.parametrize("what", [True, "mlp"])
def test_recomputed_parts_learn_the_same_bit_for_bit(tmp_path, parts: dict[str, Any], loss: Any, what: Any) -> None:
    """With dropout too: the second computation draws as the first one did."""
    kept = losses_and_weights(tmp_path, parts, loss=loss)
    recomputed = losses_and_weights(tmp_path, parts, loss=loss, activation_checkpointing=what)
    assert len(kept[0]) == 3
    assert kept[0] == recomputed[0]
    assert same(kept[1], recomputed[1])


def saved_elements(activation_checkpointing: Any, **parts: Any) -> int:
    """What a forward pass of three blocks keeps for the backward pass, parameters left out."""
    module = tiny_module(backbone=tiny_backbone(n_layer=3, **parts), activation_checkpointing=activation_checkpointing)
    module.configure_model()
    own, sizes = {parameter.data_ptr() for parameter in module.parameters()}, {}
    keep = lambda saved: saved if saved.data_ptr() in own else sizes.setdefault(saved.data_ptr(), saved)  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        module.backbone.hidden_states(torch.zeros(2, T, dtype=torch.int64))
    return sum(tensor.numel() for tensor in sizes.values())


def test_recomputed_blocks_keep_little() -> None:
    """Three inputs of blocks and what surrounds them, instead of some twenty tensors of that size in each block."""
    assert saved_elements(True) < 0.2 * saved_elements(False)


@pytest.mark.parametrize("parts", [{}, {"mlp": partial(GatedMLP, hidden=48)}], ids=["plain", "gated"])
def test_recomputed_activations_are_not_kept(parts: dict[str, Any]) -> None:
    """Four times the width of the stream in each of three blocks: after GELU, or the gate's SiLU and its product."""
    assert saved_elements(False, **parts) - saved_elements("mlp", **parts) == 3 * 2 * T * 4 * 24


def test_flags_come_back_with_a_checkpoint_and_old_ones_have_none(tmp_path) -> None:
    """Names are those of a plain module; a checkpoint from before the flags loads."""
    module, run = tiny_module(activation_checkpointing=True), trainer(max_steps=1, limit_val_batches=0)
    run.fit(module, tiny_data(tmp_path))
    run.save_checkpoint(tmp_path / "new.ckpt")
    checkpoint = torch.load(tmp_path / "new.ckpt", weights_only=True)
    assert checkpoint["state_dict"].keys() == tiny_module().state_dict().keys()
    load = partial(LanguageModeling.load_from_checkpoint, backbone=tiny_backbone(), weights_only=True)
    assert load(tmp_path / "new.ckpt").backbone.recomputes
    for flag in ("compile", "activation_checkpointing"):
        del checkpoint["hyper_parameters"][flag]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    old = load(tmp_path / "old.ckpt")
    assert not old.backbone.recomputes
    assert same(old.state_dict(), checkpoint["state_dict"])


def test_without_a_compiler_a_run_says_so(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"compile needs the C\+\+ compiler 'no-such-compiler' on a CPU; install it"):
        trainer().fit(tiny_module(compile=True), tiny_data(tmp_path))


@pytest.mark.slow
@compiler
@pytest.mark.parametrize("recomputes", [False, True, "mlp"], ids=["kept", "recomputed", "mlp"])
@pytest.mark.parametrize(
    ("parts", "loss"),
    [({}, nn.CrossEntropyLoss), (ROTARY, nn.CrossEntropyLoss), ({}, partial(LinearCrossEntropy, chunk_size=9))],
    ids=["plain", "rotary", "chunks"],
)
def test_compiled_parts_learn_the_same_to_rounding(tmp_path, parts: dict[str, Any], loss: Any, recomputes: Any) -> None:
    """T17, K20: also validation, and with the same names in the checkpoint."""
    eager = losses_and_weights(tmp_path, parts, loss=loss)
    compiled = losses_and_weights(tmp_path, parts, loss=loss, compile=True, activation_checkpointing=recomputes)
    assert compiled[0] == pytest.approx(eager[0], rel=1e-5)
    assert compiled[1].keys() == eager[1].keys()


@pytest.mark.slow
@compiler
def test_equal_blocks_share_one_graph() -> None:
    """The tables of a forward pass are made before the blocks, so that the first one is as the others."""
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("inductor")
    backbone = tiny_backbone(n_layer=3, **ROTARY)
    for block in backbone.blocks:
        block.compile(backend=counter)
    backbone(torch.zeros(2, T, dtype=torch.int64)).sum().backward()
    assert counter.frame_count == 1
    assert backbone(torch.zeros(1, T, dtype=torch.int64)).shape == (1, T, V)


def test_a_module_that_is_compiled_as_a_whole(tmp_path) -> None:
    """T17: what it logs stays outside of the graph, so that it works, though `compile: true` is the better way."""
    plain, compiled = tiny_module(), tiny_module()
    for given in (plain, torch.compile(compiled, backend="eager")):
        fitted = trainer(val_check_interval=2, check_val_every_n_epoch=None)
        fitted.fit(given, tiny_data(tmp_path))
        assert {"train/loss", "val/loss"} <= fitted.callback_metrics.keys()
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value)
