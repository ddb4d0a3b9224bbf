"""What trains: by words, patterns and schedules; what does not is left bit for bit, and costs nothing."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runs import same
from parity import BLOCKS, parity
from python_runs import LAYERS, B, C, Call, H, T, V, tiny_backbone, tiny_data, tiny_module, trainer
from torch import nn
from torch.optim import SGD, Adam, AdamW, Muon, RMSprop

from lit_llm.backbone.layers import Head
from lit_llm.backbone.lora import LoRA
from lit_llm.backbone.settings import plain
from lit_llm.modules import LanguageModeling
from lit_llm.modules.base import BaseModule
from lit_llm.training.checkpoints import LastCheckpoint
from lit_llm.training.optim import MuonAdamW, WarmupCosine
from lit_llm.training.trainable import memory


def fit(
    module: BaseModule,
    folder: Path,
    max_steps: int = 3,
    callbacks: Any = (),
    every_n_train_steps: int | None = 1,
    **settings: Any,
) -> Any:
    """An epoch has three steps."""
    made = {"default_root_dir": folder / f"{max_steps}", "enable_checkpointing": True, "limit_val_batches": 0}
    run = trainer(max_steps=max_steps, callbacks=[LastCheckpoint(every_n_train_steps), *callbacks], **made)
    run.fit(module, tiny_data(folder, batch_size=2 * B), **settings)
    return run


def go_on(module: BaseModule, folder: Path, stop: int, max_steps: int) -> Any:
    """From the checkpoint of a run of so many steps."""
    return fit(module, folder, max_steps, ckpt_path=folder / f"{stop}/checkpoints/last.ckpt", weights_only=True)


def crash(step: int, run: Any, *_: Any) -> None:
    if run.global_step == step:
        raise RuntimeError("a crash")


def trained(module: BaseModule) -> set[str]:
    module.choose_what_trains()
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def below(module: nn.Module, *prefixes: str) -> set[str]:
    return {name for name, _ in module.named_parameters() if name.startswith(prefixes)}


HEAD = ("output.",)
LAST = ("backbone.blocks.2.", "backbone.norm.", *HEAD)


@pytest.mark.parametrize(
    ("rule", "prefixes"),
    [
        (None, ("",)),
        ("all", ("",)),
        ("head", HEAD),
        ("last_1_blocks", LAST),
        ("last_2_blocks", ("backbone.blocks.1.", *LAST)),
        ("blocks.1.mlp", ("backbone.blocks.1.mlp.",)),
        ("backbone.norm", ("backbone.norm.",)),
        (["head", "blocks.0.attention.*"], ("backbone.blocks.0.attention.", *HEAD)),
    ],
)
def test_words_and_patterns(rule, prefixes) -> None:
    module = parity(rule)
    assert trained(module) == below(module, *prefixes)
    in_optimizer = [p for group in module.configure_optimizers()["optimizer"].param_groups for p in group["params"]]
    assert {id(p) for p in in_optimizer} == {id(p) for p in module.parameters() if p.requires_grad}


def test_a_pattern_of_leaves() -> None:
    """BitFit is a pattern."""
    module = parity("*.bias")
    assert trained(module) == {name for name, _ in module.named_parameters() if name.endswith(".bias")}


def test_the_head_of_a_language_model_is_its_output_layer() -> None:
    """A tied one is the token table; a task that has its own never trains the backbone's."""
    assert trained(tiny_module(trainable="head")) == {"backbone.embedding.tokens.weight"}
    untied = {"head": partial(Head, tied=False)}
    own = tiny_module(trainable="head", backbone=tiny_backbone(**untied))
    assert trained(own) == {"backbone.head.linear.weight"}
    module = parity("all", backbone=untied)
    assert trained(module) == below(module, "") - {"backbone.head.linear.weight"}


def test_adapters_train_in_any_case() -> None:
    """Alone with what lies outside the backbone, unless more is said."""
    module = parity(lora=LoRA(rank=3))
    adapters = {name for name in below(module, "") if ".lora_" in name}
    assert len(adapters) == 4 * BLOCKS
    assert trained(module) == adapters | below(module, "output.")
    assert trained(parity("blocks.1.mlp", lora=LoRA(rank=3))) == adapters | below(module, "backbone.blocks.1.mlp.")
    assert trained(parity("all", lora=LoRA(rank=3))) == below(module, "")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("blocks.7", "trainable 'blocks.7' matches no parameter that can train; it is all, head"),
        (["head", "attn"], "trainable 'attn' matches no parameter"),
        ("backbone.head", "trainable 'backbone.head' matches no parameter that can train"),
        ("last_4_blocks", "trainable 'last_4_blocks' cannot be: there are 3 blocks in the backbone"),
        ("last_0_blocks", "trainable 'last_0_blocks' cannot be"),
        ([], r"trainable \[\] lets nothing train"),
        ({}, "the schedule of trainable is empty"),
        ({5: "all"}, "the schedule of trainable begins at 5; say what trains from 0 on"),
    ],
)
def test_refusals(rule, message) -> None:
    with pytest.raises(ValueError, match=message):
        parity(rule, backbone={"head": partial(Head, tied=False)}).choose_what_trains()
    with pytest.raises(ValueError, match=r"layer_decay 1.5 cannot be"):
        parity(layer_decay=1.5)


