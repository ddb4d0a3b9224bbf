"""Tensor parallelism: ranks that share each matrix product of attention and MLP (Megatron-LM).

Shoeybi et al., 2019 (https://arxiv.org/abs/1909.08053): of either part, the first matrix is divided by its outputs
(heads, hidden units), the last one by its inputs, and the ranks meet where a part begins and where it ends. The pieces
are plain tensors under the names of the whole ones.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from lit_llm.backbone.layers import MLP, CausalSelfAttention, GatedMLP
from lit_llm.backbone.lora import LoRALinear


class Split(NamedTuple):
    """How a parameter is divided: each of its parts by itself, along one axis.

    A fused matrix holds several parts: queries, keys and values; gate and up. Cut as a whole, it would give one rank
    the queries and another one the values.
    """

    axis: int
    sizes: list[int]  # of the parts along the axis

    def piece(self, whole: Tensor, rank: int, ranks: int) -> Tensor:
        """What one of the ranks holds."""
        parts = whole.split(self.sizes, self.axis)
        return torch.cat([part.chunk(ranks, self.axis)[rank] for part in parts], self.axis)

    def joined(self, pieces: list[Tensor]) -> Tensor:
        """The whole, from the pieces of all ranks in their order."""
        sizes = [size // len(pieces) for size in self.sizes]
        parts = zip(*(piece.split(sizes, self.axis) for piece in pieces), strict=True)
        return torch.cat([torch.cat(part, self.axis) for part in parts], self.axis)


class Splittable(NamedTuple):
    """A part of the network that the ranks can share."""

    name: str
    part: Any
    first: str  # name of its first linear layer; the last one is `proj`
    sizes: list[int]  # of what the first one computes: queries, keys, values; gate, up
    unit: int  # what stays together: the channels of a head


def split(backbone: nn.Module, mesh: DeviceMesh) -> dict[str, Split]:
    """Leave to each rank of a mesh its piece of the matrices in attention and MLP, and all of the rest.

    Returns:
        How each divided parameter is divided, by its name.

    Raises:
        ValueError: If a part cannot be shared, or not by so many.
    """
    splits: dict[str, Split] = {}
    for name, part, first, sizes, _ in splittable(backbone, mesh.size()):
        by_outputs, by_inputs = Split(0, sizes), Split(1, [part.proj.in_features])
        splits |= {f"{name}.{first}.weight": by_outputs, f"{name}.proj.weight": by_inputs}
        if part.get_submodule(first).bias is not None:
            splits[f"{name}.{first}.bias"] = by_outputs
        setattr(part, first, ColumnwiseLinear(part.get_submodule(first), by_outputs, mesh))
        part.proj = RowwiseLinear(part.proj, by_inputs, mesh)
        if isinstance(part, CausalSelfAttention):
            part.sizes = [size // mesh.size() for size in sizes]
            for norm in filter(None, (part.q_norm, part.k_norm)):
                norm.register_forward_pre_hook(SumGradients(mesh))
    return splits


def summed(x: Tensor, mesh: DeviceMesh) -> Tensor:
    """The sum over the ranks of a mesh."""
    x = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x, group=mesh.get_group())
    return x


class Enter(torch.autograd.Function):
    """What all ranks read; the gradients that they send back are summed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mesh: DeviceMesh) -> Tensor:
        """The tensor itself."""
        ctx.mesh = mesh
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The sum over the ranks."""
        return summed(gradient, ctx.mesh), None


class Leave(torch.autograd.Function):
    """The sum of what the ranks have computed; each gets the gradient of the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mesh: DeviceMesh) -> Tensor:
        """The sum over the ranks."""
        return summed(x, mesh)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient itself."""
        return gradient, None


class ColumnwiseLinear(nn.Linear):
    """Some of the outputs of a linear layer, from all of its inputs."""

    def __init__(self, whole: nn.Linear, split: Split, mesh: DeviceMesh) -> None:
        nn.Module.__init__(self)
        self.weight = _piece(whole.weight, split, mesh)
        self.bias = None if whole.bias is None else _piece(whole.bias, split, mesh)
        self.out_features, self.in_features = self.weight.shape
        self.mesh = mesh

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., inputs) to (..., outputs of this rank)."""
        return F.linear(Enter.apply(x, self.mesh), self.weight, self.bias)


