"""Low-rank adapters: linear layers that keep their weights under their own names, and learn a small change of them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_llm.backbone.experts import StackedLinear

ADAPTER = ("lora_a", "lora_b", "lora_magnitude")  # names of the tensors beside `weight` and `bias`


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters for linear layers of the blocks: W becomes W + scale B A, and W itself stays as it is.

    Hu et al., 2021 (https://arxiv.org/abs/2106.09685). Queries, keys and values are one matrix here (`attention.qkv`),
    and so are gate and up of a gated MLP (`mlp.fc`): each has one adapter, whose A they share.

    Args:
        rank: Rows of A and columns of B.
        alpha: The change is scaled by alpha / rank.
        dropout: Probability with which an input of an adapter is dropped in training, in [0, 1).
        targets: Which layers: patterns of names within a block, or of whole names (`blocks.3.mlp.fc`); `attention` or
            `mlp` stands for all that is in it, `*` for every layer.
        rslora: Whether the scale is alpha / sqrt(rank), which suits high ranks (Kalajdzievski, 2023,
            https://arxiv.org/abs/2312.03732).
        dora: Whether the length of each row of W is learned apart from its direction (Liu et al., 2024,
            https://arxiv.org/abs/2402.09353).

    Raises:
        ValueError: If a number is outside its range.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: list[str] = field(default_factory=lambda: ["attention.qkv", "attention.proj"])
    rslora: bool = False
    dora: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.rank < 1:
            raise ValueError(f"lora.rank {self.rank} cannot be: it is at least 1")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"lora.alpha {self.alpha} cannot be: it is a positive number")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout {self.dropout} is not a probability in [0, 1)")

    @property
    def scale(self) -> float:
        """Factor of the change."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def adapt(self, backbone: nn.Module) -> None:
        """Put adapters on the layers of a backbone that `targets` names; its outputs stay what they were.

        Args:
            backbone: The network; what lies under `blocks` is inside the blocks.

        Raises:
            ValueError: As in `layers`.
        """
        for name, layer in self.layers(backbone).items():
            owner, _, leaf = name.rpartition(".")
            setattr(backbone.get_submodule(owner), leaf, LoRALinear(layer, self))

    def layers(self, backbone: nn.Module) -> dict[str, nn.Linear]:
        """The layers of a backbone that `targets` names.

        Raises:
            ValueError: If a pattern matches no linear layer, or one that cannot have an adapter.
        """
        parts = {name: part for name, part in backbone.named_modules() if name.startswith("blocks.")}
        linear = {name: part for name, part in parts.items() if isinstance(part, nn.Linear)}
        chosen: dict[str, nn.Linear] = {}
        for pattern in self.targets:
            matched = [name for name in parts if _matches(name, pattern)]
            for name in matched:
                if isinstance(parts[name], StackedLinear | LoRALinear):
                    kind = "the stacked matrices of experts" if isinstance(parts[name], StackedLinear) else "adapters"
                    raise ValueError(f"lora.targets '{pattern}' matches '{name}', which has {kind}; leave it out")
            if not (found := {name: linear[name] for name in matched if name in linear}):
                there = ", ".join(dict.fromkeys(_within(name) for name in linear))
                raise ValueError(f"lora.targets '{pattern}' matches no linear layer of the blocks; there are {there}")
            chosen |= found
        return chosen

    def shapes(self, backbone: nn.Module) -> dict[str, tuple[int, ...]]:
        """The tensors of the adapters that `adapt` makes, by name.

        Raises:
            ValueError: As in `layers`.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        for name, layer in self.layers(backbone).items():
            outputs, inputs = layer.weight.shape
            own: dict[str, tuple[int, ...]] = {"lora_a": (self.rank, inputs), "lora_b": (outputs, self.rank)}
            own |= {"lora_magnitude": (outputs,)} if self.dora else {}
            shapes |= {f"{name}.{leaf}": shape for leaf, shape in own.items()}
        return shapes


class LoRALinear(nn.Linear):
    """A linear layer with an adapter; `weight` and `bias` have the names that they have without one.

    Args:
        linear: The layer, whose tensors it takes over.
        lora: Rank, scale and kind of the adapter.
    """

    def __init__(self, linear: nn.Linear, lora: LoRA) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias = linear.weight, linear.bias
        self.out_features, self.in_features = linear.weight.shape
        self.scale, self.dropout = lora.scale, nn.Dropout(lora.dropout)
        self.lora_a = nn.Parameter(self.weight.new_empty(lora.rank, self.in_features))
        self.lora_b = nn.Parameter(self.weight.new_empty(self.out_features, lora.rank))
        self.lora_magnitude = nn.Parameter(self.weight.new_empty(self.out_features)) if lora.dora else None
        self.init_weights()
        self.train(linear.training)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Begin with no change: A as a linear layer begins, B at zero."""
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        nn.init.zeros_(self.lora_b)
        self.reset_magnitude()

    @torch.no_grad()
    def reset_magnitude(self) -> None:
        """Take the lengths of the rows from the weights as they are, once these have been loaded."""
        if self.lora_magnitude is not None:
            self.lora_magnitude.copy_(row_norms(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., inputs) to (..., outputs)."""
        change = F.linear(F.linear(self.dropout(x), self.lora_a), self.lora_b) * self.scale
        if self.lora_magnitude is None:
            return F.linear(x, self.weight, self.bias) + change
        # The norm is a constant of the backward pass (section 4.3 of the paper): less memory, hardly another result.
        norms = row_norms(self.weight.detach() + self.scale * (self.lora_b.detach() @ self.lora_a.detach()))
        y = (F.linear(x, self.weight) + change) * (self.lora_magnitude / norms).to(change.dtype)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def merged(self) -> nn.Linear:
        """A plain layer that computes the same."""
        plain = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        update = Update(self.lora_a, self.lora_b, self.lora_magnitude, self.scale)
        plain.weight = nn.Parameter(update(self.weight), self.weight.requires_grad)
        plain.bias = self.bias
        return plain.train(self.training)


@dataclass(frozen=True)
class Update:
    """What an adapter makes of a weight.

    Args:
        a: (rank, inputs).
        b: (outputs, rank).
        magnitude: (outputs,) lengths of the rows. None: they follow from the rest.
        scale: Factor of B A.
    """

    a: Tensor
    b: Tensor
    magnitude: Tensor | None
    scale: float

    @torch.no_grad()
    def __call__(self, weight: Tensor) -> Tensor:
        """The weight with the adapter in it, in the dtype of the weight; the sum itself is made in fp32 at least."""
        exact = torch.promote_types(weight.dtype, torch.float32)
        whole = weight.to(exact) + self.scale * (self.b.to(exact) @ self.a.to(exact))
        if self.magnitude is not None:
            whole = whole * (self.magnitude.to(exact) / row_norms(whole))[:, None]
        return whole.to(weight.dtype)


def row_norms(weight: Tensor) -> Tensor:
    """(outputs,) Euclidean lengths of the rows of (outputs, inputs)."""
    return torch.linalg.vector_norm(weight, dim=1)


def adapted_layers(module: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """The layers with adapters, by name."""
    return ((name, part) for name, part in module.named_modules() if isinstance(part, LoRALinear))


def adapter_names(module: nn.Module) -> set[str]:
    """Names of the parameters that belong to adapters."""
    owned = [(name, leaf) for name, layer in adapted_layers(module) for leaf, _ in layer.named_parameters()]
    return {f"{name}.{leaf}" for name, leaf in owned if leaf in ADAPTER}


def merge(module: nn.Module) -> None:
    """Write the adapters into the weights, and leave plain layers behind.

    Args:
        module: A backbone, or what holds one.
    """
    for name, layer in list(adapted_layers(module)):
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, layer.merged())


def _within(name: str) -> str:
    """The name of a layer without that of its block."""
    return name.split(".", 2)[-1]


def _matches(name: str, pattern: str) -> bool:
    return any(fnmatchcase(one, form) for one in (name, _within(name)) for form in (pattern, f"{pattern}.*"))