@pytest.mark.parametrize("optimizer", [partial(AdamW, lr=0.1, weight_decay=0.5), partial(MuonAdamW, lr=0.1)])
def test_what_is_frozen_stays_bit_for_bit(tmp_path, optimizer) -> None:
    """No weight decay reaches it, no state is kept for it, and it drops nothing out."""
    module = parity("last_1_blocks", optimizer=optimizer)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes: list[tuple[bool, ...]] = []

    def note(run: Any, module: Any, *_: Any) -> None:
        blocks = module.backbone.blocks
        modes.append((module.backbone.embedding.dropout.training, *(block.dropout.training for block in blocks)))

    run = fit(module, tmp_path, callbacks=[Call("on_before_backward", note)])
    assert modes == [(False, False, False, True)] * 3
    moved = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == below(module, *LAST)
    kept = getattr(run.optimizers[0], "parts", {"": run.optimizers[0]}).values()
    states = {id(parameter) for inner in kept for parameter in inner.state}
    assert states == {id(parameter) for name, parameter in module.named_parameters() if name in moved}


def test_below_the_first_trained_block_there_is_no_graph() -> None:
    module = parity("last_1_blocks")
    module.choose_what_trains()
    grads: list[bool] = []
    for block in module.backbone.blocks:
        block.register_forward_hook(lambda *args: grads.append(args[2].requires_grad))
    module.backbone.hidden_states(torch.zeros(B, T, dtype=torch.long))
    assert grads == [False, False, True]


def test_a_mode_set_by_others_leaves_frozen_parts_alone() -> None:
    module = parity("head").eval().train()
    module.choose_what_trains()
    module.train()
    assert not any(part.training for part in module.backbone.modules())
    assert module.output.training
    module.trainable = "all"
    del module.stages
    module.choose_what_trains()
    assert all(part.training for part in module.modules())


