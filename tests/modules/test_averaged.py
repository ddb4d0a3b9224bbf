"""An exponential moving average of the weights: what holds it, and that a cut changes nothing."""

import random

import pytest
import torch
from averaging_runs import Raw, ema, equal, fit, last, state
from cli_runs import same
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from python_runs import tiny_backbone, tiny_data, tiny_module, trainer
from text_runs import TinyTexts, tiny_classification

from lit_llm.backbone.lora import LoRA
from lit_llm.modules import LanguageModeling


def averages(raw: Raw, decay: float, start: int = 0, every: int = 1) -> dict[int, dict]:
    """The average after each step, by hand."""
    found, average = {}, {}
    for step, weights in raw.steps.items():
        if step - 1 >= start and (step - 1) % every == 0:
            average = {n: decay * average[n] + (1 - decay) * w for n, w in weights.items()} if average else weights
        found[step] = average
    return found


WAYS = {
    "each step": {},
    "every third step from the fifth on": {"update_every_n_steps": 3, "update_starting_at_step": 5},
    "after each epoch from the second on": {"update_every_n_steps": 0, "update_starting_at_epoch": 1},
    "each step and each epoch": {"update_starting_at_epoch": 0},
}
UNITS = {
    "steps": {"max_steps": 21, "val_check_interval": 5, "check_val_every_n_epoch": None},
    "epochs": {"max_steps": -1, "max_epochs": 4},
}


@pytest.mark.parametrize("way", list(WAYS)[:2])
def test_the_average_is_that_of_a_loop_by_hand(way, tmp_path) -> None:
    """Validations have it from its first update on, and the raw weights before; the end has it; the steps never do."""
    settings = {"start": 5, "every": 3} if "third" in way else {}
    raw = fit(tmp_path / "run", ema(**WAYS[way]), **UNITS["steps"])
    plain = fit(tmp_path / "plain", **UNITS["steps"])
    assert all(same(raw.steps[step], plain.steps[step]) for step in range(1, 22))
    wanted = averages(raw, 0.8, **settings)
    assert list(raw.validated) == [5, 10, 15, 20]
    for step, seen in raw.validated.items():
        assert same(seen, wanted[step] or raw.steps[step])
    found = last(tmp_path / "run")
    assert same(found["state_dict"], wanted[21])
    assert same(found["current_model_state"], raw.steps[21])
    assert same(raw.ended, wanted[21])


@pytest.mark.parametrize(("way", "unit"), list(zip(WAYS, ["steps", "epochs", "epochs", "steps"], strict=True)))
def test_a_run_that_is_cut_anywhere_equals_one_that_is_not(way, unit, tmp_path) -> None:
    """Three cuts at random places, one of them before the average begins."""
    fit(tmp_path / "whole", ema(**WAYS[way]), **UNITS[unit])
    choose = random.Random(f"{way} {unit}")
    cuts = [choose.randrange(1, 5), *sorted(choose.sample(range(5, 21), 2))]
    for number, cut in enumerate([*cuts, None]):
        fit(tmp_path / "parts", ema(**WAYS[way]), resumed=number > 0, cut=cut, **UNITS[unit])
    assert equal(last(tmp_path / "whole"), last(tmp_path / "parts")), cuts


MODULES = {
    "frozen layers": lambda: tiny_module(trainable="head", backbone=tiny_backbone(n_layer=2)),
    "layers that train later": lambda: tiny_module(trainable={0: "head", 4: "all"}, backbone=tiny_backbone(n_layer=2)),
    "adapters": lambda: tiny_module(lora=LoRA(rank=2)),
}


@pytest.mark.parametrize("kind", MODULES)
def test_what_never_trains_is_its_own_average(kind, tmp_path) -> None:
    """To the last bit, where a mean of equal numbers can differ in it; and it takes no memory."""
    start, callback = state(MODULES[kind]()), ema()
    raw = fit(tmp_path / "run", callback, module=MODULES[kind](), max_steps=6)
    module = MODULES[kind]()
    found, wanted = last(tmp_path / "run")["state_dict"], averages(raw, 0.8)[6]
    for name, value in found.items():
        assert torch.equal(value, wanted[name] if name in module.stages.ever else start[name]), name
    kept = [each.numel() for each in callback._average_model.parameters()]
    assert sum(kept) == sum(p.numel() for name, p in module.named_parameters() if name in module.stages.ever)


