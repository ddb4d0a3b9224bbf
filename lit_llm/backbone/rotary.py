"""Rotary positions, which live inside the attention that uses them."""

import math

import torch
from torch import Tensor, nn


class Rotary(nn.Module):
    """Rotary position embedding (Su et al., 2021, https://arxiv.org/abs/2104.09864), first half against second half.

    Args:
        head_dim: Channels of one head.
        theta: Base of the wavelengths.
        fraction: Share of the channels that rotate, in (0, 1]; the rest carry no position (GPT-NeoX, Phi).

    Raises:
        ValueError: If the number of rotated channels is not even and positive.
    """

    def __init__(self, head_dim: int, theta: float = 10_000.0, fraction: float = 1.0) -> None:
        super().__init__()
        self.dim, self.theta = int(head_dim * fraction), theta
        if self.dim < 2 or self.dim % 2 or self.dim > head_dim:
            raise ValueError(
                f"rotary fraction {fraction} of head_dim {head_dim} rotates {self.dim} channels; "
                "choose a fraction in (0, 1] that gives an even number of them"
            )
        # Not a buffer: a cast of the model to bfloat16 must not round the angles, and checkpoints need no table.
        self._table: tuple[Tensor, Tensor] | None = None

    def frequencies(self, device: torch.device) -> Tensor:
        """(dim / 2,) radians per position, in fp32."""
        return self.theta ** -(torch.arange(0, self.dim, 2, dtype=torch.float32, device=device) / self.dim)

    def cos_sin(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """(..., T) positions to two (..., T, dim / 2) tables."""
        angles = positions[..., None].float() * self.frequencies(positions.device)
        return angles.cos(), angles.sin()

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Maps (B, H, T, D) to (B, H, T, D). positions: (B, T); None counts from 0."""
        if positions is not None:
            cos, sin = self.cos_sin(positions[:, None])  # (B, 1, T, dim / 2)
        else:
            if self._table is None or len(self._table[0]) < x.shape[2] or self._table[0].device != x.device:
                with torch.inference_mode(False):  # a table made while validating must serve the next backward
                    self._table = self.cos_sin(torch.arange(x.shape[2], device=x.device))
            cos, sin = (table[: x.shape[2]] for table in self._table)  # (T, dim / 2)
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        a, b = x[..., : self.dim // 2], x[..., self.dim // 2 : self.dim]
        return torch.cat((a * cos - b * sin, b * cos + a * sin, x[..., self.dim :]), dim=-1)


class LinearRotary(Rotary):
    """Rotary positions divided by a factor (position interpolation, Chen et al., 2023, https://arxiv.org/abs/2306.15595).

    Args:
        head_dim: Channels of one head.
        theta: Base of the wavelengths.
        fraction: Share of the channels that rotate, in (0, 1].
        factor: How many times longer the context becomes.
    """

    def __init__(self, head_dim: int, theta: float = 10_000.0, fraction: float = 1.0, factor: float = 1.0) -> None:
        super().__init__(head_dim, theta, fraction)
        self.factor = factor

    def frequencies(self, device: torch.device) -> Tensor:
        """(dim / 2,) radians per position, in fp32."""
        return super().frequencies(device) / self.factor


class Llama3Rotary(Rotary):
    """Rotary positions of Llama 3.1 (https://arxiv.org/abs/2407.21783): long wavelengths stretched, short ones kept.

    Args:
        head_dim: Channels of one head.
        theta: Base of the wavelengths.
        factor: Stretch of the wavelengths above `original_block_size / low_freq_factor`.
        low_freq_factor: Where the stretch is complete, in turns per original context.
        high_freq_factor: Where the stretch begins, in turns per original context; between the two it is blended.
        original_block_size: Context in tokens that the model was first trained with.
    """

    def __init__(
        self,
        head_dim: int,
        theta: float = 500_000.0,
        factor: float = 8.0,
        low_freq_factor: float = 1.0,
        high_freq_factor: float = 4.0,
        original_block_size: int = 8192,
    ) -> None:
        super().__init__(head_dim, theta)
        self.factor, self.original_block_size = factor, original_block_size
        self.low_freq_factor, self.high_freq_factor = low_freq_factor, high_freq_factor

    def frequencies(self, device: torch.device) -> Tensor:
        """(dim / 2,) radians per position, in fp32."""
        frequencies = super().frequencies(device)
        turns = self.original_block_size * frequencies / (2 * math.pi)  # per original context
        keep = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        keep = keep.clamp(0.0, 1.0)  # 1: short wavelength, as it was; 0: long wavelength, stretched
        return frequencies * (keep + (1 - keep) / self.factor)
