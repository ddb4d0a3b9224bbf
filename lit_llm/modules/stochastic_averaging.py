"""Lightning's `StochasticWeightAveraging`, with its average in the last checkpoint, and resumed where it stood."""

import warnings
from typing import Any

from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lit_llm.modules.averaged import copies, with_values


class ExactStochasticAverage(StochasticWeightAveraging):
    """What is mixed into a `StochasticWeightAveraging` callback.

    The average is of the weights at the beginning of each epoch from `swa_epoch_start` on. Validations and their
    checkpoints have the raw weights; the module has the average at the end, and so has the last checkpoint.
    """

    named: str  # by the user

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Begin a run.

        Raises:
            ValueError: If it has a single epoch, of which the average is the weights that it starts from.
        """
        self._raw: list[Tensor] | None = None  # once the module has the average
        self._began: int | None = None  # the epoch from which a checkpoint's average is
        self._average_model = None
        if stage != "fit":
            return
        if trainer.max_epochs == 1:
            raise ValueError(
                "StochasticWeightAveraging averages the weights at the beginning of epochs, and with "
                "--trainer.max_epochs 1 these are the initial ones; it must be at least 2"
            )
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Say what it does to the learning rate.

        Raises:
            ValueError: If the module is divided among devices, or a resumed run would have averaged from another epoch.
        """
        if pl_module.is_divided:
            raise ValueError(
                "StochasticWeightAveraging needs the whole weights on each device, and --trainer.strategy divides "
                "them; use ddp"
            )
        super().on_fit_start(trainer, pl_module)
        if self._began not in (None, self.swa_start):
            raise ValueError(
                f"swa_epoch_start must be {self._began + 1} in a run that goes on from an average from epoch "
                f"{self._began} on, got one that begins at epoch {self.swa_start}"
            )
        rank_zero_info(
            f"StochasticWeightAveraging: from epoch {self.swa_start} on (counted from 0) the learning rate goes to "
            f"{self._swa_lrs} within {self._annealing_epochs} epochs, in place of --model.lr_scheduler, and the run "
            "ends with the mean of the weights at the beginning of each of these epochs"
        )

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Go on in the middle of an epoch, where Lightning waits for the next one (2.6), with the rates as they are."""
        if self._scheduler_state is None or self._initialized:
            return
        groups = trainer.optimizers[0].param_groups
        rates = [group["lr"] for group in groups]
        self.on_train_epoch_start(trainer, pl_module)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Add the weights to the average; the schedule by steps makes way, which `on_fit_start` has said."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="SWA is currently only supported every epoch")
            super().on_train_epoch_start(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave the average in the module; the raw weights if there is none, or the run has ended early."""
        if not self.n_averaged or (self._max_epochs != -1 and trainer.current_epoch <= self.swa_end):
            rank_zero_warn(
                f"the run ended after {trainer.current_epoch} epochs, before StochasticWeightAveraging had its average "
                f"(from epoch {self.swa_start} to {self.swa_end}); the weights are those of the last step"
            )
            return
        self._raw = copies(pl_module.parameters())
        super().on_train_end(trainer, pl_module)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let the raw weights go."""
        self._raw = None

    def state_dict(self) -> dict[str, Any]:
        """The average, and from which epoch on it is."""
        return super().state_dict() | {"swa_start": self.swa_start if self.n_averaged else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state_dict)
        self._began = state_dict.get("swa_start")

    def fill(self, checkpoint: dict[str, Any], pl_module: Any) -> None:
        """Put the raw weights, which a longer run goes on from, beside the average."""
        if self._raw is not None and "callbacks" in checkpoint:
            raw = zip(pl_module.parameters(), self._raw, strict=True)
            checkpoint["current_model_state"] = with_values(checkpoint["state_dict"], pl_module, raw)

    def keep(self, checkpoint: dict[str, Any]) -> None:
        """Nothing: the callback's own state holds the average."""
