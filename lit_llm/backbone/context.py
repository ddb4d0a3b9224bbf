"""What one forward pass knows beyond its tokens: documents, the cache, and the tables that all layers share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_llm.backbone.cache import Cache
from lit_llm.backbone.rotary import Rotary


class Context:
    """What one forward pass knows beyond its tokens. One object serves all layers, so each table is made once.

    Args:
        documents: (B, T) ids that change wherever another document begins in a row: no token attends across such a
            border, and positions restart at it. None: every row is one document.
        cache: What earlier passes have left of the same texts, told by `Cache.expect` what comes. None: nothing.
    """

    def __init__(self, documents: Tensor | None = None, cache: Cache | None = None) -> None:
        self.cache, self.positions = cache, None  # (B, T), or (1, T) if all rows are as long; None: 0, 1, 2 …
        if documents is not None:
            self.positions = positions_in_documents(documents)
        elif cache is not None:
            self.positions = cache.positions()
        self._masks: dict[tuple[int, int | None], Tensor | None] = {}
        self._rotations: dict[tuple[float, ...], tuple[Tensor, Tensor]] = {}

    def mask(self, length: int, window: int | None, device: torch.device) -> Tensor | None:
        """Booleans, True where a query may see a key: (T, T) or (B, 1, T, keys). None: all keys up to its own."""
        if self.positions is None and (window is None or window >= length):
            return None
        if (length, window) not in self._masks:
            if self.cache is not None and self.positions is not None:
                self._masks[length, window] = self.cache.mask(self.positions, window)
            else:
                self._masks[length, window] = self._mask(length, window, device)
        return self._masks[length, window]

    def _mask(self, length: int, window: int | None, device: torch.device) -> Tensor:
        steps = torch.arange(length, device=device)
        distance = steps[:, None] - steps  # (T, T): query minus key
        mask = distance >= 0
        if window is not None:
            mask &= distance < window
        if self.positions is not None:
            mask = mask & (distance <= self.positions[:, None, :, None])  # (B, 1, T, T): back to its first token
        return mask

    def remember(self, layer: nn.Module, k: Tensor, v: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
        """Keys and values (B, G, T, D) of a layer's tokens, preceded by those that the cache, if any, has of it."""
        return (k, v) if self.cache is None else self.cache.extend(layer, k, v, window)

    def rotation(self, rotary: Rotary, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosine and sine of every position's angles, in fp32: (T, dim / 2), or (B, 1, T, dim / 2) of own positions."""
        if rotary.frequencies not in self._rotations:
            steps = torch.arange(length, device=device) if self.positions is None else self.positions[:, None]
            # Copied without waiting: tensor(..., device=) would halt the queue of a GPU at each forward pass.
            frequencies = torch.tensor(rotary.frequencies).to(device, non_blocking=True)
            angles = steps[..., None].float() * frequencies
            self._rotations[rotary.frequencies] = angles.cos(), angles.sin()
        return self._rotations[rotary.frequencies]


def positions_in_documents(documents: Tensor) -> Tensor:
    """(B, T) document ids to (B, T) positions that restart at 0 wherever the id changes along a row."""
    steps = torch.arange(documents.shape[1], device=documents.device)
    starts = F.pad(steps[1:] * (documents[:, 1:] != documents[:, :-1]), (1, 0))  # (B, T): own step at a border, else 0
    return steps - starts.cummax(dim=1).values