def test_decisions_are_not_averaged(tmp_path) -> None:
    """The threshold of a checkpoint is the one that its validation chose for the averaged weights."""
    thresholds = []

    class Chosen(ModelCheckpoint):
        def on_validation_end(self, trainer, pl_module) -> None:
            thresholds.append(pl_module.threshold.clone())

    weights = [1.0, 3.0]
    module = tiny_classification(class_weights=weights)
    fit(tmp_path / "run", ema(0.99), Chosen(save_top_k=0), module=module, data=TinyTexts(), max_epochs=4, max_steps=-1)
    found = last(tmp_path / "run")
    assert len(set(map(float, thresholds))) > 1  # else nothing would be seen
    for name in ("state_dict", "current_model_state"):
        assert torch.equal(found[name]["threshold"], thresholds[-1])
        assert found[name]["class_weights"].tolist() == weights


def test_weights_of_the_config_replace_those_of_the_checkpoint(tmp_path) -> None:
    """A run that goes on with other class weights has these."""
    for number, weights in enumerate([[1.0, 3.0], [2.0, 1.0]]):
        module = tiny_classification(class_weights=weights)
        fit(tmp_path / "run", ema(), resumed=number > 0, module=module, data=TinyTexts(), max_steps=5 * number + 5)
        assert last(tmp_path / "run")["state_dict"]["class_weights"].tolist() == weights


def test_checkpoints_of_weights_alone_and_new_runs_have_the_average(tmp_path) -> None:
    alone = ModelCheckpoint(tmp_path / "alone", "{step}", save_weights_only=True, every_n_train_steps=6)
    raw = fit(tmp_path / "run", ema(), alone, max_steps=6)
    wanted = averages(raw, 0.8)[6]
    assert same(torch.load(alone.best_model_path, weights_only=True)["state_dict"], wanted)
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert same(state(LanguageModeling.load_from_checkpoint(path, backbone=tiny_backbone())), wanted)


def test_half_precision_keeps_an_average_of_single_precision(tmp_path) -> None:
    """A decay of 0.999 changes no number of 8 bits; and a validation does not round the average."""
    raw = fit(tmp_path / "run", ema(0.999), precision="bf16-true", max_steps=9, val_check_interval=2)
    single = {step: {name: value.float() for name, value in weights.items()} for step, weights in raw.steps.items()}
    raw.steps = single
    found = last(tmp_path / "run")
    assert same(found["state_dict"], averages(raw, 0.999)[9])
    assert {value.dtype for value in found["current_model_state"].values()} == {torch.bfloat16}


def test_a_test_after_the_fit_scores_what_it_loads(tmp_path) -> None:
    """Also of another file than the last one, and with the callback still there."""
    data, callback = tiny_data(tmp_path), ema()
    run = trainer(callbacks=[callback], max_steps=4, default_root_dir=tmp_path)
    module = tiny_module()
    run.fit(module, datamodule=data)
    run.save_checkpoint(tmp_path / "end.ckpt")
    ended = state(module)
    for parameter in module.parameters():
        parameter.data.add_(1.0)
    run.validate(module, datamodule=data, ckpt_path=tmp_path / "end.ckpt", weights_only=True, verbose=False)
    assert same(state(module), ended)


def test_callbacks_that_do_not_fit_are_refused(tmp_path) -> None:
    """Two averages of one module; a run that goes on without its average."""
    swa = StochasticWeightAveraging(0.1, swa_epoch_start=1)
    with pytest.raises(ValueError, match="one callback that averages the weights, got EMAWeight"):
        fit(tmp_path / "run", ema(), swa, max_steps=2)
    fit(tmp_path / "run", ema(), max_steps=2)
    with pytest.raises(ValueError, match="by EMAWeightAveraging, and --trainer"):
        fit(tmp_path / "run", resumed=True, max_steps=4)


def test_an_average_can_begin_in_a_resumed_run(tmp_path) -> None:
    fit(tmp_path / "run", max_steps=3)
    raw = fit(tmp_path / "run", ema(), resumed=True, max_steps=6)
    assert list(raw.steps) == [4, 5, 6]
    assert same(last(tmp_path / "run")["state_dict"], averages(raw, 0.8)[6])
