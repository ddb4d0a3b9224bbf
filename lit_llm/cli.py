"""fit, validate, test and predict: LightningCLI, the links between data and model, and its traps closed."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.optim.lr_scheduler import LambdaLR

import lit_llm.data.bpe
import lit_llm.data.pretraining
import lit_llm.data.spam  # noqa: F401 (their classes can then be named in short, --data.tokenizer Bytes)
from lit_llm.checks import CheckedData, StartChecks, refuse_built
from lit_llm.classes import refuse_mismatch
from lit_llm.config_files import check_config, flat, named_files, secret_name, with_environment
from lit_llm.data.base import TextDataModule
from lit_llm.failures import failure, what_is_left
from lit_llm.init_from import find, make_room, names_checkpoint, refuse_misfits, tokenizer_of_checkpoint
from lit_llm.lightning_settings import prepare_trainer, refuse_settings, without_turned_off
from lit_llm.modules.base import BaseModule
from lit_llm.results import test_best, write_predictions
from lit_llm.resume import refuse_foreign
from lit_llm.run_config import SaveConfig
from lit_llm.training.checkpoint_io import AsyncWholeFiles, CheckpointError, WholeFiles, sweep
from lit_llm.training.checkpoints import epochs_taken
from lit_llm.training.logger import RunTrainer
from lit_llm.training.ranks import EndTogether, end_with_launcher, wait_for_ranks
from lit_llm.usage import MAX_SEED, OneSentence, RunError, reason
from lit_llm.weights.checkpoint import open_checkpoint

LINKED = ("vocab_size", "block_size")  # attributes of the data that the backbone is built with
WHOLE_FILES = {TorchCheckpointIO: WholeFiles, AsyncCheckpointIO: AsyncWholeFiles}  # for what can leave half a file
HOW_NOT_WHAT = {"foreach", "fused", "capturable", "differentiable"}  # settings that change no optimizer's result


# An advertisement that Lightning logs with every run.
logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "litlogger" not in record.msg)


def run(args: list[str], start: Callable[[list[str]], "CLI"] | None = None) -> int:
    """Run one of the four commands, or one that is made of them.

    Args:
        args: The command and its options.
        start: Takes them. None: `CLI`.

    Returns:
        The exit code.
    """
    end_with_launcher()
    # Ours are those of the process, only with the configs located.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")  # --data.val_fraction 0
    warnings.filterwarnings("ignore", message="Precision .* is not supported by the model summary")  # of its megabytes
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")  # Lightning's use of torch
    args = with_environment(args, os.environ)
    for path, is_part in named_files(args):
        check_config(path, is_part)
    try:
        cli = (start or CLI)(args)
    except SIGTERMException:  # a SystemExit without a code
        return 143
    except MisconfigurationException as error:  # Lightning's word for what the user has to put right
        raise ValueError(str(error)) from error
    return 143 if cli.trainer.received_sigterm else wait_for_ranks(cli.trainer)


class Parser(OneSentence, LightningArgumentParser):
    """LightningCLI's parser, with errors of one sentence."""


