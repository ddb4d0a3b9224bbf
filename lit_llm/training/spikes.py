"""Steps whose loss jumps: told of, or left out."""

import sys
from collections import deque
from statistics import fmean
from typing import Any

from lightning.pytorch.callbacks import Callback


class LossSpikes(Callback):
    """Tells of optimizer steps whose loss is far above that of the steps before them, and leaves them out if asked to.

    PaLM (Chowdhery et al., 2022, https://arxiv.org/abs/2204.02311, section 5.1) met some twenty in a run, and went on
    without the batches around them. The number so far is logged as `train/loss_spikes`. On a GPU each step waits for
    its loss.

    Args:
        factor: A spike is a loss above `factor` times the mean of those before.
        window: Steps before that count, spikes not among them; until there are so many, nothing is a spike.
        skip: Whether the weights and the optimizer are left as they were at such a step.

    Raises:
        ValueError: If `factor` is not above 1, or `window` below 1.
    """

    logs = ("train/loss_spikes",)

    def __init__(self, factor: float = 3.0, window: int = 100, skip: bool = False) -> None:
        if not factor > 1:
            raise ValueError(f"factor {factor} makes a spike of every step; it is above 1")
        if window < 1:
            raise ValueError(f"window {window} cannot be: it is at least 1 step")
        self.factor, self.skip = factor, skip
        self.count = 0
        self._losses: deque[float] = deque(maxlen=window)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from."""
        return {"count": self.count, "losses": list(self._losses)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.count = state_dict["count"]
        self._losses.extend(state_dict["losses"])

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Compare the loss of this step with those before it."""
        loss, usual = float(pl_module.step_loss), fmean(self._losses or [0])
        if len(self._losses) < (self._losses.maxlen or 0) or not loss > self.factor * usual:
            self._losses.append(loss)
        else:
            self.count += 1
            if trainer.is_global_zero:
                said = f"loss spike at step {trainer.global_step + 1}: {loss:.4g} after {usual:.4g}"
                print(f"{said}; the step is left out" if self.skip else said, file=sys.stderr)
            if self.skip:
                optimizer.zero_grad()  # without gradients no optimizer moves anything, weight decay included
        if pl_module.logs_now:
            pl_module.log("train/loss_spikes", float(self.count))
