"""The learning rate as one number, which Lightning's LearningRateFinder looks for and sets."""

import lightning as L
from torch.optim.lr_scheduler import LambdaLR


class FoundRate(L.LightningModule):
    """A module whose optimizer has one learning rate."""

    @property
    def lr(self) -> float | None:
        """The rate before any schedule; None outside a training."""
        if self._trainer is None or not self.trainer.optimizers:
            return None
        group = self.trainer.optimizers[0].param_groups[0]
        return group.get("initial_lr", group["lr"])

    @lr.setter
    def lr(self, rate: float) -> None:
        """Set it in the optimizer, in its schedule, and in the settings that checkpoints carry."""
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate
            if "initial_lr" in group:  # where there is a schedule
                group["initial_lr"] = rate
        schedule = self.lr_schedulers()
        if isinstance(schedule, LambdaLR):
            schedule.base_lrs = [rate for _ in schedule.base_lrs]
        if isinstance(optimizer := self.hparams.get("optimizer"), dict):
            optimizer.setdefault("init_args", {})["lr"] = rate
