"""From the vectors of all tokens of a text to one vector: what an output layer for whole texts reads."""

import torch
from torch import Tensor, nn


class LastToken(nn.Module):
    """The vector of the last token of each text, the only one that has seen all others; what is padding is not read."""

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Maps (B, T, C) and the (B,) numbers of tokens to (B, C)."""
        rows = torch.arange(len(hidden), device=hidden.device)
        return hidden[rows, lengths.clamp(min=1) - 1]


class FirstToken(nn.Module):
    """The vector of the first token. It has seen itself alone, unless the attention also looks ahead."""

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Maps (B, T, C) and the (B,) numbers of tokens to (B, C)."""
        return hidden[:, 0]


class MeanTokens(nn.Module):
    """The mean of the vectors of all tokens of each text, without the padding."""

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Maps (B, T, C) and the (B,) numbers of tokens to (B, C)."""
        lengths = lengths.clamp(min=1)
        is_padding = torch.arange(hidden.shape[1], device=hidden.device) >= lengths[:, None]  # (B, T)
        # Filled, not multiplied by 0: infinite times 0 would be NaN. Summed in fp32, as long texts need.
        total = hidden.masked_fill(is_padding[..., None], 0).sum(dim=1, dtype=torch.float32)
        return (total / lengths[:, None]).to(hidden.dtype)
