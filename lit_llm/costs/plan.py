"""lit-llm plan."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from torch.optim import Optimizer

from lit_llm import cli
from lit_llm.batch import Batch, PackedBatch
from lit_llm.cli_command import OtherCommand, silent_trainer
from lit_llm.costs.device import DEVICES, measured_peak, process_memory, product_dtype
from lit_llm.costs.layout import Layout, layout
from lit_llm.costs.simulation import make_fake, step_memory
from lit_llm.tables import count, table

TOKENS_PER_PARAMETER = 20  # Hoffmann et al., 2022 (https://arxiv.org/abs/2203.15556), table 3
# Of what a step allocates and frees, the part that glibc's heap holds beyond it, in blocks of sizes that do not fit.
# Measured on a CPU at 0.8M, 11M and 124M parameters.
KEPT = 0.4
BACKBONE = "model.init_args.backbone.init_args"


def run(args: list[str]) -> int:
    """Say what the training of a config will need."""
    return cli.run(["fit", *args[1:]], PlanCLI)


class PlanCLI(OtherCommand):
    """Builds what a config names out of fake tensors, takes one step with them, and does the sums.

    Args:
        args: `fit` and all options.
    """

    name = "plan"
    description = (
        "What the training of a config will need: parameters, operations, memory of each device, tokens and hours. "
        "Reads no text and allocates no weights. All options of fit are known."
    )
    no_checkpoint = "a step costs the same wherever a run stands"

    def add_arguments_to_parser(self, parser: Any) -> None:
        """Link the backbone to what is known of the data without reading it; add what is asked for beside."""
        parser.link_arguments("data.block_size", f"{BACKBONE}.block_size", apply_on="instantiate")
        parser.link_arguments(
            "data",
            f"{BACKBONE}.vocab_size",
            compute_fn=lambda data: self.options.vocab_size or data.expected_vocab_size or 1,  # 1 is refused later
            apply_on="instantiate",
        )
        names = ", ".join([*DEVICES, "cpu"])
        add = parser.add_argument
        add("--device", type=str | None, default=None, help=f"{names}; null is what this machine has")
        add("--devices", type=int | None, default=None, help="devices of each machine; null is trainer.devices")
        add("--nodes", type=int | None, default=None, help="machines; null is trainer.num_nodes")
        add("--strategy", type=str | None, default=None, help="ddp, fsdp, tensor_parallel; null is trainer.strategy")
        add(
            "--utilization",
            type=float | None,
            default=None,
            help="share of the peak that the run will reach, in (0, 1]",
        )
        add("--bench", type=str | None, default=None, help="file of bench --json, whose rate the run will reach")
        add("--vocab_size", type=int | None, default=None, help="ids, where only the text tells (Characters)")

    def before_instantiate_classes(self) -> None:
        """Refuse what makes no sense."""
        super().before_instantiate_classes()
        options = self.options
        for name in ("devices", "nodes", "vocab_size"):
            if options[name] is not None and options[name] < 1:
                raise ValueError(f"--{name} {options[name]} cannot be: it is at least 1")
        if options.utilization is not None and not 0 < options.utilization <= 1:
            raise ValueError(f"--utilization {options.utilization} cannot be: it is a share of the peak, in (0, 1]")
        if options.utilization is not None and options.bench is not None:
            raise ValueError(f"--utilization {options.utilization} and --bench {options.bench} say the same; give one")

    def instantiate_classes(self) -> None:
        """Build data and model, nothing else, and take the step."""
        from torch._subclasses.fake_tensor import FakeTensorMode  # slow to import

        self.device, self.layout = self._device(), self._layout()
        settings = self.options.trainer
        self.silent = silent_trainer(str(settings.precision or "32-true"), settings.accumulate_grad_batches)
        self.settings = settings.clone()
        for name in ("callbacks", "plugins", "profiler"):
            settings[name] = None
        settings.logger, settings.strategy = False, "auto"
        with torch.device("meta"), self.silent.precision_plugin.module_init_context():
            super().instantiate_classes()
        if not (self.options.vocab_size or self.datamodule.expected_vocab_size):
            raise ValueError("how many ids there are, only the text tells; say --vocab_size")
        try:
            with FakeTensorMode():
                make_fake(self.model)
                self.model.backbone.recompute(self.model.recomputes)  # as `configure_model` has it
                self.step = step_memory(self.model, self._optimizer(), self._batch(), self.silent)
        except RuntimeError as error:
            cause = str(error).splitlines()[0]
            raise ValueError(f"the model cannot take a step without its data, as a plan has none: {cause}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Not that of the config: there may be no such devices here."""
        return self.silent

    def after_instantiate_classes(self) -> None:
        """Nothing: there is no run to refuse."""

    def _run_subcommand(self, subcommand: str) -> None:
        print(table({**self._size(), "": "", **self._memory(), " ": "", **self._duration()}))

    def _device(self) -> str:
        device = self.options.device
        if device is None and torch.cuda.is_available() and self.options.trainer.accelerator != "cpu":
            name = torch.cuda.get_device_name().lower()
            device = next((known for known in DEVICES if known in name), name)
        device = "cpu" if device is None else device
        if device not in (*DEVICES, "cpu"):
            raise ValueError(f"--device {device} is not known; it is one of {', '.join([*DEVICES, 'cpu'])}")
        return device

    def _layout(self) -> Layout:
        options, devices = self.options, self.options.devices
        if devices is None:
            wanted = options.trainer.devices
            here = torch.cuda.device_count() if torch.cuda.is_available() else 1
            devices = len(wanted) if isinstance(wanted, list) else here if wanted in ("auto", -1, "-1") else int(wanted)
        return layout(options.strategy, options.trainer.strategy, devices, options.nodes or options.trainer.num_nodes)

    def _optimizer(self) -> Optimizer:
        made = self.model.configure_optimizers()
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in self.model.stages.ever)  # the stages of a schedule together
        optimizer: Optimizer = made["optimizer"] if isinstance(made, dict) else made
        for group in optimizer.param_groups if self.device != "cpu" else ():
            if group.get("foreach", False) is None and not group.get("fused"):
                group["foreach"] = True  # torch's own choice on a GPU, at the price of temporary lists of tensors
        return optimizer

    def _batch(self) -> Batch | PackedBatch:
        idx = torch.zeros(self.datamodule.batch_size, self.datamodule.block_size, dtype=torch.long)  # (B, T)
        return PackedBatch(idx, idx, idx) if getattr(self.datamodule, "mask_documents", False) else Batch(idx, idx)

    def _size(self) -> dict[str, str]:
        backbone = self.model.backbone
        flops = backbone.flops_per_token()
        return {
            "parameters": count(backbone.num_parameters()),
            "operations": f"{count(flops)} FLOP a token, forward and backward at {backbone.block_size:,} tokens",
            "devices": f"{self.layout.devices} × {self.device}, {self.layout.strategy}"
            + (f" in groups of {self.layout.tensor}" if self.layout.tensor > 1 else ""),
        }

    def _memory(self) -> dict[str, str]:
        rows = self.layout.memory(self.step, self.model.backbone)
        if self.device == "cpu":
            rows["kept by the allocator"] = round(KEPT * (rows["gradients"] + rows["activations"]))
            rows["the process itself"] = process_memory()
            has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        else:
            has = round(DEVICES[self.device].memory)
        total = sum(rows.values())
        unit, name_of_unit = (1e9, "GB") if total > 10e9 else (1e6, "MB")
        shown = {f"  {name}": f"{size / unit:8,.1f} {name_of_unit}" for name, size in rows.items()}
        fits = "fits" if total <= has else "does not fit"
        return {"memory of a device": f"{total / unit:,.1f} {name_of_unit}; {fits} into {has / 1e9:,.0f} GB", **shown}

    def _duration(self) -> dict[str, str]:
        backbone, trainer = self.model.backbone, self.settings
        optimal = TOKENS_PER_PARAMETER * backbone.num_parameters()
        step = self.datamodule.batch_size * self.datamodule.block_size * self.layout.data
        step *= trainer.accumulate_grad_batches
        rows = {"tokens of a step": f"{step:,}", "compute-optimal": f"{count(optimal)} tokens"}
        if trainer.max_steps < 1:
            return rows | {"tokens of the run": f"unknown: trainer.max_steps is {trainer.max_steps}"}
        tokens = step * trainer.max_steps
        operations = tokens * backbone.flops_per_token()
        rows["tokens of the run"] = f"{count(tokens)} in {trainer.max_steps:,} steps, {tokens / optimal:.2g} × optimal"
        rows["operations of the run"] = f"{operations:.3g} FLOP"
        rate, said = self._rate()
        hours = f"{operations / rate / 3600:,.2f} at {said}" if rate else "say --utilization or --bench"
        return rows | {"hours": hours}

    def _rate(self) -> tuple[float, str]:
        """Operations a second of all devices, and where the number comes from; 0 if nothing is said about it."""
        devices, options = self.layout.devices, self.options
        if options.bench is not None:
            utilization, peak = _measured(options.bench)
            return utilization * peak * devices, f"{utilization:.1%} of {peak / 1e12:.3g} TFLOP/s, as measured"
        if options.utilization is None:
            return 0.0, ""
        dtype = product_dtype(str(self.settings.precision or "32-true"))
        peak = measured_peak(torch.device("cpu"), dtype) if self.device == "cpu" else DEVICES[self.device].peak(dtype)
        return options.utilization * peak * devices, f"{options.utilization:.1%} of {peak / 1e12:.3g} TFLOP/s"


def _measured(path: str) -> tuple[float, float]:
    """Utilization and peak from a file of `bench --json`."""
    try:
        figures = json.loads(Path(path).read_text(encoding="utf-8"))
        return float(figures["model_flops_utilization"]), float(figures["measured_peak_flops"])
    except OSError as error:
        raise ValueError(f"cannot read --bench '{path}': {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' is no file that lit-llm bench --json has written") from error
