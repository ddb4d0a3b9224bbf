"""Entry points for benchmarks of the training step: the project's own parts, in a bare loop and in Lightning's Trainer.

`make_train(shape, mode, get_batch)` returns a function that does one optimizer step, and the number of parameters;
`make_trainer(config, get_batch)` one that fits so many steps and returns seconds for each. Shapes are dicts of
L H C T B V; modes `fp32`, `fp32-c` (compiled), `bf16`, `bf16-c`.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, TQDMProgressBar
from torch import Tensor, nn
from torch.optim import AdamW

from lit_llm.backbone import GPT
from lit_llm.batch import Batch
from lit_llm.modules import LanguageModeling
from lit_llm.training.callbacks import Throughput
from lit_llm.training.checkpoints import LastCheckpoint
from lit_llm.training.logger import RunLogger
from lit_llm.training.losses import LinearCrossEntropy
from lit_llm.training.memory import APART, KEEP, KeepFreedMemory, tune_heap
from lit_llm.training.precision import MatmulPrecision, matmul_precision

LARGE_VOCABULARY = 8192  # ids from which on the logits weigh more than what a chunked loss costs
LARGE_BATCH = 2**18  # numbers in the stream of a batch from which on what MLPs keep weighs more than a call more
SHAPES = {  # those of which the Trainer's costs are measured
    "a": {"L": 4, "H": 4, "C": 128, "T": 64, "B": 12, "V": 65},
    "b": {"L": 6, "H": 6, "C": 384, "T": 256, "B": 8, "V": 512},
}
OPTIMIZER = partial(AdamW, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

GetBatch = Callable[[], tuple[Tensor, Tensor]]


def make_module(shape: dict[str, int], compiles: bool = False) -> LanguageModeling:
    """GPT-2's parts in a shape, with the loss that suits its vocabulary."""
    backbone = GPT(shape["V"], shape["T"], shape["L"], shape["H"], shape["C"])
    loss = LinearCrossEntropy if shape["V"] > LARGE_VOCABULARY else nn.CrossEntropyLoss
    is_large = shape["B"] * shape["T"] * shape["C"] >= LARGE_BATCH
    recomputes: Any = "mlp" if is_large and not compiles else False  # a compiler finds what is cheap to compute again
    return LanguageModeling(
        backbone, loss=loss, optimizer=OPTIMIZER, compile=compiles, activation_checkpointing=recomputes
    )


def make_train(
    shape: dict[str, int], mode: str, get_batch: GetBatch, device: str = "cpu"
) -> tuple[Callable[[], Tensor], dict[str, int]]:
    """A function that does forward, backward, clipping and AdamW, and returns the loss."""
    torch.set_float32_matmul_precision(matmul_precision(torch.device(device)))
    tune_heap(APART)
    module = make_module(shape, compiles=mode.endswith("-c")).to(device)
    module.configure_model()
    optimizer = module.configure_optimizers()["optimizer"]
    parameters = list(module.parameters())

    def step() -> Tensor:
        batch = Batch(*get_batch())
        with torch.autocast(device, torch.bfloat16, enabled="bf16" in mode):
            loss = module.total_loss(batch) / batch.targets.numel()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tune_heap(KEEP)
        return loss.detach()

    return step, {"params": module.backbone.num_parameters()}


class Batches(torch.utils.data.IterableDataset):
    """As many as are asked for."""

    def __init__(self, get_batch: GetBatch) -> None:
        self.get_batch = get_batch

    def __iter__(self) -> Any:
        while True:
            yield Batch(*self.get_batch())


class Clock(Callback):
    """When each step began."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Read it."""
        self.times.append(time.perf_counter())


def make_trainer(config: str, get_batch: GetBatch) -> Callable[[int], float]:
    """Seconds per step of shape a or b (`config`) under the Trainer that a config of this project makes."""
    loader = torch.utils.data.DataLoader(Batches(get_batch), batch_size=None)

    def run(steps: int) -> float:
        clock, warm = Clock(), 10
        callbacks = [clock, LastCheckpoint(), LearningRateMonitor(), TQDMProgressBar(refresh_rate=20)]
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                accelerator="cpu",
                max_steps=steps + warm + 1,
                gradient_clip_val=1.0,
                limit_val_batches=0,
                log_every_n_steps=10,
                logger=RunLogger(folder),
                enable_model_summary=False,
                callbacks=[*callbacks, MatmulPrecision(), KeepFreedMemory(), Throughput()],
            )
            trainer.fit(make_module(SHAPES[config]), loader, loader)
        return (clock.times[-1] - clock.times[warm]) / (len(clock.times) - 1 - warm)

    return run