class RowwiseLinear(nn.Linear):
    """A linear layer over the inputs that each rank has computed; the bias is added once."""

    def __init__(self, whole: nn.Linear, split: Split, mesh: DeviceMesh) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias = _piece(whole.weight, split, mesh), whole.bias
        self.out_features, self.in_features = self.weight.shape
        self.mesh = mesh

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., inputs of this rank) to (..., outputs)."""
        y = Leave.apply(F.linear(x, self.weight), self.mesh)
        return y if self.bias is None else y + self.bias


class SumGradients:
    """Hook before a part that every rank holds but applies to its own heads alone: its gradients are summed."""

    def __init__(self, mesh: DeviceMesh) -> None:
        self.mesh = mesh
        self._asked: set[nn.Parameter] = set()

    def __call__(self, part: nn.Module, args: Any) -> None:
        """Ask the parameters to sum, once each; under FSDP2 they are not those that the part began with."""
        for parameter in part.parameters():
            if parameter.requires_grad and parameter not in self._asked:
                parameter.register_hook(lambda gradient: summed(gradient, self.mesh))
                self._asked.add(parameter)


def _piece(whole: Tensor, split: Split, mesh: DeviceMesh) -> nn.Parameter:
    piece = split.piece(whole.detach(), mesh.get_local_rank(), mesh.size())
    return nn.Parameter(piece, whole.requires_grad)


def splittable(backbone: nn.Module, ranks: int) -> list[Splittable]:
    """The attentions and MLPs, if they and nothing else in the blocks can be shared."""
    found = [one for name, part in backbone.named_modules() if (one := _described(name, part)) is not None]
    for name, _, first, sizes, unit in found:
        if any(size // unit % ranks for size in sizes):
            counts = " and ".join(str(size // unit) for size in sorted(set(sizes), reverse=True))
            what = "heads" if first == "qkv" else "hidden units"
            raise ValueError(f"the {counts} {what} of '{name}' cannot be shared by {ranks} ranks; choose a multiple")
    for name, part in backbone.named_modules():
        if isinstance(part, LoRALinear):
            raise ValueError(f"tensor parallelism cannot share the adapter of '{name}'; configs/overlays/fsdp.yaml can")
        if isinstance(part, nn.Dropout) and part.p > 0:
            raise ValueError(
                f"'{name}' drops out with {part.p}, on each rank something else; tensor parallelism needs 0"
            )
    inside = [f"{one.name}.{child}." for one in found for child in (one.first, "proj", "q_norm", "k_norm")]
    for name, parameter in backbone.named_parameters():
        # A vector outside of them, as that of a norm, is the same on every rank, and so is its gradient.
        is_whole = (not name.startswith("blocks.") or parameter.ndim < 2) and not _is_within(name, found)
        if not (is_whole or name.startswith(tuple(inside))):
            raise ValueError(
                f"tensor parallelism cannot share '{name}'; it knows CausalSelfAttention, MLP and GatedMLP, and no "
                "other class in their place (configs/overlays/fsdp.yaml shares every network)"
            )
    return found


def _described(name: str, part: Any) -> Splittable | None:
    """Of exactly these classes: another one, a subclass too, may use its tensors in a way that pieces do not allow."""
    if type(part) is CausalSelfAttention:
        return Splittable(name, part, "qkv", part.sizes, part.head_dim)
    if type(part) is MLP:
        return Splittable(name, part, "fc", [part.fc.out_features], 1)
    if type(part) is GatedMLP:
        return Splittable(name, part, "fc", [part.fc.out_features // 2] * 2, 1)
    return None


def _is_within(name: str, parts: list[Splittable]) -> bool:
    return any(name.startswith(f"{one.name}.") for one in parts)
