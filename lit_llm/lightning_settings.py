"""Lightning's own callbacks, loggers and flags: what a run cannot use is refused before any text is read.

docs/lightning.md lists all of them.
"""

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
import yaml
from lightning import Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BasePredictionWriter,
    BatchSizeFinder,
    Callback,
    Checkpoint,
    DeviceStatsMonitor,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelPruning,
    OnExceptionCheckpoint,
    ProgressBar,
    SpikeDetection,
    ThroughputMonitor,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins import HalfPrecision
from torch.optim.lr_scheduler import LambdaLR

from lit_llm.training.logger import RunLogger
from lit_llm.training.optim import Schedule

# What a setting turns off takes along the callbacks that would ask for it; Lightning refuses these.
TURNED_OFF_BY: dict[str, tuple[type, ...]] = {
    "enable_progress_bar": (ProgressBar,),
    "enable_checkpointing": (Checkpoint,),
    "logger": (LearningRateMonitor, DeviceStatsMonitor, ThroughputMonitor),
}
BASES = (Callback, Checkpoint, ProgressBar, BasePredictionWriter)
REFUSED: dict[type, str] = {  # with classes made from them; reasons that hold for lightning 2.6
    BaseFinetuning: (
        "cannot freeze anything, because the module sets what trains at every step; use --model.trainable, such as "
        "'{0: head, 100: all}', which counts by --model.unfreeze_by"
    ),
    BatchSizeFinder: (
        "trains with a batch size that no configuration records; use lit-llm plan, which says what memory each "
        "--data.batch_size needs"
    ),
    ModelPruning: (
        "computes pruned weights where their module is called, and the loss here reads that of the head by itself; "
        "prune the weights that lit-llm export writes"
    ),
    OnExceptionCheckpoint: (
        "makes the next fit go on from its file without being asked; use "
        "lit_llm.training.checkpoints.LastCheckpoint with every_n_train_steps, and go on by --ckpt_path last"
    ),
    SpikeDetection: (
        "writes checkpoints that no run can go on from; use lit_llm.training.spikes.LossSpikes, which can also leave "
        "such steps out"
    ),
}
# Smallest values; Lightning divides by some of them, and ignores others.
LEAST = {
    "log_every_n_steps": 1,
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "num_sanity_val_steps": -1,
}
WITHOUT_EFFECT = {
    "barebones": "leaves no checkpoint and logs nothing; use lit-llm bench, which times a run",
    "model_registry": "uploads nothing; use lit-llm export, which writes a folder that the hub takes",
}
FIELD = re.compile(r"\{([^{}:]+)(:[^{}]*)?\}")  # of a checkpoint's file name

# A default that is a member of an enumeration, as Timer's interval, is written into config.yaml by its value.
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, member: dumper.represent_data(member.value))


def refuse_settings(command: str, config: Any) -> None:
    """Refuse what Lightning offers and a run cannot use, and give files of checkpoints a name without folders.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        config: Its options as parsed, nothing built yet.

    Raises:
        ValueError: If there is something; the message names what to use instead.
    """
    trainer = config.trainer
    for name, least in LEAST.items():
        number = trainer.get(name)
        if isinstance(number, int | float) and not number >= least:
            raise ValueError(f"--trainer.{name} {number} cannot be: it is at least {least}")
    if trainer.val_check_interval == 0:
        raise ValueError("--trainer.val_check_interval 0 cannot be; --trainer.limit_val_batches 0 turns validation off")
    for name, why in WITHOUT_EFFECT.items():
        if trainer.get(name):
            raise ValueError(f"--trainer.{name} {why}")
    for part, kind in _parts(trainer.callbacks):
        if kind in BASES:
            raise ValueError(f"{kind.__name__} is a base class that does nothing by itself; name a class made from it")
        for refused, why in REFUSED.items():
            if issubclass(kind, refused):
                raise ValueError(f"{kind.__name__} {why}")
        if issubclass(kind, ModelCheckpoint):
            _without_folders(part.get("init_args"))
    if command == "fit":
        _refuse_of_fit(config)


def _refuse_of_fit(config: Any) -> None:
    trainer, kinds = config.trainer, [kind for _, kind in _parts(config.trainer.callbacks)]
    if any(issubclass(kind, GradientAccumulationScheduler) for kind in kinds):
        _refuse_accumulation(config)
    for part, kind in _parts(trainer.callbacks):
        if issubclass(kind, LearningRateFinder):
            _refuse_search(config, part.get("init_args") or {}, kinds)
    eps = _settings(config.model.init_args.get("optimizer")).get("eps")
    said, is_half = "--trainer.precision 16-true", trainer.precision == "16-true"
    for part, kind in _parts(trainer.plugins):
        if issubclass(kind, HalfPrecision) and _settings(part).get("precision", "16-true") == "16-true":
            said, is_half = "--trainer.plugins HalfPrecision", True
    if is_half and eps is not None and not torch.tensor(eps, dtype=torch.float16):
        raise ValueError(
            f"{said} rounds --model.optimizer.eps {eps} to 0, and the first steps would give NaN; "
            "use bf16-true or 16-mixed"
        )
    if trainer.logger is False and trainer.enable_checkpointing is not False and not trainer.fast_dev_run:
        _refuse_overwriting(Path(trainer.default_root_dir or ".", "checkpoints"), config.get("ckpt_path"))


