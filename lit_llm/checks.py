"""Refused at the start: settings of which a run would fail at its end, or at its first validation."""

import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

from lightning.pytorch.callbacks import Callback, Checkpoint, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import _InstantiatorFn
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from lit_llm.data.base import TextDataModule
from lit_llm.training.checkpoint_io import free_bytes, unwritable
from lit_llm.training.checkpoints import BestCheckpoint, LastCheckpoint
from lit_llm.training.optim import Schedule
from lit_llm.training.trainable import memory

READS = {"validate": "val", "test": "test", "predict": "predict"}  # the split that a command reads
IN_TRAINING = ("train/", "lr-")  # how the names begin that a training step logs, and no validation


class Watcher(NamedTuple):
    """What waits for a logged value."""

    kind: type  # its class
    monitor: str  # the name of the value
    is_strict: bool  # whether the run fails without it, or the watcher does nothing in the whole run


class CheckedData(_InstantiatorFn):
    """Builds the data of a command, and checks settings before the model is linked to what only the text tells."""

    def __call__(self, *args: Any, applied_instantiation_links: dict, **kwargs: Any) -> Any:
        """The data.

        Raises:
            ValueError: As `refuse_settings`.
        """
        data = super().__call__(*args, applied_instantiation_links=applied_instantiation_links, **kwargs)
        command = self.cli.subcommand
        refuse_settings(str(command), self.cli.config[command], data)
        return data


def refuse_settings(command: str, config: Any, data: TextDataModule) -> None:
    """Refuse, before any text is read, what a command would fail of after it has done its work.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        config: Its options as parsed, nothing built yet.
        data: The data, built, with none of its text read.

    Raises:
        ValueError: If a folder cannot be written to, a split that is to be read does not exist, or a callback or a
            schedule waits for a value that is not logged.
    """
    trainer = config.trainer
    if command != "fit":
        _refuse_empty(READS[command], f"{command} has nothing to read", trainer, data)
    if trainer.fast_dev_run:  # it stops by itself, and writes and tests nothing
        return
    _refuse_folders(command, config)
    if command == "fit":
        if config.test_best:
            _refuse_empty("test", "--test_best true has nothing to test on", trainer, data)
        parts = [resolve_name(config.model.class_path), *(_kind(part) for part in _callbacks(trainer))]
        watchers = list(_planned(config))
        refuse_unlogged(watchers, parts)
        if why := _no_validation(trainer, data):
            _refuse_unvalidated(watchers, why)


