"""Devices that share one network, instead of a copy on each: Lightning's strategy, with checkpoints of one device."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from lit_llm.training.tensor_parallel import Split

# To these a piece of a matrix is as good as a whole one.
ELEMENTWISE = (Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop, SGD)


class ShardedStrategy(ModelParallelStrategy):
    """Divides weights, gradients and optimizer state among devices: sharded (FSDP2), by tensor parallelism, or both.

    A checkpoint is the one file that a run on one device writes, so that a run goes on, and a model is used, on any
    number of devices by any strategy.

    Args:
        tensor_parallel_size: Devices that share each matrix product; best within a machine, for they talk in every
            layer. The others are sharded over. 1: all are.
        timeout: How long a device waits for the others before the run fails.

    Raises:
        ValueError: If `tensor_parallel_size` is below 1; on start, if the number of devices is no multiple of it.
    """

    def __init__(self, tensor_parallel_size: int = 1, timeout: timedelta = timedelta(minutes=30)) -> None:
        if tensor_parallel_size < 1:
            raise ValueError(f"tensor_parallel_size {tensor_parallel_size} cannot be: it is at least 1")
        super().__init__(1, tensor_parallel_size, save_distributed_checkpoint=False, timeout=timeout)
        self.tensor_parallel_size = tensor_parallel_size

    def setup_environment(self) -> None:
        """Lay out the devices: those of tensor parallelism side by side.

        Raises:
            ValueError: If the number of devices is no multiple of `tensor_parallel_size`.
        """
        devices = self.num_nodes * self.num_processes
        if devices % self.tensor_parallel_size:
            raise ValueError(
                f"tensor_parallel_size {self.tensor_parallel_size} does not divide {devices} devices; "
                "change one of them"
            )
        self._data_parallel_size = devices // self.tensor_parallel_size
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether Lightning hands the optimizer's state over: here it does, as for one device."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole weights on rank 0; every rank takes part."""
        assert self.lightning_module is not None
        return {name: self._whole(value, name) for name, value in self.lightning_module.state_dict().items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state on rank 0, numbered as on one device; every rank takes part."""
        optimizer = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        whole = optimizer.state_dict()
        for parameters, state in _states(optimizer, whole):
            for number, values in state.items():
                name = self._names[parameters[number]]
                state[number] = {key: self._whole(value, name) for key, value in values.items()}
        return whole

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the file, on every rank."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this rank's part of whole weights."""
        module = self.lightning_module
        assert module is not None
        own = module.state_dict()
        weights = {name: self._own(value, name, own.get(name)) for name, value in checkpoint["state_dict"].items()}
        module.load_state_dict(weights, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this rank's part of a whole state."""
        for optimizer, whole in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            for parameters, state in _states(optimizer, whole):
                for number, values in state.items():
                    like = parameters[number]
                    state[number] = {key: self._own(value, self._names[like], like) for key, value in values.items()}
            optimizer.load_state_dict(whole)

    def setup_optimizers(self, trainer: Any) -> None:
        """Make the optimizers, of the pieces.

        Raises:
            ValueError: If one looks at whole matrices, of which tensor parallelism leaves it a piece.
        """
        super().setup_optimizers(trainer)
        for optimizer in self.optimizers if self._is_split else ():
            if type(optimizer) not in ELEMENTWISE:
                known = ", ".join(kind.__name__ for kind in ELEMENTWISE)
                raise ValueError(
                    f"{type(optimizer).__name__} may look at whole matrices, and tensor parallelism leaves it a piece "
                    f"of each; use one of {known}, or tensor_parallel_size 1"
                )
        # Now, while each is one of the optimizer's: a module that computes holds gathered ones in their place.
        assert self.lightning_module is not None
        self._names = {parameter: name for name, parameter in self.lightning_module.named_parameters()}

    @property
    def _is_split(self) -> bool:
        return self.tensor_parallel_size > 1

    @property
    def _splits(self) -> dict[str, Split]:
        return getattr(self.lightning_module, "splits", {})

    def _whole(self, value: Any, name: str) -> Any:
        """A tensor as it would be on one device, on the CPU of rank 0; every rank takes part, and keeps nothing."""
        if not isinstance(value, Tensor):
            return value
        value = value.full_tensor() if isinstance(value, DTensor) else value.detach()
        if name in self._splits and value.ndim:
            mesh = self.device_mesh["tensor_parallel"]
            pieces = [torch.empty_like(value) for _ in range(mesh.size())]
            dist.all_gather(pieces, value.contiguous(), group=mesh.get_group())
            value = self._splits[name].joined(pieces)
        return value.cpu() if self.is_global_zero else None

    def _own(self, value: Any, name: str, like: Tensor | None) -> Any:
        """This rank's part of a whole tensor, laid out like another one."""
        if not isinstance(value, Tensor) or not value.ndim:
            return value
        if name in self._splits:
            mesh = self.device_mesh["tensor_parallel"]
            value = self._splits[name].piece(value, mesh.get_local_rank(), mesh.size())
        if isinstance(like, DTensor) and value.shape == like.shape:
            value = distribute_tensor(value.to(self.root_device), like.device_mesh, like.placements, src_data_rank=None)
        return value


def _states(optimizer: Optimizer, state: dict[str, Any]) -> Iterator[tuple[list[nn.Parameter], dict[int, Any]]]:
    """Parameters and numbered states; several of both if it is made of several optimizers."""
    for name, inner in getattr(optimizer, "parts", {}).items():
        yield from _states(inner, state[name])
    if "state" in state:
        yield [parameter for group in optimizer.param_groups for parameter in group["params"]], state["state"]
