"""What all modules share: the backbone, its optimizer, and what goes into a checkpoint."""

import hashlib
import math
import os
import shutil
import warnings
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.utils import clip_grads_with_norm_
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lit_llm.backbone import GPT
from lit_llm.training.optim import Schedule, parameter_groups
from lit_llm.training.parallel import gradient_norm, same_start, shard
from lit_llm.training.tensor_parallel import Split, split
from lit_llm.weights.checkpoint import unwrapped
from lit_llm.weights.open import open_source
from lit_llm.weights.source import Filled

MISNUMBERING = (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
)  # optimizer states, if in groups (lightning 2.6)


class BaseModule(L.LightningModule):
    """A system around one backbone.

    Args:
        backbone: The network.
        optimizer: Called with named parameter groups; weight decay reaches matrices and embeddings only.
        lr_scheduler: Called with the optimizer; stepped after each optimizer step. None: constant rates.
        compile: Whether `torch.compile` makes kernels of the blocks: minutes at the start for faster steps on a GPU.
        activation_checkpointing: Whether a block keeps nothing but its input for the backward pass and computes the
            rest again there (Chen et al., 2016, https://arxiv.org/abs/1604.06174): a third more time, less memory.
        init_from: Weights to start from: a model of the Hugging Face hub (`openai-community/gpt2`), a folder of one, or
            a checkpoint of any task. On the command line architecture and tokenizer come from there as well. A run
            that goes on (--ckpt_path) reads nothing there. None: random weights.
    """

    def __init__(
        self,
        backbone: GPT,
        optimizer: OptimizerCallable = AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        compile: bool = False,
        activation_checkpointing: bool = False,
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        with warnings.catch_warnings():
            # Lightning's advice for a part made in Python, to ignore it, comes before it is left out here.
            warnings.filterwarnings("ignore", message="Attribute '.*' is an instance of `nn.Module`")
            self.save_hyperparameters(ignore=["backbone"], logger=False)  # which would be copied
            if "_instantiator" in self.hparams:  # built from a config: these are its plain values
                self.save_hyperparameters(logger=False)
            else:
                # Objects do not belong into a checkpoint that is to load safely; load_from_checkpoint wants them again.
                objects = [k for k, v in self.hparams.items() if not isinstance(v, int | float | str | None)]
                self.save_hyperparameters(ignore=["backbone", *objects], logger=False)
        self.backbone, self.optimizer, self.lr_scheduler = backbone, optimizer, lr_scheduler
        self.compiles, self.recomputes = compile, activation_checkpointing
        self.init_from: str | None = init_from
        self.has_started = False  # from there, or with a checkpoint, which holds it all
        self._sums = torch.zeros(2)  # losses and targets of an optimizer step
        self._divisor: Tensor | None = None  # of the gradients after this backward pass
        self.is_divided = False  # among devices; then `splits` says how tensor parallelism has divided what, by name
        self.splits: dict[str, Split] = {}

    def setup(self, stage: str) -> None:
        """Refuse data that the backbone cannot read, and start from the weights asked for.

        Raises:
            ValueError: If the data has more ids or longer inputs than the backbone, or the weights do not fit.
        """
        if (data := getattr(self.trainer, "datamodule", None)) is not None:
            self.refuse_sizes(data.vocab_size, data.block_size)
        self.start()

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

    def start(self) -> Filled | None:
        """Take the weights of `init_from`, once; what became of them, or None if there was nothing to do.

        Weights that this class has written are taken whole, others into the backbone alone.

        Raises:
            ValueError: If they do not fit.
        """
        if self.init_from is None or self.has_started:
            return None
        source = open_source(self.init_from)
        whole = source.module is type(self)
        filled = source.fill(self if whole else self.backbone, next(self.backbone.parameters()).dtype)
        self.has_started = True
        own = [name for name, _ in self.named_parameters() if not (whole or name.startswith("backbone."))]
        return replace(filled, new=(*filled.new, *own))

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
        self.backbone.recomputes = self.recomputes
        if self.compiles:
            self._compile_blocks()
        if mesh is not None:
            self.is_divided = True
            if mesh["data_parallel"].size() > 1:
                shard(self, mesh["data_parallel"])

    def _split(self, mesh: DeviceMesh) -> None:
        """Begin with the same weights on every device, and leave to each its part of the matrices."""
        same_start(self, self.trainer.strategy.root_device)
        if mesh.size() > 1:
            self.splits = {f"backbone.{name}": how for name, how in split(self.backbone, mesh).items()}

    def _compile_blocks(self) -> None:
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

    def gradient_norm(self) -> Tensor:
        """Euclidean norm of all gradients, on all devices that share the network."""
        mesh = self.device_mesh["tensor_parallel"] if self.splits and self.device_mesh is not None else None
        return gradient_norm(self.named_parameters(), self.splits, mesh)

    def configure_optimizers(self) -> Any:
        """The optimizer over named groups, and its schedule by optimizer steps."""
        rest = (parameter for name, parameter in self.named_parameters() if not name.startswith("backbone."))
        optimizer = self.optimizer(parameter_groups(self.backbone, rest))
        # What fused optimizers say of themselves; Lightning then refuses to clip their gradients in mixed precision.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        for group in optimizer.param_groups:
            if not (math.isfinite(group["lr"]) and group["lr"] > 0):
                raise ValueError(f"the learning rate {group['lr']} cannot be: it is a positive number")
        if self.lr_scheduler is None:
            return {"optimizer": optimizer}
        schedule = self.lr_scheduler(optimizer)
        if isinstance(schedule, Schedule) and schedule.max_steps is None and self._trainer is not None:
            schedule.end = self.trainer.estimated_stepping_batches
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Begin with the rate of this schedule: a checkpoint brings that of its own, which may have ended earlier."""
        schedule = self.lr_schedulers()
        if isinstance(schedule, LambdaLR):
            factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
            for group, base, factor in zip(schedule.optimizer.param_groups, schedule.base_lrs, factors, strict=True):
                group["lr"] = base * factor

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Draw anew for each batch: dropout is a function of (seed, epoch, batch, rank), in a resumed run as well."""
        place = (os.environ.get("PL_GLOBAL_SEED", 0), self.current_epoch, batch_idx, self.global_rank)
        digest = hashlib.blake2b(repr(place).encode(), digest_size=8).digest()
        torch.manual_seed(int.from_bytes(digest))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the tokenizer beside the weights: a checkpoint alone is enough to use the model."""
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:
            checkpoint["tokenizer"] = data.tokenizer_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Know the weights by their own names, whatever had wrapped the module that saved them."""
        checkpoint["state_dict"] = unwrapped(checkpoint["state_dict"])
        self.has_started = True

    @torch.compiler.disable  # `self.log` cannot be compiled, should somebody compile the whole module
    def share_of_step(self, total: Tensor, count: Tensor, batch_idx: int) -> Tensor:
        """What a batch adds to the mean loss of its optimizer step, in which each target weighs the same.

        Lightning divides by the batches of a step and averages over the ranks, whatever each of them holds
        (https://github.com/Lightning-AI/pytorch-lightning/issues/20350); here both are undone. Of several batches, how
        many targets they have together is known after the last one: `on_after_backward` divides by it.

        Args:
            total: Sum of the losses of the batch.
            count: Number of its targets.
            batch_idx: Number of the batch in its epoch.
        """
        batches, ranks = self.trainer.accumulate_grad_batches, self.trainer.world_size
        own = torch.stack([total.detach(), count.to(total.dtype)])
        self._sums = own if batch_idx % batches == 0 else self._sums + own
        self._divisor = None
        if (batch_idx + 1) % batches and not self.trainer.is_last_batch:
            return total * (batches * ranks)
        if ranks > 1:
            torch.distributed.all_reduce(self._sums)
        if self.logs_now:
            self.log("train/loss", self.step_loss, prog_bar=True)
        targets = self._sums[1].clamp(min=1)
        if batches == 1:
            return total * (ranks / targets)
        self._divisor = targets
        return total * (batches * ranks)

    def on_after_backward(self) -> None:
        """Divide the gradients of several batches by all their targets."""
        if self._divisor is not None:
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad.div_(self._divisor)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Log the norm of the gradients, refuse what would ruin the weights, and clip: one pass for all three.

        Raises:
            FloatingPointError: If the loss or a gradient is infinite or NaN; nothing has been updated yet.
        """
        norm = self.gradient_norm()
        if self.logs_now:
            self.log("train/gradient_norm", norm)
        leaves_out = self.trainer.scaler is not None  # of float16: such a step is left out, and the scale lowered
        if not (leaves_out or torch.isfinite(norm + self._sums[0])):
            raise FloatingPointError(
                f"the loss is {self.step_loss:.4g} and the norm of the gradients {norm:.4g} at step "
                f"{self.global_step + 1}; the weights were not updated"
            )
        if gradient_clip_val and gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            clip_grads_with_norm_(self.parameters(), gradient_clip_val, norm)

    @property
    def step_loss(self) -> Tensor:
        """Mean loss over the targets of this optimizer step, on all devices; known once its gradients are."""
        return self._sums[0] / self._sums[1].clamp(min=1)  # none: a loss of 0, where a mean would be NaN

    @property
    def logs_now(self) -> bool:
        """Whether this step's values reach the logger; `self.log` on every step would cost more than the loop."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return (self.global_step + 1) % every == 0
