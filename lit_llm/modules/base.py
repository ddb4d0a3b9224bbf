"""What all modules share: the backbone, its optimizer, what trains, and what goes into a checkpoint."""

import hashlib
import inspect
import math
import os
import shutil
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import AdamW

from lit_llm.backbone import GPT
from lit_llm.backbone.lora import LoRA, adapted_layers
from lit_llm.modules.hyper_parameters import FromCheckpoint, save_settings
from lit_llm.modules.lightning_callbacks import LightningCallbacks, when_to_step
from lit_llm.modules.steps import WeightedSteps
from lit_llm.training.optim import Schedule, parameter_groups, restart, scale_rates
from lit_llm.training.parallel import same_start, shard
from lit_llm.training.tensor_parallel import split
from lit_llm.training.trainable import Stages, frozen_parts, overview, set_gradients
from lit_llm.weights.checkpoint import unwrapped
from lit_llm.weights.growing import fill_grown
from lit_llm.weights.open import open_source
from lit_llm.weights.source import Filled, Source

# Optimizer states, if in groups (lightning 2.6).
MISNUMBERING = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)


class BaseModule(FromCheckpoint, WeightedSteps, LightningCallbacks):
    """A system around one backbone.

    Args:
        backbone: The network.
        optimizer: Called with named parameter groups; weight decay reaches matrices and embeddings only.
        lr_scheduler: Called with the optimizer; stepped after each optimizer step. None: constant rates.
        trainable: What trains: `all`, `head` (what lies outside the backbone, or its own output layer; if that is tied,
            it is the token table, and gradients reach the bottom), `last_2_blocks` (with last norm and head), patterns
            of names such as `*.bias` or `blocks.3.mlp`, or a list of these. Or a schedule, `{0: head, 100: all}`. What
            does not train has no gradient, no state in the optimizer and no dropout. None: all, or with `lora` the
            adapters and what lies outside the backbone; adapters train in any case.
        unfreeze_by: What the keys of a schedule count: optimizer steps or epochs.
        layer_decay: Factor of the learning rate from each layer to the one below it, in (0, 1]; the last norm and the
            head keep the whole rate.
        lora: Low-rank adapters of the backbone's linear layers. None: none.
        compile: Whether `torch.compile` makes kernels of the blocks: minutes at the start for faster steps on a GPU.
        activation_checkpointing: What the backward pass computes again instead of keeping it (Chen et al., 2016,
            https://arxiv.org/abs/1604.06174). true: each block from its input, a third more time for the least memory.
            `mlp`: the activations of each MLP and GatedMLP, a quarter of all that is kept, in a few percent more time.
        init_from: Weights to start from: a model of the Hugging Face hub (`openai-community/gpt2`), a folder of one, or
            a checkpoint of any task. On the command line architecture and tokenizer come from there as well. A run
            that goes on (--ckpt_path) reads nothing there. None: random weights.
        random_start: Whether to take architecture and tokenizer alone from there, and random weights: what an
            experiment compares pretraining with.

    Raises:
        ValueError: If `layer_decay` is outside (0, 1], or `lora` names a layer that cannot have an adapter.
    """

    uses_head: ClassVar[bool] = True  # whether the loss needs the backbone's own head; what it does not, cannot train

    def __init__(
        self,
        backbone: GPT,
        optimizer: OptimizerCallable = AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        trainable: dict[int, list[str] | str] | list[str] | str | None = None,
        unfreeze_by: Literal["step", "epoch"] = "step",
        layer_decay: float = 1.0,
        lora: LoRA | None = None,
        compile: bool = False,
        activation_checkpointing: bool | Literal["mlp"] = False,
        init_from: str | None = None,
        random_start: bool = False,
    ) -> None:
        super().__init__()
        save_settings(self, inspect.currentframe())
        if not 0 < layer_decay <= 1:
            raise ValueError(f"layer_decay {layer_decay} cannot be: it lies in (0, 1]")
        if lora is not None:
            lora.adapt(backbone)
        self.backbone, self.optimizer, self.lr_scheduler = backbone, optimizer, lr_scheduler
        self.trainable, self.unfreeze_by, self.layer_decay = trainable, unfreeze_by, layer_decay
        self._trained: frozenset[str] = frozenset()  # names of what trains now
        self._frozen: list[nn.Module] = []  # parts in which nothing does
        self.compiles, self.recomputes = compile, activation_checkpointing
        self.init_from: str | None = init_from
        self.has_started = random_start  # from there, or with a checkpoint, which holds it all
        self.is_divided = False  # among devices; then `splits` says how tensor parallelism has divided what, by name

    def setup(self, stage: str) -> None:
        """Refuse data that the backbone cannot read, and start from the weights asked for.

        Raises:
            ValueError: If the data has more ids or longer inputs than the backbone, or the weights do not fit.
        """
        if (data := getattr(self.trainer, "datamodule", None)) is not None:
            self.refuse_sizes(data.vocab_size, data.block_size)
        self.start(getattr(data, "new_ids", range(0)))
        if stage == "fit":
            self.choose_what_trains()

    @cached_property
    def stages(self) -> Stages:
        """What trains, and when.

        Raises:
            ValueError: As in `Stages`.
        """
        return Stages(self, self.trainable, self.uses_head)

    def choose_what_trains(self) -> None:
        """Let the parameters of this step and epoch ask for gradients, and no others.

        Raises:
            ValueError: As in `stages`; or if they change in a run on several devices.
        """
        if self._trainer is not None:
            self.stages.refuse_devices(self.trainer.world_size)
        for part in self._frozen:
            part.train(self.training)
        names = self.stages.at(self.global_step if self.unfreeze_by == "step" else self.current_epoch)
        self._trained, self._frozen = names, frozen_parts(self, names)
        set_gradients(self, names)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; frozen parts stay in eval mode, in which nothing drops out."""
        super().train(mode)
        for part in self._frozen if mode else ():
            part.eval()
        return self

    def refuse_sizes(self, vocab_size: int | None, block_size: int) -> None:
        """Refuse data that the backbone cannot read.

        Args:
            vocab_size: Ids of the tokenizer. None: only the text tells.
            block_size: Longest input in tokens.

        Raises:
            ValueError: If either is more than the backbone knows.
        """
        if vocab_size is not None and vocab_size > self.backbone.vocab_size:
            raise ValueError(
                f"the tokenizer has {vocab_size} ids and the backbone embeds "
                f"{self.backbone.vocab_size}; use the tokenizer that the backbone was made for"
            )
        if block_size > self.backbone.block_size:
            raise ValueError(
                f"--data.block_size {block_size} is beyond the backbone's block_size "
                f"{self.backbone.block_size}; lower it"
            )

    def start(self, new_ids: range = range(0)) -> Filled | None:
        """Take the weights of `init_from`, once; what became of them, or None if there was nothing to do.

        Weights that `takes_whole` are taken whole, others into the backbone alone.

        Args:
            new_ids: Ids that the weights do not know yet; their rows start at the mean of the others.

        Raises:
            ValueError: If they do not fit.
        """
        if self.init_from is None or self.has_started:
            return None
        source = open_source(self.init_from)
        whole = self.takes_whole(source)
        module, dtype = self if whole else self.backbone, next(self.backbone.parameters()).dtype
        filled = fill_grown(source, module, self.backbone, dtype, new_ids) if new_ids else source.fill(module, dtype)
        self.has_started = True
        for _, layer in adapted_layers(self):
            layer.reset_magnitude()
        own = [name for name, _ in self.named_parameters() if not (whole or name.startswith("backbone."))]
        return replace(filled, new=(*filled.new, *own))

    def takes_whole(self, source: Source) -> bool:
        """Whether more than the backbone is taken from a source: all that this class has written."""
        return source.module is type(self)

    def configure_model(self) -> None:
        """Divide the network among devices that share it, have the blocks recomputed and compiled, as asked.

        Names and checkpoints stay as they are.

        Raises:
            ValueError: If the strategy is one whose checkpoints would not fit, or the network cannot be divided.
        """
        mesh = None if self.is_divided else self.device_mesh  # once, though Lightning asks for each stage
        if self._trainer is not None and type(self.trainer.strategy) in MISNUMBERING:
            raise ValueError(
                f"{type(self.trainer.strategy).__name__} mixes up the states of the optimizer's groups when a run goes "
                "on; use lit_llm.training.strategies.ShardedStrategy (configs/overlays/fsdp.yaml)"
            )
        if mesh is not None:
            self._split(mesh["tensor_parallel"])
        self.backbone.recompute(self.recomputes)
        if self.compiles:
            self.compile_parts()
        if mesh is not None:
            self.is_divided = True
            if mesh["data_parallel"].size() > 1:
                shard(self, mesh["data_parallel"])

    def _split(self, mesh: DeviceMesh) -> None:
        """Begin with the same weights on every device, and leave to each its part of the matrices."""
        same_start(self, self.trainer.strategy.root_device)
        if mesh.size() > 1:
            self.splits = {f"backbone.{name}": how for name, how in split(self.backbone, mesh).items()}

    def compile_parts(self) -> None:
        """Compile block by block: equal blocks share their kernels, and what surrounds them needs no graph.

        Raises:
            ValueError: If the run is on a CPU and there is no compiler for it.
        """
        compiler = os.environ.get("CXX", "g++")
        on_cpu = self._trainer is not None and self.trainer.strategy.root_device.type == "cpu"
        if on_cpu and shutil.which(compiler) is None:
            raise ValueError(f"compile needs the C++ compiler '{compiler}' on a CPU; install it or name yours in CXX")
        for block in self.backbone.blocks:
            block.compile()

    def configure_optimizers(self) -> Any:
        """The optimizer over named groups, and its schedule by optimizer steps."""
        self.choose_what_trains()
        rest = (parameter for name, parameter in self.named_parameters() if not name.startswith("backbone."))
        ever = [parameter for name, parameter in self.named_parameters() if name in self.stages.ever]
        optimizer = self.optimizer(parameter_groups(self.backbone, rest, ever, self.layer_decay))
        # What fused optimizers say of themselves; Lightning then refuses to clip their gradients in mixed precision.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        for group in optimizer.param_groups:
            if not (math.isfinite(group["lr"]) and group["lr"] > 0):
                raise ValueError(f"the learning rate {group['lr']} cannot be: it is a positive number")
        scale_rates(optimizer)
        if self.lr_scheduler is None:
            return {"optimizer": optimizer}
        schedule = self.lr_scheduler(optimizer)
        if isinstance(schedule, Schedule) and schedule.max_steps is None and self._trainer is not None:
            schedule.end = self.trainer.estimated_stepping_batches
        return {"optimizer": optimizer, "lr_scheduler": when_to_step(schedule)}

    def on_fit_start(self) -> None:
        """Say what trains."""
        rank_zero_info(overview(self, self._trained, self.trainer.optimizers[0]))

    def on_train_start(self) -> None:
        """Begin with the rate of this schedule: a checkpoint brings that of its own, which may have ended earlier."""
        restart(self.lr_schedulers())

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Let train what is to train now, and draw anew: both are functions of the place, in a resumed run as well.

        Dropout is one of (seed, epoch, batch, rank).
        """
        if self.stages.at(self.global_step if self.unfreeze_by == "step" else self.current_epoch) != self._trained:
            self.choose_what_trains()
            if self._trainer is not None:
                self.on_fit_start()
        for part in self._frozen:
            if part.training:
                part.eval()
        place = (os.environ.get("PL_GLOBAL_SEED", 0), self.current_epoch, batch_idx, self.global_rank)
        digest = hashlib.blake2b(repr(place).encode(), digest_size=8).digest()
        torch.manual_seed(int.from_bytes(digest))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the tokenizer beside the weights: a checkpoint alone is enough to use; and how the data was split."""
        super().on_save_checkpoint(checkpoint)
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:
            checkpoint["tokenizer"] = data.tokenizer_state()
            checkpoint["split"] = getattr(data, "split_settings", dict)()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Know the weights by their own names, whatever had wrapped the module that saved them.

        Raises:
            ValueError: If a run that goes on trains other parameters than before.
        """
        checkpoint["state_dict"] = unwrapped(checkpoint["state_dict"])
        super().on_load_checkpoint(checkpoint)
        self.has_started = True
        before = checkpoint.get("hyper_parameters", {}).get("trainable")
        is_resumed = self._trainer is not None and self.trainer.training
        if is_resumed and Stages(self, before, self.uses_head).ever != self.stages.ever:
            raise ValueError(
                f"the checkpoint has the optimizer's state for trainable {before}, and the config says trainable "
                f"{self.trainable}; leave it as it was, or start a new run from these weights by --model.init_from"
            )
