"""What one forward pass knows beyond its tokens: where documents begin, and the tables that all layers share."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_llm.backbone.rotary import Rotary


class Context:
    """What one forward pass knows beyond its tokens. One object serves all layers, so each table is made once.

    Args:
        documents: (B, T) ids that change wherever another document begins in a row: no token attends across such a
            border, and positions restart at it. None: every row is one document.
    """

    def __init__(self, documents: Tensor | None = None) -> None:
        self.positions = None if documents is None else positions_in_documents(documents)  # (B, T)
        self._masks: dict[tuple[int, int | None], Tensor] = {}
        self._rotations: dict[tuple[float, ...], tuple[Tensor, Tensor]] = {}

    def mask(self, length: int, window: int | None, device: torch.device) -> Tensor | None:
        """(T, T) or (B, 1, T, T) booleans, True where a query may see a key; None where plain causal says it all."""
        if self.positions is None and (window is None or window >= length):
            return None
        if (length, window) not in self._masks:
            steps = torch.arange(length, device=device)
            distance = steps[:, None] - steps  # (T, T): query minus key
            mask = distance >= 0
            if window is not None:
                mask &= distance < window
            if self.positions is not None:
                mask = mask & (distance <= self.positions[:, None, :, None])  # (B, 1, T, T): back to its first token
            self._masks[length, window] = mask
        return self._masks[length, window]

    def rotation(self, rotary: Rotary, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosine and sine of every position's angles, in fp32: (T, dim / 2), or (B, 1, T, dim / 2) for documents."""
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
