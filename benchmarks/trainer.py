"""Entry point for benchmarks of the training loop: the project's module in the Trainer that its configs make.

`make_trainer(config, get_batch)` returns a function that fits so many steps of a shape, and returns seconds for each.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, TQDMProgressBar
from torch.optim import AdamW
from torch.utils.data import DataLoader, IterableDataset
from train import GetBatch, make_network

from lit_llm.batch import Batch
from lit_llm.modules import LanguageModeling
from lit_llm.training.callbacks import Throughput
from lit_llm.training.checkpoints import LastCheckpoint
from lit_llm.training.logger import RunLogger
from lit_llm.training.memory import KeepFreedMemory
from lit_llm.training.precision import MatmulPrecision

SHAPES = {
    "a": {"L": 4, "H": 4, "C": 128, "T": 64, "B": 12, "V": 65},
    "b": {"L": 6, "H": 6, "C": 384, "T": 256, "B": 8, "V": 512},
}
OPTIMIZER = partial(AdamW, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)


class Batches(IterableDataset):
    """As many as are asked for."""

    def __init__(self, get_batch: GetBatch) -> None:
        self.get_batch = get_batch

    def __iter__(self) -> Iterator[Batch]:
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
    loader, shape = DataLoader(Batches(get_batch), batch_size=None), SHAPES[config]

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
            trainer.fit(LanguageModeling(make_network(shape), optimizer=OPTIMIZER), loader, loader)
        return (clock.times[-1] - clock.times[warm]) / (len(clock.times) - 1 - warm)

    return run