def refuse_unlogged(watchers: Iterable[Watcher], parts: Iterable[Any]) -> None:
    """Refuse what waits for a value that nobody logs, as far as that can be known.

    A module or callback of one's own says what it logs in `logs`, a tuple of names, in which `*` stands for anything;
    where one of them does not say, it may log any name.

    Args:
        watchers: What waits.
        parts: The module and the callbacks, as classes or built.

    Raises:
        ValueError: If there is one.
    """
    module, *callbacks = parts
    names, is_known = list[str](), True
    for part in (module, *callbacks):
        kind = part if isinstance(part, type) else type(part)
        names += ["lr-*"] if issubclass(kind, LearningRateMonitor) else getattr(part, "logs", ())
        is_known &= "logs" in vars(kind) or kind.__module__.startswith(("lit_llm.", "lightning."))
    for kind, monitor, _ in watchers:
        own = [*names, "epoch", "step"] if issubclass(kind, Checkpoint) else names
        if is_known and not any(fnmatchcase(monitor, name) for name in own):
            near = get_close_matches(monitor, names, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"logged are {', '.join(names)}"
            of = "only a test logs" if monitor.startswith("test/") else "nothing in this run logs"
            raise ValueError(f"{kind.__name__} monitors '{monitor}', which {of}; {hint}")


def refuse_built(module: Any, trainer: Any, schedule: Any) -> None:
    """Refuse what the settings do not show and what is built of them does.

    Args:
        module: The module.
        trainer: The Trainer.
        schedule: The scheduler of the learning rate. None: none.

    Raises:
        ValueError: As `refuse_unlogged` and `refuse_schedule`.
    """
    if not trainer.fast_dev_run:
        refuse_unlogged(built_watchers(trainer.callbacks), [module, *trainer.callbacks])
        refuse_schedule(schedule, trainer.max_steps)


def built_watchers(callbacks: Iterable[Callback]) -> Iterator[Watcher]:
    """What waits for a logged value, of callbacks that are built: also what its class alone says."""
    for callback in callbacks:
        if isinstance(monitor := getattr(callback, "monitor", None), str):
            yield Watcher(type(callback), monitor, getattr(callback, "strict", True))


def refuse_schedule(schedule: Any, steps: float) -> None:
    """Refuse a schedule of the learning rate that fails before a run ends.

    Args:
        schedule: The scheduler. None: none.
        steps: Optimizer steps of the run; below 0 or infinite where there is no end.

    Raises:
        ValueError: If it does.
    """
    if isinstance(schedule, OneCycleLR) and 0 < schedule.total_steps < steps:
        raise ValueError(
            f"the run takes {steps:,.0f} steps, and OneCycleLR fails after its total_steps {schedule.total_steps}; set "
            "--model.lr_scheduler.total_steps to the steps of the run"
        )


class StartChecks(Callback):
    """Refuses before the first step what only the built run shows: a full disk, a schedule that ends before the run."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Look whether the disk has room for the checkpoints.

        Raises:
            ValueError: If it has not.
        """
        if not (trainer.fast_dev_run or pl_module.is_divided):  # on all ranks, which share the name of the folder
            _refuse_full_disk(trainer, pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Compare schedules with the steps of the run, now that they are known.

        Raises:
            ValueError: If the schedule of the rates ends before the run, or a value is asked for before it is logged.
        """
        if trainer.fast_dev_run:
            return
        steps, schedule = trainer.estimated_stepping_batches, pl_module.lr_schedulers()
        refuse_schedule(schedule, steps)
        _refuse_unlogged_yet(trainer)
        count, unit = (steps, "step") if pl_module.unfreeze_by == "step" else (trainer.max_epochs or -1, "epoch")
        late = [start for start in pl_module.stages.stages if 0 < count <= start]
        if isinstance(schedule, Schedule) and (misfit := schedule.misfit(steps)) and trainer.is_global_zero:
            print(f"warning: {misfit}; lower them, or train longer", file=sys.stderr)
        if late and trainer.is_global_zero:
            said = f"the schedule of trainable goes on at {unit} {late[0]}, and the run ends after {count:,.0f} {unit}s"
            print(f"warning: {said}; that stage is never reached", file=sys.stderr)


def _refuse_empty(split: str, what: str, trainer: Any, data: TextDataModule) -> None:
    if not data.has(split):
        option = "--data.val_fraction" if split == "predict" else f"--data.{split}_fraction"
        raise ValueError(f"{what}: the data holds nothing out for it; set {option}, and train with it")
    if trainer.get(f"limit_{split}_batches") == 0:
        raise ValueError(f"{what}: --trainer.limit_{split}_batches is 0; raise it")


def _no_validation(trainer: Any, data: TextDataModule) -> str | None:
    """Why there will be no validation; None if there will be one, or if only the text tells."""
    if trainer.limit_val_batches == 0:
        return "--trainer.limit_val_batches is 0"
    if not data.has("val"):
        return "the data holds nothing out for it (--data.val_fraction)"
    batches = (trainer.max_steps or -1) * trainer.accumulate_grad_batches
    every, epochs = trainer.val_check_interval, trainer.check_val_every_n_epoch
    if epochs is None and isinstance(every, int) and 0 < batches < every:
        return f"--trainer.val_check_interval {every} is more than the {batches} batches of the run"
    if epochs is not None and 0 < (trainer.max_epochs or -1) < epochs:
        return f"--trainer.check_val_every_n_epoch {epochs} is more than --trainer.max_epochs {trainer.max_epochs}"
    return None


def _refuse_unvalidated(watchers: Iterable[Watcher], why: str) -> None:
    """Refuse what waits for a validation that never comes; the best checkpoint is only missed, which is told."""
    for kind, monitor, is_strict in watchers:
        if monitor in ("tokens", "epoch", "step") or monitor.startswith(IN_TRAINING) or not is_strict:
            continue
        if not issubclass(kind, BestCheckpoint):
            raise ValueError(
                f"{kind.__name__} monitors '{monitor}', and the run has no validation: {why}; change that, or leave "
                f"{kind.__name__} out"
            )
        print(f"warning: the run has no validation, and so no best.ckpt: {why}", file=sys.stderr)


def _refuse_unlogged_yet(trainer: Any) -> None:
    """Refuse what asks, at the end of the first validation or epoch, for a value of the steps that is logged later."""
    every, taken = trainer.log_every_n_steps, trainer.global_step
    by_steps = trainer.check_val_every_n_epoch is None
    batches = trainer.val_check_batch or trainer.num_training_batches
    first = (batches if by_steps else min(batches, trainer.num_training_batches)) // trainer.accumulate_grad_batches
    for kind, monitor, is_strict in built_watchers(trainer.callbacks):
        if is_strict and taken == 0 and first < every and (monitor == "tokens" or monitor.startswith("train/")):
            raise ValueError(
                f"{kind.__name__} monitors '{monitor}' and asks for it after {first} steps, and it is logged every "
                f"{every}; set --trainer.log_every_n_steps to {max(first, 1)} or less"
            )


def _refuse_folders(command: str, config: Any) -> None:
    """Refuse a folder that will be written to and cannot be."""
    trainer = config.trainer
    folders: list[tuple[str, Path]] = []
    for part in trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]:
        settings = part.get("init_args") or {} if hasattr(part, "get") else {}
        if settings.get("save_dir"):
            folders.append(("logger.save_dir", Path(settings["save_dir"], str(settings.get("name") or ""))))
    if not folders and command in ("fit", "predict"):
        folders.append(("default_root_dir", Path(trainer.default_root_dir or ".")))
    for part in _callbacks(trainer) if command == "fit" else ():
        if own := (part.get("init_args") or {}).get("dirpath"):
            folders.append((f"callbacks ({_kind(part).__name__}: dirpath)", Path(own)))
    for option, folder in folders:
        if ":/" not in str(folder) and (why := unwritable(folder)):
            raise ValueError(f"cannot write to '{folder}' ({why}); choose another by --trainer.{option}")


def _refuse_full_disk(trainer: Any, module: nn.Module) -> None:
    weights = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
    state = sum(memory(optimizer, list(module.parameters()))[1] or 0 for optimizer in trainer.optimizers)
    needed: dict[Path, int] = {}
    for each in trainer.checkpoint_callbacks:
        if isinstance(each, LastCheckpoint):
            folder = each.path(trainer).parent
        elif isinstance(each, ModelCheckpoint) and each.dirpath and "://" not in str(each.dirpath) and each.save_top_k:
            folder = Path(each.dirpath)
        else:
            continue
        size = weights if getattr(each, "save_weights_only", False) else weights + state
        needed[folder] = needed.get(folder, 0) + size
    for folder, size in needed.items():
        if size > (free := free_bytes(folder)):
            raise ValueError(
                f"the checkpoints need {size / 1e6:,.1f} MB in '{folder}', and {free / 1e6:,.1f} MB are free; make "
                "room, or choose another folder by --trainer.logger.save_dir"
            )


def _planned(config: Any) -> Iterator[Watcher]:
    """What will wait for a logged value, as far as the settings say."""
    for part in (*_callbacks(config.trainer), config.model.init_args.get("lr_scheduler")):
        settings = part.get("init_args") or {} if hasattr(part, "get") else {}
        if isinstance(monitor := settings.get("monitor"), str) and (kind := _kind(part)) is not object:
            yield Watcher(kind, monitor, settings.get("strict", True))


def _callbacks(trainer: Any) -> list[Any]:
    said = trainer.callbacks if isinstance(trainer.callbacks, list) else [trainer.callbacks]
    left_out = Checkpoint if trainer.enable_checkpointing is False else ()
    return [part for part in said if hasattr(part, "get") and not issubclass(_kind(part), left_out)]


def _kind(part: Any) -> Any:
    """The class of a part; that which a function makes is not known."""
    found = resolve_name(part["class_path"])
    return found if isinstance(found, type) else object
