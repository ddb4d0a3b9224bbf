"""lit-llm bench."""

import json
import statistics
import sys
import tempfile
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_llm import cli
from lit_llm.cli_command import OtherCommand
from lit_llm.costs.device import device_name
from lit_llm.costs.split import NAMES, SplitProfiler
from lit_llm.costs.timer import StepTimer
from lit_llm.tables import count, table
from lit_llm.usage import RunError


def run(args: list[str]) -> int:
    """Time the fit of a config, and say how fast it was."""
    with tempfile.TemporaryDirectory(prefix="lit_llm_bench_") as folder:
        return cli.run(["fit", *args[1:]], partial(BenchCLI, folder=folder))


class BenchCLI(OtherCommand):
    """Runs a fit for a few steps and times it, with its own callbacks and loggers, but in a temporary folder.

    It neither validates nor writes checkpoints: those belong to a run, not to a step.

    Args:
        args: `fit` and all options.
        folder: Where the run keeps its logs.
    """

    name = "bench"
    description = (
        "Time the training of a config: tokens a second, utilization of the measured peak of this machine, memory, and "
        "where the time of a step goes. Nothing is left in the logs. All options of fit are known."
    )
    no_checkpoint = "a step costs the same wherever a run stands"

    def __init__(self, args: list[str], folder: str) -> None:
        self.folder = folder
        super().__init__(args)

    def add_arguments_to_parser(self, parser: Any) -> None:
        """Add what is asked for beside the options of fit."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--steps", type=int, default=20, help="optimizer steps to time; as many more are split")
        parser.add_argument("--warmup_steps", type=int, default=5, help="optimizer steps before the clock starts")
        parser.add_argument("--json", type=str | None, default=None, help="file to write the figures to")
        parser.add_argument(
            "--bare", action="store_true", help="time the same module in a loop without a Trainer as well"
        )

    def before_instantiate_classes(self) -> None:
        """Refuse what cannot be timed; lead all logs to the temporary folder."""
        super().before_instantiate_classes()
        for name, least in {"steps": 1, "warmup_steps": 0}.items():
            if self.options[name] < least:
                raise ValueError(f"--{name} {self.options[name]} cannot be: it is at least {least}")
        if self.options.json is not None and not Path(self.options.json).absolute().parent.is_dir():
            raise ValueError(f"--json {self.options.json} lies in a folder that does not exist; make it first")
        loggers = self.options.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            if "save_dir" in getattr(logger, "init_args", ()):
                logger.init_args.save_dir = self.folder

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the config's Trainer for as many steps as are timed."""
        self.profiler = SplitProfiler()
        self.timer = StepTimer(self.options.warmup_steps, self.options.steps, self.profiler, self.options.bare)
        self.trainer_defaults = {"callbacks": [self.timer]}
        settings = self.config_init["fit"].trainer
        loggers = settings.logger if isinstance(settings.logger, list) else [settings.logger]
        for logger in loggers:
            if not isinstance(logger, TensorBoardLogger | CSVLogger | bool | None):
                raise ValueError(
                    f"bench cannot keep {type(logger).__name__} from your logs; leave it out by --trainer.logger false"
                )
        for name, value in self._length().items():
            settings[name] = value
        settings.profiler, settings.default_root_dir = self.profiler, self.folder
        return super().instantiate_trainer(**kwargs)

    def _length(self) -> dict[str, Any]:
        """Settings of a Trainer that takes the steps, and does nothing else."""
        only = {"max_steps": self.timer.max_steps, "max_epochs": -1, "fast_dev_run": False}
        nothing = {"limit_val_batches": 0, "num_sanity_val_steps": 0, "enable_checkpointing": False}
        return only | nothing | dict.fromkeys(("max_time", "min_steps", "min_epochs"))

    def _run_subcommand(self, subcommand: str) -> None:
        with redirect_stdout(sys.stderr):  # stdout is the table's
            super()._run_subcommand(subcommand)
        if not self.trainer.is_global_zero or self.trainer.received_sigterm:
            return
        if not self.timer.peak_bytes:
            raise RunError(f"the run ended after {self.trainer.global_step} of {self.timer.max_steps} steps")
        figures = self.figures()
        print(describe(figures))
        if self.options.json is not None:
            Path(self.options.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")

    def figures(self) -> dict[str, Any]:
        """All that was measured, in seconds, bytes and operations a second; of one device if nothing else is said."""
        timer, trainer, device = self.timer, self.trainer, self.trainer.strategy.root_device
        peak = timer.peak_flops
        flops, rate = self.model.backbone.flops_per_token(), timer.tokens / timer.seconds
        pairs = [a / b - 1 for a, b in zip(timer.windows, timer.bare_windows, strict=False)]
        return {
            "device": device_name(device),
            "devices": trainer.world_size,
            "precision": str(trainer.precision),
            "matmul_precision": timer.matmul_precision,
            "versions": {"torch": torch.__version__, "lightning": lightning.__version__},
            "parameters": self.model.backbone.num_parameters(),
            "flops_per_token": flops,
            "tokens_per_step": timer.tokens * trainer.world_size // timer.steps,  # of all devices
            "steps": timer.steps,
            "tokens_per_second": rate * trainer.world_size,  # of all devices
            "seconds_per_step": timer.seconds / timer.steps,
            "windows_seconds_per_step": timer.windows,
            "measured_peak_flops": peak,
            "model_flops_utilization": rate * flops / peak,
            "peak_memory_bytes": timer.peak_bytes,
            "split_seconds_per_step": timer.split_seconds / timer.steps,
            "split": {name: self.profiler.seconds[name] / timer.steps for name in NAMES},
            "bare_seconds_per_step": statistics.fmean(timer.bare_windows) if pairs else None,
            "trainer_overhead": {"median": statistics.median(pairs), "min": min(pairs), "max": max(pairs)}
            if pairs
            else None,
        }


def describe(figures: dict[str, Any]) -> str:
    """The figures as a table.

    Args:
        figures: As `BenchCLI.figures` gives them.
    """
    step, split, overhead = figures["seconds_per_step"], figures["split"], figures["trainer_overhead"]
    peak, whole = figures["measured_peak_flops"], figures["split_seconds_per_step"]
    devices = f"{figures['devices']} × " if figures["devices"] > 1 else ""
    low, high = (1e3 * pick(figures["windows_seconds_per_step"]) for pick in (min, max))
    rows = {
        "device": f"{devices}{figures['device']}",
        "precision": f"{figures['precision']}, matmul {figures['matmul_precision']}",
        "parameters": count(figures["parameters"]),
        "tokens per second": f"{figures['tokens_per_second']:,.0f}",
        "step": f"{1e3 * step:,.2f} ms ({low:,.2f} to {high:,.2f}), {figures['tokens_per_step']:,} tokens",
        "utilization": f"{figures['model_flops_utilization']:.1%} of the measured {peak / 1e12:.3g} TFLOP/s",
        "peak memory": f"{figures['peak_memory_bytes'] / 1e6:,.0f} MB",
        "a step, split": f"{1e3 * whole:,.2f} ms",
    }
    for name in NAMES:
        rows[f"  {name}"] = f"{1e3 * split[name]:8,.2f} ms {split[name] / whole:6.1%}"
    if overhead is not None:
        least, most = (f"{100 * overhead[name]:+.2f}" for name in ("min", "max"))
        rows["bare loop"] = (
            f"{1e3 * figures['bare_seconds_per_step']:,.2f} ms; the Trainer costs "
            f"{100 * overhead['median']:+.2f} % ({least} to {most})"
        )
    return table(rows)
