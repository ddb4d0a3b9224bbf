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
        dim = int(head_dim * fraction)
        if dim < 2 or dim % 2 or dim > head_dim:
            raise ValueError(
                f"rotary fraction {fraction} of head_dim {head_dim} rotates {dim} channels; "
                "choose a fraction in (0, 1] that gives an even number of them"
            )
        self.theta, self.fraction = theta, fraction
        # Radians per position. Plain numbers: a cast of the model to bfloat16 must not round the angles, checkpoints
        # need no table, and layers that turn alike find the same one in the Context.
        self.frequencies = tuple(theta ** (-channel / dim) for channel in range(0, dim, 2))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Maps (B, H, T, D) to (B, H, T, D). cos, sin: of the angles, (T, dim / 2) or (B, 1, T, dim / 2)."""
        half = len(self.frequencies)
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), dim=-1)


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
        self.frequencies = tuple(frequency / factor for frequency in self.frequencies)


class Llama3Rotary(Rotary):
    """Rotary positions of Llama 3.1 (https://arxiv.org/abs/2407.21783): long wavelengths stretched, short ones kept.

    Args:
        head_dim: Channels of one head.
        theta: Base of the wavelengths.
        factor: Stretch of the wavelengths above `original_block_size / low_freq_factor`.
        low_freq_factor: Where the stretch is complete, in turns per original context.
        high_freq_factor: Where the stretch begins, in turns per original context; between the two it is blended.
        original_block_size: Context in tokens that the model was first trained with.

    Raises:
        ValueError: If `high_freq_factor` is not above `low_freq_factor`.
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
        if high_freq_factor <= low_freq_factor:
            raise ValueError(f"high_freq_factor {high_freq_factor} is not above low_freq_factor {low_freq_factor}")

        def stretched(frequency: float) -> float:
            turns = original_block_size * frequency / (2 * math.pi)  # per original context
            keep = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor)
            keep = min(max(keep, 0.0), 1.0)  # 1: short wavelength, as it was; 0: long wavelength, stretched
            return frequency * (keep + (1 - keep) / factor)

        self.frequencies = tuple(map(stretched, self.frequencies))
