"""Times a fit from inside: a warmup, steps as they are, and steps split into their parts."""

import time
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from lit_llm.costs.device import forget_peak_memory, measured_peak, peak_memory, product_dtype, synchronize
from lit_llm.costs.split import SplitProfiler

WINDOWS = 5  # of the steps as they are; between them, the bare loop has its turns


class StepTimer(Callback):
    """Times the steps of a run that begins at step 0.

    Args:
        warmup_steps: Optimizer steps before the clock starts.
        steps: Optimizer steps that are timed as they are; as many follow that are split.
        profiler: The Trainer's.
        with_bare: Whether the same module also runs in a bare loop, in turns with the Trainer.
    """

    def __init__(self, warmup_steps: int, steps: int, profiler: SplitProfiler, with_bare: bool = False) -> None:
        self.warmup_steps, self.steps, self.profiler, self.with_bare = warmup_steps, steps, profiler, with_bare
        count = min(WINDOWS, steps)
        self._ends = [warmup_steps + steps * number // count for number in range(1, count + 1)]
        self._step, self._began = 0, 0.0
        self._bare_loop: BareLoop | None = None
        self.windows: list[float] = []  # seconds a step
        self.bare_windows: list[float] = []
        self.tokens = 0  # of one device, in the steps as they are
        self.seconds = self.split_seconds = 0.0  # of all of them
        self.peak_bytes = 0
        self.matmul_precision = ""  # of the run, as its peak: a callback sets it, and sets it back at the end
        self.peak_flops = 0.0

    @property
    def max_steps(self) -> int:
        """Optimizer steps in all."""
        return self.warmup_steps + 2 * self.steps

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Watch the memory from here; with no step to warm up, the clock starts here too."""
        forget_peak_memory(trainer.strategy.root_device)
        self._bare_loop = BareLoop(trainer, pl_module) if self.with_bare else None
        self._start(trainer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count a batch; begin and end what begins and ends after it."""
        timed = self.warmup_steps <= self._step < self.warmup_steps + self.steps
        self.tokens += batch.idx.numel() if timed else 0
        if trainer.global_step == self._step:  # gradients are being accumulated
            return
        self._step = trainer.global_step
        if self._step == self.warmup_steps:
            self._start(trainer)
        elif self._step in self._ends:
            self._end_window(trainer)
        elif self._step == self.max_steps:
            self.profiler.halt()
            self.split_seconds = time.perf_counter() - self._began
            self.peak_bytes = peak_memory(trainer.strategy.root_device)
            self.matmul_precision = torch.get_float32_matmul_precision()
            self.peak_flops = measured_peak(trainer.strategy.root_device, product_dtype(str(trainer.precision)))

    def _start(self, trainer: Any) -> None:
        synchronize(trainer.strategy.root_device)
        self._began = time.perf_counter()

    def _end_window(self, trainer: Any) -> None:
        synchronize(trainer.strategy.root_device)
        seconds = time.perf_counter() - self._began
        previous = [self.warmup_steps, *self._ends][self._ends.index(self._step)]
        steps = self._step - previous
        self.seconds += seconds
        self.windows.append(seconds / steps)
        if self._bare_loop is not None:
            self.bare_windows.append(self._bare_loop.run(steps) / steps)
        self._start(trainer)
        if self._step == self._ends[-1]:
            self.profiler.run(lambda: synchronize(trainer.strategy.root_device))


class BareLoop:
    """The loop that one would write by hand around the same module, optimizer and data.

    It lends the module's `training_step` from the Trainer, and writes nothing down.

    Args:
        trainer: In the middle of a fit.
        module: What it trains.

    Raises:
        ValueError: If the run needs more than such a loop has: several devices, or a scaler of the loss.
    """

    def __init__(self, trainer: Any, module: Any) -> None:
        if trainer.world_size > 1 or str(trainer.precision).startswith("16"):
            raise ValueError(
                f"--bare times one device without a scaler of the loss, not {trainer.world_size} devices in "
                f"precision {trainer.precision}; leave it out"
            )
        self.trainer, self.module = trainer, module
        self._batches = self._forever()

    def _forever(self) -> Iterator[Any]:
        loader = self.trainer.datamodule.train_dataloader()
        while True:
            yield from loader

    def run(self, steps: int) -> float:
        """Take steps; the seconds that they took."""
        device = self.trainer.strategy.root_device
        for name in ("log", "log_dict"):
            setattr(self.module, name, _nothing)
        synchronize(device)
        began = time.perf_counter()
        for _ in range(steps):
            self._step()
        synchronize(device)
        seconds = time.perf_counter() - began
        for name in ("log", "log_dict"):
            delattr(self.module, name)
        return seconds

    def _step(self) -> None:
        trainer, optimizer = self.trainer, self.trainer.optimizers[0]
        optimizer.zero_grad()
        for number in range(trainer.accumulate_grad_batches):
            batch = trainer.strategy.batch_to_device(next(self._batches))
            with trainer.precision_plugin.train_step_context():
                output = self.module.training_step(batch, number)
            (output["loss"] if isinstance(output, dict) else output).backward()
        if trainer.gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), trainer.gradient_clip_val)
        optimizer.step()
        for config in trainer.lr_scheduler_configs:
            config.scheduler.step()


def _nothing(*args: Any, **kwargs: Any) -> None:
    """What `self.log` does in a loop that logs nothing."""
