"""MLPs, the norm and the blocks against their formulae."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_llm.backbone import Block
from lit_llm.backbone.blocks import ParallelBlock, PostNormBlock, SandwichBlock
from lit_llm.backbone.layers import MLP, CausalSelfAttention, GatedMLP, UnitOffsetRMSNorm

B, T, H, C = 2, 7, 4, 24


def randomized(module: Any) -> Any:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(B, T, C)


@pytest.mark.parametrize("bias", [False, True])
def test_mlp(x: Tensor, bias: bool) -> None:
    """proj(activation(fc(x))), GELU, biases and 4 C wide unless said otherwise."""
    mlp = randomized(MLP(C, bias=bias))
    assert mlp.fc.weight.shape == (96, C)
    assert MLP(C).fc.bias is not None
    assert GatedMLP(C).fc.bias is None
    assert (mlp.fc.bias is not None) == (mlp.proj.bias is not None) == bias
    inner = x @ mlp.fc.weight.T + (mlp.fc.bias if bias else 0)
    inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    torch.testing.assert_close(mlp(x), inner @ mlp.proj.weight.T + (mlp.proj.bias if bias else 0))
    small = randomized(MLP(C, hidden=5, activation=nn.ReLU, bias=False))
    torch.testing.assert_close(small(x), (x @ small.fc.weight.T).clamp(min=0) @ small.proj.weight.T)


@pytest.mark.parametrize("bias", [False, True])
def test_gated_mlp(x: Tensor, bias: bool) -> None:
    """proj(silu(gate(x)) * up(x)), the gate in the first rows of `fc`."""
    mlp = randomized(GatedMLP(C, hidden=5, bias=bias))
    gate, up = mlp.fc.weight[:5], mlp.fc.weight[5:]
    gate_bias, up_bias = (mlp.fc.bias[:5], mlp.fc.bias[5:]) if bias else (0, 0)
    gated = x @ gate.T + gate_bias
    gated = gated * torch.sigmoid(gated) * (x @ up.T + up_bias)
    torch.testing.assert_close(mlp(x), gated @ mlp.proj.weight.T + (mlp.proj.bias if bias else 0))


@pytest.mark.parametrize(("n_embd", "hidden"), [(12, 32), (24, 64), (25, 96), (768, 2048), (1600, 4288)])
def test_the_gated_mlp_has_as_many_weights_as_the_plain_one(n_embd: int, hidden: int) -> None:
    """8/3 n_embd, rounded up to a multiple of 32."""
    with torch.device("meta"):
        assert GatedMLP(n_embd).proj.in_features == hidden


def test_an_inner_width_of_zero_is_not_the_default() -> None:
    for mlp in (MLP, GatedMLP):
        with pytest.warns(UserWarning, match="zero-element"):
            assert mlp(C, hidden=0).proj.in_features == 0


def test_unit_offset_rms_norm(x: Tensor) -> None:
    """x / rms(x) * (1 + weight), starting at plain RMSNorm; in fp32 inside, whatever comes in."""
    norm = UnitOffsetRMSNorm(C, eps=0.1)
    rms = (x.square().mean(dim=-1, keepdim=True) + 0.1).sqrt()
    torch.testing.assert_close(norm(x), x / rms)
    nn.init.normal_(norm.weight)
    torch.testing.assert_close(norm(x), x / rms * (1 + norm.weight))
    rounded = norm(x.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(rounded, norm(x.bfloat16().float()).bfloat16())


def formulae(block: Any, x: Tensor) -> Tensor:
    """What each wiring is, with the norms by position and not by name."""
    attention, mlp = block.attention, block.mlp
    norms = [m for m in block.modules() if isinstance(m, nn.LayerNorm)]

    def norm(number: int, y: Tensor) -> Tensor:
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        return y * norms[number].weight + norms[number].bias

    match block:
        case PostNormBlock():
            x = x + norm(0, attention(x))
            return x + norm(1, mlp(x))
        case SandwichBlock():
            x = x + norm(2, attention(norm(0, x)))
            return x + norm(3, mlp(norm(1, x)))
        case ParallelBlock(shared_norm=True):
            return x + attention(norm(0, x)) + mlp(norm(0, x))
        case ParallelBlock():
            return x + attention(norm(0, x)) + mlp(norm(1, x))
    x = x + attention(norm(0, x))
    return x + mlp(norm(1, x))


BLOCKS = {
    Block: 2,
    PostNormBlock: 2,
    SandwichBlock: 4,
    ParallelBlock: 2,
    partial(ParallelBlock, shared_norm=True): 1,
}


@pytest.mark.parametrize(("block_class", "norms"), BLOCKS.items())
def test_blocks(x: Tensor, block_class: Any, norms: int) -> None:
    """Each wiring's formula, and no norm beyond those that it uses."""
    block = randomized(block_class(C, nn.LayerNorm, CausalSelfAttention(C, H), MLP(C)))
    assert sum(isinstance(m, nn.LayerNorm) for m in block.modules()) == norms
    torch.testing.assert_close(block(x), formulae(block, x), rtol=1e-4, atol=1e-4)  # fp32, values near 100


@pytest.mark.parametrize("block_class", BLOCKS)
def test_dropout_of_both_branches(x: Tensor, block_class: Any) -> None:
    """In training each branch loses channels; with all of them dropped the block is the identity. Eval drops none."""
    block = block_class(C, nn.LayerNorm, CausalSelfAttention(C, H), MLP(C), dropout=1.0)
    assert torch.equal(block(x), x)
    block.eval()
    torch.testing.assert_close(block(x), formulae(block, x), rtol=1e-4, atol=1e-4)
    for branch in (block.attention.proj, block.mlp.proj):  # either branch alone is dropped, too
        half = randomized(block_class(C, nn.LayerNorm, CausalSelfAttention(C, H), MLP(C), dropout=0.5))
        other = half.mlp.proj if branch is block.attention.proj else half.attention.proj
        nn.init.zeros_(other.weight), nn.init.zeros_(other.bias)
        assert not torch.equal(half(x), half(x))


def test_activation_checks_out_as_pytorchs(x: Tensor) -> None:
    """The activation is whatever class is named; GPT-2's is GELU's tanh approximation."""
    mlp = randomized(MLP(C, activation=partial(nn.GELU, approximate="tanh")))
    torch.testing.assert_close(mlp(x), mlp.proj(F.gelu(mlp.fc(x), approximate="tanh")))
