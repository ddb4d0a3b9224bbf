"""What tests of averaged weights share: runs of a tiny module that are cut after any step, and what they leave."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from cli_runs import same
from lightning import Callback, LightningDataModule, LightningModule
from lightning.pytorch.callbacks import EMAWeightAveraging
from python_runs import tiny_data, tiny_module, trainer

from lit_llm.training.checkpoints import LastCheckpoint

Made = Callable[[], Callback]


class Cut(Callback):
    """Raises before the step that follows the given one."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyError("cut")


class Raw(Callback):
    """Keeps the weights after each optimizer step, and those that a validation and the end of the run see."""

    def __init__(self) -> None:
        self.steps, self.validated = dict[int, dict](), dict[int, dict]()
        self.ended: dict = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.steps[trainer.global_step] = state(pl_module)

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.validated[trainer.global_step] = state(pl_module)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self.ended = state(pl_module)


def state(module: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def ema(decay: float = 0.8, **settings: Any) -> EMAWeightAveraging:
    return EMAWeightAveraging(decay=decay, **settings)


def fit(
    folder: Path,
    *callbacks: Callback,
    resumed: bool = False,
    cut: int | None = None,
    module: LightningModule | None = None,
    data: LightningDataModule | None = None,
    **settings: Any,
) -> Raw:
    """Train, from the last checkpoint of the folder if wanted; up to a cut if there is one."""
    L.seed_everything(3, verbose=False)
    raw = Raw()
    ways = [*callbacks, raw, LastCheckpoint(every_n_train_steps=1), *([Cut(cut)] if cut else [])]
    run = trainer(**{"default_root_dir": folder, "callbacks": ways, "enable_checkpointing": True, **settings})
    path = folder / "checkpoints" / "last.ckpt" if resumed else None
    args = (module or tiny_module(), data or tiny_data(folder.parent))
    if cut is None:
        run.fit(args[0], datamodule=args[1], ckpt_path=path, weights_only=True)
    else:
        with pytest.raises(KeyError, match="cut"):
            run.fit(args[0], datamodule=args[1], ckpt_path=path, weights_only=True)
    return raw


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two checkpoints hold the same weights, raw and averaged, and the same state of the optimizer."""
    states = [checkpoint["optimizer_states"][0] for checkpoint in (first, second)]
    names = [name for name in ("state_dict", "current_model_state", "averaging_state") if name in first]
    return (
        all(same(first[name], second[name]) for name in names)
        and names == [name for name in ("state_dict", "current_model_state", "averaging_state") if name in second]
        and all(same(states[0]["state"][key], states[1]["state"][key]) for key in states[0]["state"])
        and states[0]["param_groups"] == states[1]["param_groups"]
        and first["lr_schedulers"] == second["lr_schedulers"]
    )
