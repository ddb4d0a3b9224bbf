"""fit, validate, test and predict: LightningCLI, the links between data and model, and its traps closed."""

import re
import sys
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

import lit_llm.data.bpe
import lit_llm.data.pretraining  # noqa: F401 (their classes can then be named in short, --data.tokenizer Bytes)
from lit_llm.data.base import TextDataModule
from lit_llm.modules.base import BaseModule
from lit_llm.usage import OneSentence, check_config
from lit_llm.weights.checkpoint import find_checkpoint, misfits, module_class, read_checkpoint

SECRET = re.compile(r"(^|_)(api_?key|password|passwd|secret|(access|auth|hf|bearer)_token)$")


def run(args: list[str]) -> int:
    """Run one of the four commands.

    Args:
        args: The command and its options.

    Returns:
        The exit code.
    """
    # Ours are those of the process, only with the configs located.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    for option, value in pairwise([*args, ""]):
        option, equals, joined = option.partition("=")
        if option in ("-c", "--config"):
            check_config(Path(joined if equals else value))
    cli = CLI(args)
    return 143 if cli.trainer.received_sigterm else 0


class Parser(OneSentence, LightningArgumentParser):
    """LightningCLI's parser, with errors of one sentence."""


class SaveConfig(SaveConfigCallback):
    """Writes the whole configuration into the run folder, and into TensorBoard as text and as hyper-parameters."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Add to TensorBoard what the file in the run folder says."""
        if stage != "fit" or not isinstance(trainer.logger, TensorBoardLogger):
            return
        text = self.parser.dump(self.config, skip_none=False)
        trainer.logger.experiment.add_text("config", f"```yaml\n{text}\n```", 0)
        parameters = dict(_flat({name: yaml.safe_load(text)[name] for name in ("seed_everything", "model", "data")}))
        # By the names of the scalars: the HParams page shows their latest values, of a killed run as well.
        metrics = dict.fromkeys(("val/loss", "val/perplexity", "val/bits_per_byte", "tokens"), 0.0)
        for summary in hparams(parameters, metrics):
            trainer.logger.experiment.file_writer.add_summary(summary)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Numbers and strings below a nested mapping, each with a dotted name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, name if key == "init_args" else f"{name}.{key}" if name else key)
    elif value is not None:
        yield name.removesuffix(".class_path"), value if isinstance(value, bool | int | float) else str(value)


class CLI(LightningCLI):
    """LightningCLI for a `BaseModule` and a `TextDataModule`, named by class in the config."""

    def __init__(self, args: list[str]) -> None:
        self.command = args[0]
        super().__init__(
            BaseModule,
            TextDataModule,
            save_config_callback=SaveConfig,
            seed_everything_default=1234,
            parser_kwargs={
                "prog": "lit-llm",
                "allow_abbrev": False,  # `--trainer.max` is a mistake, not a shorthand
                self.command: {"default_env": True, "env_prefix": "PL", "allow_abbrev": False},
            },
            parser_class=Parser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            args=args,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the command asked for: each has a parser of its own, which takes time to build."""
        return {self.command: LightningCLI.subcommands()[self.command]}

    def add_arguments_to_parser(self, parser: Any) -> None:
        """Say once what data and model must agree on; on instantiate, for a link on parse reaches no checkpoint."""
        for name in ("vocab_size", "block_size"):
            target = f"model.init_args.backbone.init_args.{name}"
            parser.link_arguments(f"data.{name}", target, apply_on="instantiate")

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning's version lets the checkpoint's settings override what the user says."""

    def before_instantiate_classes(self) -> None:
        """Refuse what would fail late, leak, or silently start from scratch."""
        config = self.config[self.command]
        for key in list(config.keys()):
            name = str(key).rpartition(".")[2]
            if SECRET.search(name) and isinstance(config[key], str):
                raise ValueError(
                    f"'{key}' is a secret, and the configuration is written into the run folder; give it "
                    "in the environment instead (the hub reads HF_TOKEN)"
                )
        config.ckpt_path = self._checkpoint(config.get("ckpt_path"), config)

    def _checkpoint(self, path: str | None, config: Any) -> str | None:
        if path is None:
            if self.command != "fit":
                raise ValueError(f"{self.command} needs --ckpt_path: a file, 'best' or 'last'")
            return None
        if "://" in path:
            raise ValueError(f"--ckpt_path '{path}' is not a file; download it first")
        if path in ("best", "last"):
            logger = config.trainer.get("logger")
            folder = logger.init_args.get("save_dir", "logs"), logger.init_args.get("name", "run")
            path = str(find_checkpoint(Path(*folder), (path,)))
        return path

    def after_instantiate_classes(self) -> None:
        """Refuse a checkpoint of another module, or whose weights do not fit the model of the config."""
        path = self.config[self.command].ckpt_path
        if path is None:
            return
        checkpoint, wanted = read_checkpoint(path), type(self.model)
        wrote = module_class(checkpoint)
        if wrote is not None and wrote is not wanted:
            raise ValueError(
                f"'{path}' is a checkpoint of {wrote.__qualname__}, and the config names "
                f"{wanted.__qualname__}; --ckpt_path only goes on with the run it came from"
            )
        if problems := misfits(self.model, checkpoint["state_dict"]):
            raise ValueError(
                f"the weights in '{path}' do not fit the model of the config ({problems}); "
                "use the config.yaml that lies in the run folder of the checkpoint"
            )
        self.config_init[self.command].ckpt_path = path
        print(f"{self.command} with the checkpoint {path}", file=sys.stderr)
