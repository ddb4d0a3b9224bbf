"""The precision of fp32 products during a run."""

from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from lit_llm.backbone.attention_kernels import CPU_MULTIPLIES_BFLOAT16
from lit_llm.training.float32 import Precision, matmul_precision


class MatmulPrecision(Callback):
    """Multiplies matrices of fp32 as fast as this machine can without harm, and logs the choice.

    It holds for the run alone: afterwards the process multiplies as before.

    Args:
        precision: `highest`, `high` or `medium`, as for `torch.set_float32_matmul_precision`. None: what suits the
            device.

    Raises:
        ValueError: If `precision` is another word.
    """

    def __init__(self, precision: Precision | None = None) -> None:
        if precision not in (None, "highest", "high", "medium"):
            raise ValueError(f"precision '{precision}' is none of torch's; choose highest, high or medium, or null")
        self.precision = precision
        self._before: str | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Choose and set."""
        device = trainer.strategy.root_device
        chosen = self.precision or matmul_precision(device)
        self._before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(chosen)
        why = f"for this {device.type}" if self.precision is None else "as asked"
        rank_zero_info(f"fp32 matrix products: '{chosen}', {why}")
        if device.type == "cpu" and not CPU_MULTIPLIES_BFLOAT16 and str(trainer.precision).startswith("bf16"):
            rank_zero_info(f"this CPU emulates bfloat16: precision {trainer.precision} is slower than 32-true here")

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Set back."""
        if self._before is not None:
            torch.set_float32_matmul_precision(self._before)
            self._before = None

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Set back after a failure too."""
        self.teardown(trainer, pl_module, "")
