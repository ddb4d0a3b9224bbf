"""The key-value cache: what a text's tokens leave for those that come later, kept outside the network."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Cache:
    """Keys and values of the tokens so far, in every layer that has asked for them to be kept.

    Rows may differ in length. The first pass reads their beginnings, padded on the right: causal attention never looks
    there, so every row is what it would be alone. From then on a row's token of position p lies in slot p, or, in a
    layer with a window, in slot p modulo the size of a ring (Mistral, https://arxiv.org/abs/2310.06825, section 2).
    Memory is allocated once, when a layer first keeps something.

    Args:
        size: Tokens of the longest text.
        spare: Tokens that a pass after the first may hold beyond one, and that may be taken back again (`rewind`).
        device: Where the network computes.
    """

    def __init__(self, size: int, spare: int = 0, device: torch.device | str = "cpu") -> None:
        self.size, self.spare, self.device = size, spare, device
        self.reach = 0  # tokens of the longest row, those of the pass at hand included
        self._before = 0  # the same without those
        self._lengths: Tensor | None = None  # (B,): tokens of each row without those of the pass; None: all as long
        self._counts: Tensor | None = None  # (B,): tokens of each row in the first pass; None: all of them
        self._stored: dict[nn.Module, tuple[Tensor, Tensor]] = {}  # (B, G, slots, D) of each layer

    def __len__(self) -> int:
        """How many layers keep their keys and values here."""
        return len(self._stored)

    def expect(self, length: int, counts: Tensor | None = None) -> None:
        """Make room for a pass over the next `length` tokens of each row.

        Args:
            length: Tokens of a row in this pass, padding included.
            counts: (B,) how many of them are no padding; for the first pass alone. None: all.

        Raises:
            ValueError: If they are more than fit.
        """
        if self.reach + length > self.size:
            raise ValueError(f"{self.reach} + {length} tokens do not fit a cache of {self.size}; make a larger one")
        if self.reach and length > self.spare + 1:
            raise ValueError(f"a pass over {length} more tokens does not fit a cache with {self.spare} spare ones")
        if self.reach and self._counts is not None:
            self._lengths = self._counts if self._lengths is None else self._lengths + (self.reach - self._before)
        elif self.reach == 0:
            self._counts = counts
        self._before, self.reach = self.reach, self.reach + length

    def rewind(self, length: int) -> None:
        """Forget the last tokens, at most `spare`, of rows of equal length.

        Args:
            length: Tokens that stay.

        Raises:
            ValueError: If they are too few or too many, or the rows differ in length.
        """
        if self._counts is not None or not self.reach - self.spare <= length <= self.reach:
            raise ValueError(f"{length} tokens cannot be what stays of {self.reach} with {self.spare} spare ones")
        self.reach = length

    def positions(self) -> Tensor | None:
        """(B, T) or (1, T) positions of the tokens of this pass. None in the first one, which counts from 0."""
        if self._before == 0:
            return None
        steps = torch.arange(self._before, self.reach, device=self.device)
        return steps[None] if self._lengths is None else self._lengths[:, None] + (steps - self._before)

    def mask(self, positions: Tensor, window: int | None) -> Tensor | None:
        """(B, 1, T, S) booleans, True where a query may see a slot; None where it may see all of them."""
        slots, T = self._slots(window), positions.shape[1]
        filled = min(self.reach, slots)
        sees_all = window is None or window >= filled
        if T == 1 and self._lengths is None and sees_all:
            return None
        # A slot holds the last position so far that belongs there. One that was taken back since would be meant to
        # hold the one before, which by the size of the ring lies outside every window.
        last = positions[:, -1:]  # (B, 1)
        held = last - (last - torch.arange(filled, device=positions.device)) % slots  # (B, S)
        distance = positions[:, :, None] - held[:, None]  # (B, T, S): query minus key
        mask = (held[:, None] >= 0) & (distance >= 0)
        if window is not None:
            mask &= distance < window
        return mask[:, None]

    def extend(self, layer: nn.Module, k: Tensor, v: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
        """Keep the keys and values of this pass, and return all those that it attends over.

        Args:
            layer: Whose they are.
            k: (B, G, T, D) keys.
            v: (B, G, T, D) values.
            window: How many tokens a query of this layer sees. None: all.
        """
        slots = self._slots(window)
        if self._before == 0:
            self._stored[layer] = self._first(k, slots), self._first(v, slots)
            return k, v
        filled = min(self.reach, slots)
        for stored, new in zip(self._stored[layer], (k, v), strict=True):
            self._write(stored, new)
        keys, values = self._stored[layer]
        return keys[:, :, :filled], values[:, :, :filled]

    def _slots(self, window: int | None) -> int:
        # Two at least: then only the first pass has as many keys as queries, and its keys alone lie in their order.
        return self.size if window is None else min(self.size, max(window, 2) + self.spare)

    def _first(self, new: Tensor, slots: int) -> Tensor:
        """Room for a layer, with the tokens of the first pass in it, of each row as many as there are slots."""
        B, G, T, D = new.shape
        if slots >= T:
            return F.pad(new, (0, 0, 0, slots - T))  # zeros: what a mask hides is multiplied all the same
        counts = new.new_full((B,), T, dtype=torch.long) if self._counts is None else self._counts
        last = counts[:, None] - 1
        held = last - (last - torch.arange(slots, device=new.device)) % slots  # (B, slots): the position in each
        return new.gather(2, held.clamp(min=0)[:, None, :, None].expand(B, G, slots, D))

    def _write(self, stored: Tensor, new: Tensor) -> None:
        B, _, T, _ = new.shape
        slots = stored.shape[2]
        start = self._before % slots
        if self._lengths is None and start + T <= slots:
            stored[:, :, start : start + T] = new
        elif (positions := self.positions()) is not None:
            rows = torch.arange(B, device=new.device)[:, None]
            stored[rows, :, (positions % slots).expand(B, T)] = new.transpose(1, 2)
