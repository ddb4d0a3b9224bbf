"""What a module needs of Lightning's own callbacks: averages of the weights, schedules stepped at validations."""

import sys
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Callback, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.utilities import rank_zero_info
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_llm.modules.averaged import ExactAverage
from lit_llm.modules.stochastic_averaging import ExactStochasticAverage
from lit_llm.training.loop_counts import leave_open
from lit_llm.weights.checkpoint import unwrapped

Averaging = ExactAverage | ExactStochasticAverage
MIXED_INTO: dict[type[Callback], type[Callback]] = {
    WeightAveraging: ExactAverage,
    StochasticWeightAveraging: ExactStochasticAverage,
}
NEVER = sys.maxsize  # as the frequency of a schedule that Lightning's loops leave alone


class LightningCallbacks(L.LightningModule):
    """The part of a module that makes the Trainer's callbacks agree with its checkpoints."""

    averaging: Averaging | None = None  # the callback that averages its weights

    def configure_callbacks(self) -> list[Callback]:
        """Mend what does not agree, whatever class of one's own it is; a callback that steps plateau schedules.

        Raises:
            ValueError: If several callbacks average the weights.
        """
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        found = [(each, mixin) for each in callbacks for kind, mixin in MIXED_INTO.items() if isinstance(each, kind)]
        if len(found) > 1:
            names = " and ".join(getattr(each, "named", type(each).__name__) for each, _ in found)
            raise ValueError(f"--trainer.callbacks must have one callback that averages the weights, got {names}")
        self.averaging = None
        for callback, mixin in found:
            mix(mixin, callback)
            self.averaging = cast("Averaging", callback)
        is_new = self.trainer.state.fn == "fit" and not any(isinstance(each, PlateauSteps) for each in callbacks)
        return [PlateauSteps()] if is_new else []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let a checkpoint hold the averaged weights, and what a resumed run needs beside them."""
        if self.averaging is not None:
            checkpoint["averaged_by"] = self.averaging.state_key
            self.averaging.fill(checkpoint, self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let a run that goes on have the raw weights, and its callback the average; all else has the average.

        Raises:
            ValueError: If the run of the checkpoint averages its weights, and this one does not, or by other means.
        """
        if self._trainer is None or self.trainer.state.fn != "fit":
            return
        if "loops" in checkpoint:  # whoever wrote it
            leave_open(checkpoint["loops"]["fit_loop"])
        was, now = checkpoint.get("averaged_by"), self.averaging
        if was is not None and (now is None or was != now.state_key):
            raise ValueError(
                f"the run of the checkpoint averages its weights by {was}, and --trainer.callbacks has "
                f"{now.named if now else 'no such callback'}; name {was} there, or start a new run from the "
                "averaged weights by --model.init_from"
            )
        if now is not None and was is None:
            rank_zero_info(f"{now.named}: the checkpoint holds no average; it begins in this run")
        if now is not None:
            now.keep(dict(checkpoint))
        if (raw := checkpoint.get("current_model_state")) is not None:
            checkpoint["state_dict"] = unwrapped(raw)


def mix(mixin: type[Callback], callback: Any) -> None:
    """Give an object the methods of a class before those of its own; the name of its state stays."""
    own = type(callback)
    if not isinstance(callback, mixin):
        # Not the name of the class: one that is said in short on the command line would have two meanings from then on.
        key = own.__qualname__ if own.state_key is Callback.state_key else own.state_key
        names = {"__module__": __name__, "__doc__": own.__doc__, "state_key": key, "named": own.__name__}
        callback.__class__ = type(f"_Exact{own.__name__}", (mixin, own), names)


class PlateauSteps(Callback):
    """Steps schedules that follow a logged value, once at the end of each validation, before checkpoints are written.

    Lightning would at the end of an epoch, which a run by steps may never reach, after the checkpoint of its
    validation.
    """

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Look whether the value still gets better.

        Raises:
            ValueError: If it is not logged.
        """
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        for config in trainer.lr_scheduler_configs:
            if not config.reduce_on_plateau:
                continue
            values = trainer.callback_metrics
            if config.monitor not in values:
                raise ValueError(
                    f"--model.lr_scheduler.monitor must be a logged value ({', '.join(sorted(values))}), got "
                    f"'{config.monitor}'"
                )
            pl_module.lr_scheduler_step(config.scheduler, values[config.monitor])


def when_to_step(schedule: Any) -> dict[str, Any]:
    """A schedule and when it is stepped: after each optimizer step, or by `PlateauSteps`.

    Raises:
        ValueError: If it follows a value and does not say which.
    """
    if not isinstance(schedule, ReduceLROnPlateau):
        return {"scheduler": schedule, "interval": "step"}
    if (monitor := getattr(schedule, "monitor", None)) is None:
        raise ValueError(
            "--model.lr_scheduler must say which value it follows: lightning.pytorch.cli.ReduceLROnPlateau with "
            "--model.lr_scheduler.monitor val/loss, got torch's ReduceLROnPlateau"
        )
    return {"scheduler": schedule, "monitor": monitor, "interval": "epoch", "frequency": NEVER, "strict": False}
