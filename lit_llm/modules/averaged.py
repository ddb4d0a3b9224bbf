"""Lightning's `WeightAveraging` callbacks, exact: checkpoints, tests and resumed runs agree on what the average is."""

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def trained(module: Any) -> dict[str, nn.Parameter]:
    """The parameters that train, now or later, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if name in module.stages.ever}


def copies(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Ordinary tensors of the same values, also while a validation runs in inference mode."""
    with torch.inference_mode(False):
        return [parameter.detach().clone() for parameter in parameters]


def put(values: Iterable[Tensor], parameters: Iterable[nn.Parameter]) -> None:
    """Give parameters other values."""
    with torch.inference_mode(False), torch.no_grad():
        for value, parameter in zip(values, parameters, strict=True):
            parameter.copy_(value)


def with_values(state: dict[str, Any], module: nn.Module, values: Iterable[tuple[nn.Parameter, Tensor]]) -> dict:
    """A state of a module with other values of some parameters, under each name that a tied one has."""
    by_parameter = {id(parameter): value.detach() for parameter, value in values}
    names = {name: id(value) for name, value in module.state_dict(keep_vars=True).items()}
    return {name: by_parameter.get(names.get(name, 0), value) for name, value in state.items()}


class TrainedAverage(AveragedModel):
    """An average of the parameters that train, in fp32 where they have fewer bits; frozen ones are their own average.

    Args:
        module: Whose parameters.
        device: Where it is kept.
        **kwargs: Those of torch's `AveragedModel`, but for `use_buffers`.
    """

    def __init__(self, module: nn.Module, device: Any, **kwargs: Any) -> None:
        super().__init__(self._chosen(module), device, **kwargs)

    def update_parameters(self, model: nn.Module) -> None:
        """Add the weights of a module."""
        super().update_parameters(self._chosen(model))

    @property
    def has_begun(self) -> bool:
        """Whether any weights have been added."""
        return bool(self.n_averaged)

    def _chosen(self, module: nn.Module) -> nn.ParameterList:
        # A decay of 0.999 moves a number of 8 bits by less than its last one: it would stand still.
        return nn.ParameterList(p.detach().float() if p.itemsize < 4 else p for p in trained(module).values())


class ExactAverage(WeightAveraging):
    """What is mixed into a `WeightAveraging` callback, Lightning's `EMAWeightAveraging` or a subclass of one's own.

    It averages what trains and nothing else; buffers stay as they are. From the first update on, validations, what
    happens around them, checkpoints, and the end of the run have the average; the steps have the raw weights.
    """

    named: str  # by the user

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Forget the run before: a test scores the weights that it loads."""
        self._average_model: TrainedAverage | None = None
        self._raw: list[Tensor] | None = None  # while the module has the average
        self._kept: dict[str, Any] | None = None  # what a checkpoint has brought

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin, or go on with the average of a checkpoint.

        Raises:
            ValueError: If the module is divided among devices.
        """
        if pl_module.is_divided:
            raise ValueError(
                f"{self.named} needs the whole weights on each device, and --trainer.strategy divides them; use ddp"
            )
        average = TrainedAverage(pl_module, self._device or pl_module.device, **self._kwargs)
        if self._kept is not None:
            average.n_averaged.copy_(self._kept["averaging_state"]["n_averaged"])
            put((self._kept["state_dict"][each] for each in trained(pl_module)), average.module.parameters())
            self._kept = None
        self._average_model = average
        rank_zero_info(f"{self.named}: validations and checkpoints have the averaged weights{self._when()}")

    def _when(self) -> str:
        """From when on an `EMAWeightAveraging` averages; nothing of others, which decide by themselves."""
        try:
            every, step, epoch = (
                getattr(self, f"update_{name}") for name in ("every_n_steps", "starting_at_step", "starting_at_epoch")
            )
        except AttributeError:
            return ""
        by_step = f"every {every} steps from step {step or 0} on" if every > 0 else ""
        by_epoch = f"after each whole epoch from epoch {epoch} on" if epoch is not None else ""
        return f", updated {' and '.join(filter(None, (by_step, by_epoch))) or 'never'}"

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Go on with the raw weights."""
        self._take_back(pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Update after a whole epoch; one that the end of the run cuts short goes on in a longer run."""
        self._take_back(pl_module)
        if trainer.is_last_batch:
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Validate the average; what follows a validation, such as samples of text, has it as well."""
        self._lend(pl_module)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Nothing: the next step takes the raw weights back."""

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave the average in the module."""
        self._lend(pl_module)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let the raw weights go."""
        self._raw = None

    def _lend(self, pl_module: Any) -> None:
        average = self._average_model
        if average is not None and average.has_begun and self._raw is None:
            parameters = trained(pl_module).values()
            self._raw = copies(parameters)
            put(average.module.parameters(), parameters)

    def _take_back(self, pl_module: Any) -> None:
        if self._raw is not None:
            put(self._raw, trained(pl_module).values())
            self._raw = None

    def state_dict(self) -> dict[str, Any]:
        """When the average was updated last."""
        return {"latest_update_step": self._latest_update_step, "latest_update_epoch": self._latest_update_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there; Lightning's own state says nothing of epochs (2.6)."""
        super().load_state_dict(state_dict)
        self._latest_update_epoch = state_dict.get("latest_update_epoch", self._latest_update_epoch)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Nothing: the module calls `fill`, also for a checkpoint of weights alone."""

    def fill(self, checkpoint: dict[str, Any], pl_module: Any) -> None:
        """Put the average in the place of the weights, and beside it what a resumed run needs."""
        if (average := self._average_model) is None or not average.has_begun:
            return
        parameters, state = trained(pl_module).values(), checkpoint["state_dict"]
        averaged = zip(parameters, average.module.parameters(), strict=True)
        checkpoint["state_dict"] = with_values(state, pl_module, averaged)
        if "callbacks" in checkpoint:  # else a checkpoint of weights alone
            raw = zip(parameters, self._raw or parameters, strict=True)
            checkpoint["current_model_state"] = with_values(state, pl_module, raw)
            checkpoint["averaging_state"] = {"n_averaged": average.n_averaged}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Nothing: the module calls `keep` before it loads the raw weights."""

    def keep(self, checkpoint: dict[str, Any]) -> None:
        """Keep the average of a checkpoint, until the module is on its device."""
        if "averaging_state" in checkpoint:
            self._kept = {name: checkpoint[name] for name in ("state_dict", "averaging_state")}
