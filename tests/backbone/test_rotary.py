"""Rotary positions: what the scores depend on, which channels turn, how fast."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from lit_llm.backbone.context import Context
from lit_llm.backbone.layers import CausalSelfAttention
from lit_llm.backbone.rotary import LinearRotary, Llama3Rotary, Rotary

B, T, H, D = 2, 7, 4, 10
CPU = torch.device("cpu")


def turn(rotary: Rotary, x: Tensor) -> Tensor:
    return rotary(x, *Context().rotation(rotary, x.shape[2], CPU))


@pytest.mark.parametrize("rotary", [Rotary(D), Rotary(D, fraction=0.4), LinearRotary(D, factor=3.0), Llama3Rotary(D)])
def test_scores_depend_on_the_distance_alone(rotary: Rotary) -> None:
    """With one query and one key repeated, the scores are constant along each diagonal, and differ between them."""
    torch.manual_seed(0)
    q, k = (turn(rotary, torch.randn(B, H, 1, D).expand(B, H, T, D)) for _ in range(2))
    scores = q @ k.transpose(-2, -1)  # (B, H, T, T)
    for distance in range(-T + 1, T):
        diagonal = scores.diagonal(distance, -2, -1)
        torch.testing.assert_close(diagonal, diagonal[..., :1].expand_as(diagonal), rtol=1e-5, atol=1e-5)  # fp32
    assert (scores[..., 0, 1:] - scores[..., 0, :1]).abs().amax(dim=-1).min() > 1e-2


def test_a_turn_keeps_the_length_and_the_first_position() -> None:
    x = torch.randn(B, H, T, D)
    turned = turn(Rotary(D), x)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])


def test_a_fraction_leaves_the_other_channels_alone() -> None:
    x = torch.randn(B, H, T, D)
    turned = turn(Rotary(D, fraction=0.4), x)
    assert torch.equal(turned[..., 4:], x[..., 4:])
    torch.testing.assert_close(turned[..., :4], turn(Rotary(4), x[..., :4]))
    assert (turned[:, :, 1:, :4] != x[:, :, 1:, :4]).all()


def test_linear_rotary_is_rotary_at_positions_over_the_factor() -> None:
    plain = Context().rotation(Rotary(D, theta=500.0), T, CPU)
    stretched = Context().rotation(LinearRotary(D, theta=500.0, factor=4.0), 4 * T, CPU)
    for ours, theirs in zip(stretched, plain, strict=True):
        torch.testing.assert_close(ours[::4], theirs)


@pytest.mark.parametrize("original_block_size", [64, 8192])
def test_llama3_rotary_stretches_by_wavelength(original_block_size: int) -> None:
    """The published rule, wavelength by wavelength; all three of its cases occur."""
    factor, low, high, dim, theta = 8.0, 1.0, 4.0, 64, 500_000.0
    cases, expected = set(), []
    for channel in range(dim // 2):
        frequency = 1.0 / theta ** (2 * channel / dim)
        wavelength = 2 * math.pi / frequency
        if wavelength < original_block_size / high:
            cases.add("short")
        elif wavelength > original_block_size / low:
            cases.add("long")
            frequency /= factor
        else:
            cases.add("between")
            smooth = (original_block_size / wavelength - low) / (high - low)
            frequency = (1 - smooth) * frequency / factor + smooth * frequency
        expected.append(frequency)
    rotary = Llama3Rotary(dim, theta, factor, low, high, original_block_size)
    assert cases == {"short", "between", "long"}
    assert rotary.frequencies == pytest.approx(expected, rel=1e-12)  # doubles on both sides


@pytest.mark.parametrize("steps", [None, [0, 1, 2, 3999, 4000]], ids=["counted", "documents"])
def test_a_cast_to_bfloat16_rounds_no_angle(steps: list[int] | None) -> None:
    """bfloat16 holds no odd number beyond 256; 2e-4 is fp32's error of an angle of 4,000."""
    attention = CausalSelfAttention(H * D, H, rotary=partial(Rotary, theta=100.0)).bfloat16()
    assert attention.rotary is not None
    context = Context()
    if steps is not None:
        context.positions = torch.tensor([steps])
    cos, sin = context.rotation(attention.rotary, 4001, CPU)
    assert cos.dtype == sin.dtype == torch.float32
    positions = torch.tensor(steps or range(4001), dtype=torch.float64)
    angles = positions[:, None] * 100.0 ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
    torch.testing.assert_close(cos.double().view_as(angles), angles.cos(), rtol=0, atol=2e-4)
    torch.testing.assert_close(sin.double().view_as(angles), angles.sin(), rtol=0, atol=2e-4)


def test_checkpoints_hold_no_table() -> None:
    assert not Rotary(D).state_dict()


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.2, -1.0])
def test_a_fraction_without_whole_pairs_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=f"fraction {fraction} of head_dim {D}"):
        Rotary(D, fraction=fraction)


def test_llama3_rotary_refuses_factors_in_the_wrong_order() -> None:
    with pytest.raises(ValueError, match=r"high_freq_factor 1\.0 .* low_freq_factor 4\.0"):
        Llama3Rotary(D, low_freq_factor=4.0, high_freq_factor=1.0)