class CLI(LightningCLI):
    """LightningCLI for a `BaseModule` and a `TextDataModule`, named by class in the config."""

    def __init__(self, args: list[str]) -> None:
        self.command = args[0]
        self.checkpoint: dict[str, Any] | None = None  # as read from --ckpt_path
        self.init_from = find(args)
        super().__init__(
            BaseModule,
            TextDataModule,
            trainer_class=RunTrainer,
            save_config_callback=SaveConfig,
            seed_everything_default=1234,
            parser_class=Parser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            args=args,
        )

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Call both parsers, of the program and of its command, by the words that the user types."""
        super().setup_parser(*args, **kwargs)
        for parser in (self.parser, self._parser(self.command)):
            parser.prog = f"lit-llm {self.command}"

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the command asked for: each has a parser of its own, which takes time to build."""
        return {self.command: LightningCLI.subcommands()[self.command]}

    def add_arguments_to_parser(self, parser: Any) -> None:
        """Say once what data and model must agree on; on instantiate, for a link on parse reaches no checkpoint."""
        for name, target in self._linked().items():
            parser.link_arguments(f"data.{name}", target, apply_on="instantiate")
        told = "after fit, score the best checkpoint on the test data as well (the last one, if there is no best)"
        parser.add_argument("--test_best", type=bool, default=False, help=told)

    def _linked(self) -> dict[str, str]:
        """Where in the model each attribute of the data goes; a pretrained backbone has its own sizes."""
        sizes = LINKED if self.init_from is None else ()
        own = {name: f"model.init_args.backbone.init_args.{name}" for name in sizes}
        return own | {"class_names": "model.init_args.class_names"}

    def _add_instantiators(self) -> None:
        super()._add_instantiators()
        self.parser.add_instantiator(CheckedData(self, "data"), TextDataModule, subclasses=True)  # not Lightning's own

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Parse, with what a source to start from says of the model, and refuse a seed before it is used."""
        if self.init_from is not None and self.init_from.open_options:
            args = self.init_from.among(args, str(self._resumed(parser, args) or self.init_from.source))
        super().parse_arguments(parser, args)
        seed = self.config[self.command].seed_everything
        if not isinstance(seed, bool) and not 0 <= seed <= MAX_SEED:
            raise ValueError(f"--seed_everything {seed} cannot be: it lies in [0, {MAX_SEED}]")

    def _resumed(self, parser: Any, args: list[str]) -> Path | None:
        """The checkpoint to go on with, before the architecture is known: it holds that of its source, too."""
        assert self.init_from is not None
        if not names_checkpoint(args):
            return None
        super().parse_arguments(parser, self.init_from.without(args))
        config = self.config[self.command]
        if config.ckpt_path is None:
            return None
        return open_checkpoint(*self._place(config.ckpt_path, config.trainer.get("logger")))[0]

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning's version lets the checkpoint's settings override what the user says."""

    def before_instantiate_classes(self) -> None:
        """Refuse what would fail late, leak, be ignored, or silently start from scratch."""
        config = self.config[self.command]
        values = dict(flat(config.clone().as_dict()))
        if name := secret_name(values):
            raise ValueError(
                f"'{name}' holds a secret, and the configuration is written into the run folder; give it in the "
                "environment instead (the hub reads HF_TOKEN)"
            )
        for target in self._linked().values():
            if (name := target.replace(".init_args", "")) in values:
                raise ValueError(f"--{name} follows from the data; set what it follows from under --data")
        refuse_mismatch(config.model.class_path, config.data.class_path)
        refuse_settings(self.command, config)
        if config.get("ckpt_path") is not None:
            place, names = self._place(config.ckpt_path, config.trainer.get("logger"))
            path, self.checkpoint = open_checkpoint(place, names)
            config.ckpt_path = str(path)
            if self.command == "fit":
                sweep(path.parent)
        elif self.command != "fit" and self.init_from is None:
            raise ValueError(f"{self.command} needs --ckpt_path: a file, a run folder, 'best' or 'last'")

    def _place(self, path: str, logger: Any) -> tuple[str | Path, tuple[str, ...]]:
        """Where to look for a checkpoint, and for which names; `last` is never missing where there is a best one."""
        names = ("last", "best") if self.command == "fit" else ("best", "last")
        if "://" in path:
            raise ValueError(f"--ckpt_path '{path}' is not a file; download it first")
        if path not in names:
            return path, names
        first = logger[0] if isinstance(logger, list) and logger else logger  # whose folder is that of the run
        settings = getattr(first, "init_args", None)
        if settings is None or "save_dir" not in settings or "name" not in settings:
            raise ValueError(
                f"--ckpt_path {path} looks among the runs of --trainer.logger, which names none; give a path"
            )
        return Path(settings.save_dir, settings.name), ("last", "best") if path == "last" else ("best",)

    def instantiate_classes(self) -> None:
        """Build what the config names; what refuses its settings tells why, whoever wrote it."""
        config = self.config[self.command]
        try:
            if self.init_from is not None and self.checkpoint is None:  # else it has that room
                make_room(config)
            self._dump_config()  # before an object takes the place of a name
            with tokenizer_of_checkpoint(config, self.checkpoint or {}):
                super().instantiate_classes()
        except ValueError as error:
            raise ValueError(str(reason(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer, without the callbacks that another setting turns off; Lightning would refuse both."""
        without_turned_off(self.config_init[self.command].trainer)
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (TypeError, ModuleNotFoundError) as error:  # as it refuses some values, and what is not installed
            raise ValueError(str(error)) from error
        prepare_trainer(trainer)
        if whole := WHOLE_FILES.get(type(trainer.strategy.checkpoint_io)):
            trainer.strategy.checkpoint_io = whole()
        # The first to hear of an exception, and of a start.
        trainer.callbacks[:0] = [EndTogether(), StartChecks()]  # type: ignore[attr-defined]
        return trainer

    def after_instantiate_classes(self) -> None:
        """Refuse, before any text is read, an optimizer that cannot be made and a checkpoint that does not belong."""
        lr_scheduler = None
        if self.command == "fit":
            self.model.choose_what_trains()
            self.model.stages.refuse_devices(self.trainer.num_devices * self.trainer.num_nodes)  # before they start
            lr_scheduler = self._try_optimizer()
            refuse_built(self.model, self.trainer, lr_scheduler)
        if self.init_from is not None:
            refuse_misfits(self.model, self.datamodule)
        if self.checkpoint is None:
            if (filled := self.model.start(self.datamodule.new_ids)) is not None and self.trainer.is_global_zero:
                print(filled, file=sys.stderr)
            return
        path = self.config[self.command].ckpt_path
        self.model.has_started = True  # its source may be gone
        refuse_foreign(path, self.checkpoint, self.model, self.datamodule, self.command == "fit")
        if self.command == "fit":
            self._refuse_undone(path, lr_scheduler)
        self.config_init[self.command].ckpt_path = path
        self.checkpoint = None
        if self.trainer.is_global_zero:
            print(f"{self.command} with the checkpoint {path}", file=sys.stderr)

    def _try_optimizer(self) -> Any:
        """The schedule of an optimizer made to see whether it can be; finding out after tokenizing may take hours."""
        try:
            made = self.model.configure_optimizers()
        except ValueError as error:
            raise ValueError(f"the optimizer cannot be made: {error}") from error
        except RuntimeError:  # one that asks for its trainer, which it has only later
            return None
        return made["lr_scheduler"]["scheduler"] if isinstance(made, dict) and "lr_scheduler" in made else None

    def _refuse_undone(self, path: str, lr_scheduler: Any) -> None:
        """Refuse a run that is over, and settings of the optimizer that its state would silently set back."""
        assert self.checkpoint is not None
        steps = self.checkpoint.get("global_step", 0)
        if 0 <= self.trainer.max_steps <= steps:
            raise ValueError(f"the run of '{path}' has taken its {steps} steps; raise --trainer.max_steps to go on")
        epochs = epochs_taken(self.checkpoint)
        if 0 < (self.trainer.max_epochs or -1) <= epochs:
            raise ValueError(f"the run of '{path}' has taken its {epochs} epochs; raise --trainer.max_epochs to go on")
        saved, wanted = self.checkpoint["hyper_parameters"], self.config_dump["model"]["init_args"]
        if "unsaid" in self.checkpoint:  # a module made in Python says it in other words
            return
        names = ["optimizer", *({"layer_decay"} & saved.keys())]
        # The factors of a LambdaLR are no part of its state: there the config counts, and a run can be made longer.
        if not (saved.get("lr_scheduler") and isinstance(lr_scheduler, LambdaLR)):
            names.append("lr_scheduler")
        old, new = (dict(flat({name: settings.get(name) for name in names})) for settings in (saved, wanted))
        for key in [*new, *(old.keys() - new.keys())]:
            if old.get(key) != new.get(key) and key.rpartition(".")[2] not in HOW_NOT_WHAT:
                raise ValueError(
                    f"'{path}' brings model.{key} back to {old.get(key)}, and the config says {new.get(key)}; "
                    "leave it as it was, or start a new run"
                )

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except BrokenPipeError as error:  # unlike for a text, whose reader has had enough
            raise RunError("the reader of the progress has left, and the run stopped with it") from error
        except (FloatingPointError, CheckpointError, RuntimeError) as error:
            said = failure(error, self.datamodule.batch_size, self.datamodule.block_size)
            if said is None:
                raise
            left = what_is_left(self.trainer, self.config_init[self.command].get("ckpt_path"))
            raise RunError(f"{said}; {left}") from error

    def after_fit(self) -> None:
        """Score what the training has led to on the test data, if asked for, into the same run folder."""
        is_over = not (self.trainer.fast_dev_run or self.trainer.interrupted)  # type: ignore[attr-defined]
        if self.config_init[self.command].test_best and is_over:
            test_best(self.trainer, self.model, self.datamodule)

    def predict(self, **kwargs: Any) -> None:
        """Write the predictions into the run folder."""
        write_predictions(self.trainer, self.trainer.predict(**kwargs) or [], self.datamodule)
