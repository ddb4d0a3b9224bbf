"""When last.ckpt is written, and when not."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from python_runs import Call, tiny_data, tiny_module, trainer
from torch.optim import SGD

from lit_llm.training.checkpoints import BestCheckpoint, LastCheckpoint


def fit(folder: Path, callback: LastCheckpoint, data: dict | None = None, **settings: Any) -> list[int]:
    """Run, and tell the steps at which a checkpoint was written."""
    saved: list[int] = []
    watch = Call("on_save_checkpoint", lambda trainer, module, checkpoint: saved.append(trainer.global_step))
    every = {"val_check_interval": 2, "check_val_every_n_epoch": None}
    own = {"enable_checkpointing": True, "callbacks": [callback, watch], "default_root_dir": folder / "run"}
    trainer(**every | own | settings).fit(tiny_module(), tiny_data(folder, **data or {}))
    return saved


def last(folder: Path) -> dict:
    return torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("every", "max_steps", "steps"),
    [
        (None, 4, [2, 4]),  # at each validation, the last one being the end
        (None, 5, [2, 4, 5]),  # the end is no validation
        (3, 8, [2, 3, 4, 6, 8]),  # at step 6 both, and once
        (1, 3, [1, 2, 3]),
    ],
)
def test_written_at_validations_at_steps_and_at_the_end(tmp_path, every, max_steps, steps) -> None:
    assert fit(tmp_path, LastCheckpoint(every), max_steps=max_steps) == steps
    assert last(tmp_path)["global_step"] == max_steps
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["last.ckpt"]


def test_written_without_any_validation(tmp_path) -> None:
    """Where no text is held out, it comes every n steps and at the end."""
    for every, steps in ((3, [3, 6, 7]), (None, [7])):
        with pytest.warns(UserWarning, match="Total length of `list` across ranks is zero"):
            saved = fit(tmp_path, LastCheckpoint(every), {"val_fraction": 0.0}, max_steps=7)
        assert saved == steps


def test_last_is_not_the_best(tmp_path) -> None:
    """A run that gets worse keeps both: the best one and where it has come to."""
    best = BestCheckpoint()
    every = {"val_check_interval": 2, "check_val_every_n_epoch": None, "enable_checkpointing": True}
    own = {"callbacks": [best, LastCheckpoint()], "default_root_dir": tmp_path / "run"}
    module = tiny_module(optimizer=partial(SGD, lr=4.0))  # 10, 5,000, 800,000: worse, but far from infinity
    trainer(**every | own, max_steps=6).fit(module, tiny_data(tmp_path))
    assert torch.load(best.best_model_path, weights_only=True)["global_step"] < 6
    assert last(tmp_path)["global_step"] == 6


@pytest.mark.parametrize("broken", [1, 2])
def test_nan_is_not_the_best(tmp_path, broken) -> None:
    """N4: neither as the first score, which any later one beats, nor as one after a number."""
    validations: list[int] = []

    def spoil(run: Any, module: Any) -> None:
        validations.append(run.global_step)
        module.backbone.norm.weight.data.mul_(float("nan") if len(validations) == broken else 1.0)

    def mend(run: Any, module: Any) -> None:
        module.backbone.norm.weight.data.nan_to_num_(1.0)

    best = BestCheckpoint()
    every = {"val_check_interval": 2, "check_val_every_n_epoch": None, "enable_checkpointing": True}
    own = {"callbacks": [Call("on_validation_start", spoil), best, Call("on_validation_end", mend)]}
    trainer(**every | own, max_steps=4, default_root_dir=tmp_path / "run").fit(tiny_module(), tiny_data(tmp_path))
    assert validations == [2, 4]
    assert torch.load(best.best_model_path, weights_only=True)["global_step"] == (4 if broken == 1 else 2)


def set_rates(run: Any, module: Any, rate: float) -> None:
    for group in run.optimizers[0].param_groups:
        group["lr"] = rate


def test_the_best_of_a_resumed_run_beats_that_of_the_first(tmp_path) -> None:
    """The score to beat comes along into the new folder; the file of the old one stays."""
    every = {"val_check_interval": 2, "check_val_every_n_epoch": None, "enable_checkpointing": True}
    own = {"callbacks": [BestCheckpoint(), LastCheckpoint()], "default_root_dir": tmp_path / "run"}
    trainer(**every | own, max_steps=2).fit(tiny_module(), tiny_data(tmp_path))
    for name, rate in (("worse", 1e3), ("better", 1e-2)):
        set_rate = partial(set_rates, rate=rate)
        own = {"callbacks": [best := BestCheckpoint()], "default_root_dir": tmp_path / name}
        path = tmp_path / "run" / "checkpoints" / "last.ckpt"
        own["callbacks"].append(Call("on_train_start", set_rate))
        trainer(**every | own, max_steps=6).fit(tiny_module(), tiny_data(tmp_path), ckpt_path=path, weights_only=True)
        assert (tmp_path / name / "checkpoints" / "best.ckpt").exists() == (name == "better")
        assert Path(best.best_model_path).exists()


def test_last_knows_the_best_of_the_same_validation(tmp_path) -> None:
    """Also where validations are those at the ends of epochs: a run that goes on has that score to beat."""
    own = {"callbacks": [BestCheckpoint(), LastCheckpoint()], "default_root_dir": tmp_path / "run"}
    epoch = {"max_epochs": 1, "max_steps": -1, "limit_train_batches": 3}
    trainer(**epoch, enable_checkpointing=True, **own).fit(tiny_module(), tiny_data(tmp_path))
    (state,) = (state for name, state in last(tmp_path)["callbacks"].items() if name.startswith("BestCheckpoint"))
    assert Path(state["best_model_path"]).name == "best.ckpt"


@pytest.mark.parametrize("interval", [2, 3, 5])
def test_never_within_an_accumulation(tmp_path, interval) -> None:
    """Gradients that wait for their step are in no checkpoint; one that falls due there comes with the step."""
    batches: list[tuple[int, int]] = []
    note = Call(
        "on_save_checkpoint",
        lambda trainer, module, checkpoint: batches.append((trainer.global_step, trainer.fit_loop.total_batch_idx + 1)),
    )
    callbacks = [LastCheckpoint(2), note]
    fit(tmp_path, LastCheckpoint(), callbacks=callbacks, accumulate_grad_batches=2, val_check_interval=interval)
    assert len(batches) >= 2
    assert all(seen == 2 * step for step, seen in batches)
    assert batches[-1] == (3, 6)


def test_nothing_is_written_without_training(tmp_path) -> None:
    """Not by fast_dev_run, not by the sanity check before the first step, not by validate."""
    assert fit(tmp_path, LastCheckpoint(1), fast_dev_run=3) == []
    stop = Call("on_train_start", lambda trainer, module: setattr(trainer, "should_stop", True))
    assert fit(tmp_path, LastCheckpoint(), callbacks=[LastCheckpoint(), stop], num_sanity_val_steps=1) == []
    own = {"enable_checkpointing": True, "callbacks": [LastCheckpoint(1)], "default_root_dir": tmp_path / "run"}
    trainer(**own).validate(tiny_module(), tiny_data(tmp_path), verbose=False)
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("every", [0, -1])
def test_steps_that_cannot_be_are_refused(every) -> None:
    with pytest.raises(ValueError, match=f"every_n_train_steps {every} cannot be"):
        LastCheckpoint(every)
