"""Parts that the tests of Lightning's settings name on the command line: one that notes what it sees, and functions."""

from typing import Any, ClassVar

import torch
from lightning.pytorch.callbacks import BackboneFinetuning, BasePredictionWriter, Callback


class Spy(Callback):
    """Notes what happens in a run; `seen` is that of the last one."""

    seen: ClassVar[dict[str, Any]] = {}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        type(self).seen = {"steps": 0, "val": [], "test": 0, "predict": 0, "sane": 0, "rows": [], "moved": []}
        self.seen |= {"accumulated": []}
        self.before: torch.Tensor | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.seen["start"] = {name: value.clone() for name, value in pl_module.state_dict().items()}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen["rows"].append((batch[0].clone(), batch[1].clone()))
        self.seen["accumulated"].append(trainer.accumulate_grad_batches)
        self.seen["anomaly"], self.seen["exact"] = (
            torch.is_anomaly_enabled(),
            torch.are_deterministic_algorithms_enabled(),
        )
        self.seen["benchmark"] = torch.backends.cudnn.benchmark
        weight = next(pl_module.parameters())
        self.seen["dtype"], self.before = weight.dtype, weight.detach().clone()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen["steps"], self.seen["epoch"] = trainer.global_step, trainer.current_epoch
        self.seen["moved"].append(float((next(pl_module.parameters()).detach() - self.before).abs().max()))

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if trainer.sanity_checking:
            self.seen["sane"] += 1
        else:
            self.seen["val"].append(trainer.global_step)
            self.seen["inference"] = torch.is_inference_mode_enabled()

    def on_test_batch_end(self, *args: Any) -> None:
        self.seen["test"] += 1

    def on_predict_batch_end(self, *args: Any) -> None:
        self.seen["predict"] += 1


class Freezes(BackboneFinetuning):
    """A class made from one that cannot work here."""


class Writes(BasePredictionWriter):
    """Notes the shapes of predictions."""

    shapes: ClassVar[list[tuple[int, ...]]] = []

    def __init__(self) -> None:
        super().__init__("batch")

    def write_on_batch_end(self, trainer: Any, pl_module: Any, prediction: Any, *args: Any) -> None:
        self.shapes.append(tuple(prediction.shape))


def rows_of(batch: Any) -> int:
    """For ThroughputMonitor."""
    return len(batch[0])


def says(trainer: Any, pl_module: Any) -> None:
    """For LambdaCallback."""
    print("a function of one's own was called")
