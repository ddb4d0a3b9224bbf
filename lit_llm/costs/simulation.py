"""A training step without data or arithmetic, and the memory that it would hold.

The tensors are torch's fake ones: they live on the meta device and know shape, dtype and the device they stand for, so
that a kernel is chosen, autocast casts and autograd saves as they do in earnest. What is counted is therefore true for
every part that somebody swaps in.
"""

import weakref
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class StepMemory(NamedTuple):
    """Bytes that a training step holds; the sum is its peak."""

    weights: int  # and buffers
    gradients: int
    optimizer: int
    activations: int  # saved for the backward pass by all that comes before the logits
    logits: int  # with the loss, and whatever else is alive only for a moment

    @property
    def total(self) -> int:
        """The peak."""
        return sum(self)


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of the storages made inside it, for as long as each is alive.

    Args:
        known: Tensors from outside, of which a view is nothing new.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = {id(storage): storage for storage in (tensor.untyped_storage() for tensor in known)}
        self._alive: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._alive or key in self._known:  # a view
            return

        def forget(_: Any) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, forget)
        self.now += size
        self.peak = max(self.peak, self.now)


def make_fake(module: nn.Module) -> None:
    """Turn the parameters and buffers of a module on the meta device into fake ones on the CPU.

    It is built there first, for much of what a constructor does (copying itself, say) a fake tensor cannot.
    """
    made: dict[int, Tensor] = {}  # a table that two parts share stays one
    for part in module.modules():
        for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            if id(tensor) not in made:
                fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                made[id(tensor)] = (
                    nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake
                )
            setattr(part, name, made[id(tensor)])


def step_memory(module: Any, optimizer: Optimizer, batch: Any, trainer: Trainer) -> StepMemory:
    """The memory of one optimizer step of a module of fake tensors, in the order in which Lightning takes it.

    Args:
        module: A `BaseModule` of fake tensors, inside the `FakeTensorMode` that made them.
        optimizer: Its optimizer.
        batch: What `training_step` takes, fake as well.
        trainer: What the module is to find as its trainer; it does not train.
    """
    held_anyway = [*module.parameters(), *module.buffers()]
    weights = tensor_bytes(held_anyway)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.trainer = trainer
    for name in ("log", "log_dict"):
        setattr(module, name, _nothing)
    with LiveMemory([*held_anyway, *batch]) as live:
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
        gradients = live.now
        optimizer.step()  # makes its state; later steps need no more than the first
        held = live.now
        before_logits = _forward_and_backward(module, optimizer, batch, trainer, live)
    peak = weights + live.peak
    rows = (weights, gradients, held - gradients, before_logits - held)
    return StepMemory(*rows, logits=peak - sum(rows))


def _forward_and_backward(module: Any, optimizer: Optimizer, batch: Any, trainer: Trainer, live: LiveMemory) -> int:
    """Take the step; the bytes alive when the last norm is through."""
    marks: list[int] = []
    mark = module.backbone.norm.register_forward_hook(lambda *_: marks.append(live.now))
    with trainer.precision_plugin.train_step_context():
        output = module.training_step(batch, 0)
    mark.remove()
    loss = output["loss"] if isinstance(output, dict) else output
    # The gradients of the step before are alive until here: Lightning frees them between forward and backward, unless
    # those of several batches are added up.
    if trainer.accumulate_grad_batches == 1:
        optimizer.zero_grad()
    loss.backward()
    return marks[-1]


def tensor_bytes(tensors: list[Tensor] | list[nn.Parameter]) -> int:
    """Bytes of tensors, a shared storage counted once."""
    sizes = {id(storage): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    return sum(sizes.values())


def _nothing(*args: Any, **kwargs: Any) -> None:
    """What `self.log` does here."""