def _refuse_accumulation(config: Any) -> None:
    """Refuse what Lightning would count wrong beside a number of batches that changes."""
    if (number := config.trainer.accumulate_grad_batches) != 1:
        raise ValueError(
            f"--trainer.accumulate_grad_batches {number} and GradientAccumulationScheduler both say how many batches "
            "make a step; leave one of them out"
        )
    part = config.model.init_args.get("lr_scheduler")
    if part is None or config.trainer.max_epochs == -1:
        return
    if issubclass(_kind(part), Schedule) and _settings(part).get("max_steps") is None:
        raise ValueError(
            "with GradientAccumulationScheduler the optimizer steps of a run by epochs are not known at its start; set "
            "--model.lr_scheduler.max_steps"
        )


def _refuse_search(config: Any, settings: Any, kinds: list[type]) -> None:
    """Refuse a search of one learning rate where it would measure something else, or nobody would get it."""
    if config.get("ckpt_path") is not None:
        raise ValueError(
            "a run with LearningRateFinder cannot go on from a checkpoint, because its search would replace the state "
            "of the optimizer; leave it out, with --model.optimizer.lr at the rate that it found"
        )
    if settings.get("attr_name") or not settings.get("update_attr", True):
        raise ValueError("LearningRateFinder sets the rate of --model.optimizer; leave attr_name and update_attr out")
    is_accumulated = config.trainer.accumulate_grad_batches != 1
    if is_accumulated or any(issubclass(kind, GradientAccumulationScheduler) for kind in kinds):
        raise ValueError(
            "LearningRateFinder reads the loss of single batches, and a step here takes several; search with "
            "--trainer.accumulate_grad_batches 1"
        )
    schedule = config.model.init_args.get("lr_scheduler")
    if schedule is not None and not issubclass(_kind(schedule), LambdaLR):
        raise ValueError(
            f"LearningRateFinder cannot set the rate of {_kind(schedule).__name__}; search without "
            "--model.lr_scheduler, or with lit_llm.training.optim.WarmupCosine or WarmupStableDecay"
        )
    several = {"layer_decay": config.model.init_args.get("layer_decay", 1.0) != 1.0}
    several["optimizer.muon_lr"] = _settings(config.model.init_args.get("optimizer")).get("muon_lr") is not None
    for name, is_set in several.items():
        if is_set:
            raise ValueError(f"LearningRateFinder tries one rate for all parameters; leave --model.{name} out")


def _refuse_overwriting(folder: Path, ckpt_path: str | None) -> None:
    """Refuse to write over the checkpoints of another run, where no logger gives each run a folder."""
    goes_on = ckpt_path is not None and Path(ckpt_path).parent.resolve() == folder.resolve()
    there = [name for name in ("last.ckpt", "best.ckpt") if (folder / name).exists()]
    if there and not goes_on:
        raise ValueError(
            f"'{folder / there[0]}' is a checkpoint of another run, which this one would overwrite; without "
            "--trainer.logger, choose another folder by --trainer.default_root_dir"
        )


def prepare_trainer(trainer: Trainer) -> None:
    """Refuse a run folder that is taken, and let a schedule of accumulation hold in a run that goes on.

    Args:
        trainer: The one of the run, just built.

    Raises:
        ValueError: If the configuration of another run lies in the folder of a logger.
    """
    for logger in trainer.loggers:
        is_numbered = isinstance(logger, TensorBoardLogger | CSVLogger) and not isinstance(logger, RunLogger)
        if is_numbered and Path(logger.log_dir, "config.yaml").exists():  # type: ignore[arg-type]
            raise ValueError(
                f"the run folder '{logger.log_dir}' is taken; leave --trainer.logger.version out, and the run gets the "
                "next free number"
            )
    if any(isinstance(callback, GradientAccumulationScheduler) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        trainer.callbacks.append(_AccumulationOfEpoch())  # type: ignore[attr-defined]


class _AccumulationOfEpoch(Callback):
    """Sets the batches of a step where a run goes on in the middle of an epoch; Lightning does at its start alone."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Ask the schedule, after it has looked at the Trainer."""
        for callback in trainer.callbacks:
            if isinstance(callback, GradientAccumulationScheduler):
                trainer.accumulate_grad_batches = callback.get_accumulate_grad_batches(trainer.current_epoch)


def without_turned_off(settings: Any) -> None:
    """Leave out the callbacks that another setting turns off.

    Args:
        settings: Those of the Trainer, with callbacks as objects.
    """
    for name, kinds in TURNED_OFF_BY.items():
        if settings.get(name) is False and isinstance(settings.callbacks, list):
            settings.callbacks = [callback for callback in settings.callbacks if not isinstance(callback, kinds)]


def _without_folders(settings: Any) -> None:
    """Give a metric with a slash a name without one: Lightning would make folders of `{val/loss:.2f}`."""
    name = settings and settings.get("filename")
    if not name or not settings.get("auto_insert_metric_name", True):
        return
    if any("/" in field for field, _ in FIELD.findall(name)):
        settings.filename = FIELD.sub(lambda found: f"{found[1].replace('/', '_')}={found[0]}", name)
        settings.auto_insert_metric_name = False


def _parts(said: Any) -> Iterator[tuple[Any, type]]:
    """Those that are named by a class, of a setting that takes one or a list."""
    parts = said if isinstance(said, list) else [said]
    yield from ((part, _kind(part)) for part in parts if hasattr(part, "get") and "class_path" in part)


def _kind(part: Any) -> type:
    """The class of a part; that which a function makes is not known."""
    found = resolve_name(part["class_path"])
    return found if isinstance(found, type) else object


def _settings(part: Any) -> Any:
    return (part.get("init_args") if hasattr(part, "get") else None) or {}
