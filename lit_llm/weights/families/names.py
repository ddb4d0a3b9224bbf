"""How a tensor of ours is made of theirs, and back: a few transforms, all of them invertible bit for bit.

A family's table says them by the name of a module of ours, for its weight and its bias alike:

- `"model.norm"`: the same tensor under another name;
- `Fused("q_proj", "k_proj", "v_proj")`: several of theirs below each other;
- `Transposed("c_fc")`: GPT-2's Conv1D;
- `Interleaved("query_key_value")`: GPT-NeoX's rows, q, k and v of one head after the other.

`{i}` in a name is the number of the layer.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Transform(Protocol):
    """Two directions of one mapping."""

    def join(self, theirs: list[Tensor]) -> Tensor:
        """Our tensor, from theirs."""

    def split(self, ours: Tensor) -> list[Tensor]:
        """Their tensors, from ours."""


@dataclass(frozen=True)
class Entry:
    """One tensor of ours, and the tensors of theirs that it is made of.

    Args:
        name: Its name in our state dict.
        theirs: Names of theirs, in the order that `join` wants and `split` gives.
        transform: What turns the one into the other.
        copies: Names under which the (single) tensor of theirs may lie in a file once more, as tied heads do. Where
            there is one, it must be equal: otherwise the head is not tied.
    """

    name: str
    theirs: tuple[str, ...]
    transform: Transform
    copies: tuple[str, ...] = ()

    def join(self, theirs: list[Tensor]) -> Tensor:
        """Our tensor, from theirs; it may share their memory."""
        return self.transform.join(theirs)

    def split(self, ours: Tensor) -> list[Tensor]:
        """Their tensors, contiguous, from ours; they may share its memory."""
        return [part.contiguous() for part in self.transform.split(ours)]


class Same:
    """The same tensor."""

    def join(self, theirs: list[Tensor]) -> Tensor:
        """Theirs."""
        return theirs[0]

    def split(self, ours: Tensor) -> list[Tensor]:
        """Ours."""
        return [ours]


@dataclass(frozen=True)
class Rows:
    """A table over the vocabulary that ours pads with rows no logit ever comes from (`vocab_multiple`)."""

    vocab_size: int
    rows: int

    def join(self, theirs: list[Tensor]) -> Tensor:
        """(rows, ...) from (vocab_size, ...)."""
        padding = theirs[0].new_zeros(self.rows - len(theirs[0]), *theirs[0].shape[1:])
        return torch.cat([theirs[0], padding])

    def split(self, ours: Tensor) -> list[Tensor]:
        """(vocab_size, ...) from (rows, ...)."""
        return [ours[: self.vocab_size]]


class Transpose:
    """A matrix that is stored as (inputs, outputs)."""

    def join(self, theirs: list[Tensor]) -> Tensor:
        """(outputs, inputs); a bias stays as it is."""
        return theirs[0].t()

    def split(self, ours: Tensor) -> list[Tensor]:
        """(inputs, outputs); a bias stays as it is."""
        return [ours.t()]


@dataclass(frozen=True)
class Stack:
    """Several tensors below each other."""

    sizes: tuple[int, ...]  # rows of each

    def join(self, theirs: list[Tensor]) -> Tensor:
        """All of their rows."""
        return torch.cat(theirs)

    def split(self, ours: Tensor) -> list[Tensor]:
        """Each one's rows."""
        return list(ours.split(self.sizes))


@dataclass(frozen=True)
class Interleave:
    """Rows of queries, keys and values that alternate head by head, where ours has all queries first."""

    n_head: int

    def join(self, theirs: list[Tensor]) -> Tensor:
        """(3 H D, ...) with the rows in the order 3, H, D."""
        return theirs[0].unflatten(0, (self.n_head, 3, -1)).transpose(0, 1).flatten(0, 2)

    def split(self, ours: Tensor) -> list[Tensor]:
        """(3 H D, ...) with the rows in the order H, 3, D."""
        return [ours.unflatten(0, (3, self.n_head, -1)).transpose(0, 1).flatten(0, 2)]


@dataclass(frozen=True)
class StackExperts:
    """A tensor (n_expert, rows, ...) of tensors (rows / parts, ...), those of the first expert first."""

    n_expert: int
    parts: int  # of each expert: gate and up, or one

    def join(self, theirs: list[Tensor]) -> Tensor:
        """All experts."""
        return torch.cat(theirs).unflatten(0, (self.n_expert, -1))

    def split(self, ours: Tensor) -> list[Tensor]:
        """Each expert's parts."""
        return [part for expert in ours for part in expert.chunk(self.parts)]


# What a family's table says.


class Named:
    """Names of theirs for a module or a parameter of ours."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def theirs(self, module: Any, layer: str, end: str) -> tuple[str, ...]:
        """The names themselves. module: ours; layer: its number; end: what follows (".weight")."""
        return tuple(name.format(i=layer) + end for name in self.names)

    def transform(self, module: Any, owner: Any) -> Transform:
        """The transform of one tensor. module: ours; owner: the module that it belongs to."""
        return Same()


class Fused(Named):
    """Several of theirs are one of ours: queries, keys and values; gate and up."""

    def transform(self, module: Any, owner: Any) -> Transform:
        """By the owner's own sizes, if it has some (attention), otherwise into equal parts."""
        rows = module.out_features
        return Stack(tuple(getattr(owner, "sizes", [rows // len(self.names)] * len(self.names))))


class Transposed(Named):
    """A Conv1D of GPT-2."""

    def transform(self, module: Any, owner: Any) -> Transform:
        """The transpose."""
        return Transpose()


class Interleaved(Named):
    """GPT-NeoX's queries, keys and values."""

    def transform(self, module: Any, owner: Any) -> Transform:
        """By the heads of the owner."""
        return Interleave(owner.sizes[0] // owner.head_dim)


class PerExpert(Named):
    """Tensors of each expert, `{e}` being its number, that are one tensor of ours."""

    def theirs(self, module: Any, layer: str, end: str) -> tuple[str, ...]:
        """The names of the first expert first."""
        return tuple(name.format(i=layer, e=e) + end for e in range(len(module.weight)) for name in self.names)

    def transform(self, module: Any, owner: Any) -> Transform:
        """By the experts that there are."""
        return StackExperts(len(module.weight), len(self.names))


Said = str | Named
Table = dict[str, Said | tuple[Said, ...]]  # a tuple: all spellings there are, the one that we write first