@pytest.mark.parametrize(
    ("by", "last", "marks"),
    [("step", {0: "head", 2: "last_1_blocks", 4: "all"}, (2, 4)), ("epoch", {0: "head", 1: "all"}, (3,))],
)
def test_a_schedule_that_goes_on_is_one_that_never_stopped(tmp_path, by, last, marks) -> None:
    """Bit for bit, with dropout: stopped before a change, right at one, and after it."""
    settings = {"unfreeze_by": by, "optimizer": partial(AdamW, lr=0.01)}
    settings["lr_scheduler"] = partial(WarmupCosine, warmup_steps=2, max_steps=9)
    counts: list[int] = []
    count = Call(
        "on_before_optimizer_step",
        lambda run, module, _: counts.append(sum(parameter.grad is not None for parameter in module.parameters())),
    )
    whole = parity(last, **settings)
    fit(whole, tmp_path, 6, [count])
    assert [number for number in range(1, 6) if counts[number] != counts[number - 1]] == list(marks)
    for stop in {marks[0] - 1, marks[0], marks[-1] + 1}:
        first, resumed = parity(last, **settings), parity(last, **settings)
        with pytest.raises(RuntimeError, match="a crash"):
            fit(first, tmp_path, 6, [Call("on_train_batch_start", partial(crash, stop))])
        go_on(resumed, tmp_path, 6, 6)
        assert same(resumed.state_dict(), whole.state_dict())


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_run_that_is_made_longer_is_one_that_never_stopped(tmp_path, stop) -> None:
    """Bit for bit, with dropout and a stage for each epoch: ended by its steps within an epoch, or with one."""
    settings = {"unfreeze_by": "epoch", "optimizer": partial(AdamW, lr=0.01)}
    whole, first, resumed = (parity({0: "head", 1: "last_1_blocks", 2: "all"}, **settings) for _ in range(3))
    places: list[tuple[int, int]] = []
    note = Call("on_train_batch_start", lambda run, module, batch, number: places.append((run.current_epoch, number)))
    end = {"every_n_train_steps": None, "callbacks": [note]}
    fit(whole, tmp_path, 7, **end)
    fit(first, tmp_path, stop, **end)
    fit(resumed, tmp_path, 7, ckpt_path=tmp_path / f"{stop}/checkpoints/last.ckpt", weights_only=True, **end)
    assert places[:7] == places[7:] == [(step // 3, step % 3) for step in range(7)]
    assert same(resumed.state_dict(), whole.state_dict())


def test_a_resumed_run_trains_the_same_in_the_end(tmp_path) -> None:
    """The times of a schedule may change; the set of what has state in the optimizer may not."""
    fit(parity({0: "head", 2: "all"}), tmp_path, 3)
    go_on(parity({0: "head", 4: "all"}), tmp_path, 3, 5)
    with pytest.raises(ValueError, match="the config says trainable head; leave it as it was"):
        go_on(parity("head"), tmp_path, 3, 5)


@pytest.mark.parametrize("optimizer", [AdamW, MuonAdamW])
def test_layers_have_rates_of_their_own(tmp_path, optimizer) -> None:
    """0.5 a layer from the top down; schedules scale them, and the norm and the head keep the whole rate."""
    schedule = partial(WarmupCosine, warmup_steps=1, max_steps=9)
    module = parity(layer_decay=0.5, optimizer=partial(optimizer, lr=0.1), lr_scheduler=schedule)
    fit(module, tmp_path, 1)
    groups = {group["name"]: group for group in module.optimizers().param_groups}
    rates = {name: group["lr"] for name, group in groups.items()}
    wanted = {f"{kind}.{i}": 0.1 * 0.5 ** (BLOCKS - i) for kind in ("matrices", "vectors") for i in range(BLOCKS)}
    wanted |= {"tables.embedding": 0.1 * 0.5 ** (BLOCKS + 1), "tables": 0.1, "vectors": 0.1}
    assert rates == pytest.approx(wanted)
    assert sum(len(group["params"]) for group in groups.values()) == len(list(module.parameters()))
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    assert {names[id(p)] for p in groups["matrices.1"]["params"]} == {
        f"backbone.blocks.1.{name}.weight" for name in ("attention.qkv", "attention.proj", "mlp.fc", "mlp.proj")
    }


@pytest.mark.parametrize(
    "optimizer",
    [AdamW, Adam, partial(Adam, amsgrad=True), SGD, partial(SGD, momentum=0.9), RMSprop, MuonAdamW],
)
def test_the_memory_that_is_told_is_the_memory_that_is_kept(tmp_path, optimizer) -> None:
    """Gradients and state after a step, but for the counts of steps."""
    module = parity("last_1_blocks", optimizer=partial(optimizer, lr=0.01))
    run = fit(module, tmp_path, 1)
    (outer,) = run.optimizers
    told = memory(outer, [parameter for parameter in module.parameters() if parameter.requires_grad])
    inner = getattr(outer, "parts", {"": outer}).values()
    kept = [value for part in inner for state in part.state.values() for name, value in state.items() if name != "step"]
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    assert told == (sum(g.nbytes for g in gradients), sum(value.nbytes for value in kept))


def test_an_unknown_optimizer_is_said_to_be_unknown() -> None:
    class Own(AdamW):
        pass

    module = parity("head", optimizer=Own)
    optimizer = module.configure_optimizers()["optimizer"]
    assert memory(optimizer, list(module.output.parameters())) == (4 * 2 * (C + 1), None)
    assert Muon not in type(optimizer).__mro__


def test_every_run_tells_what_trains(tmp_path, caplog) -> None:
    """Parameters by part, their share and the memory; again when a schedule goes on."""
    with caplog.at_level("INFO"):
        fit(parity({0: "last_1_blocks", 2: "all"}), tmp_path)
    tables = [record.message for record in caplog.records if record.message.startswith("what trains")]
    assert len(tables) == 2
    rows = {line[:14].strip(): line[14:].split() for line in tables[0].splitlines()}
    block = 12 * C * C + 13 * C
    assert rows["blocks 0-1"] == [f"{2 * block:,}", "0", "0.0%"]
    assert rows["blocks 2"] == [f"{block:,}", f"{block:,}", "100.0%"]
    own, every = block + 4 * C + 2, 3 * block + (V + T) * C + 4 * C + 2
    assert rows["all"] == [f"{every:,}", f"{own:,}", f"{own / every:.1%}"]
    assert tables[0].splitlines()[-1] == f"gradients {4 * own / 1e6:.1f} MB, optimizer {8 * own / 1e6:.1f} MB"
    assert tables[1].splitlines()[1].endswith("100.0%")


def test_settings_go_into_the_checkpoint() -> None:
    """Lists and dicts of plain values are plain, and adapters are told by theirs."""
    schedule = {0: ["head", "*.bias"], 2: "all"}
    module = LanguageModeling(tiny_backbone(n_layer=LAYERS, n_head=H), trainable=schedule, lora=LoRA())
    assert module.hparams["trainable"] == schedule
    assert module.hparams["lora"] == plain(LoRA())
    assert module.hparams["lora"]["rank"] == LoRA().rank
