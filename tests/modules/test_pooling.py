"""One vector of a text's vectors: the right tokens count, and padding never does."""

import math

import pytest
import torch
from torch import nn

from lit_llm.backbone.pooling import FirstToken, LastToken, MeanTokens

LENGTHS = torch.tensor([7, 1, 3])
HIDDEN = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))  # (B, T, C)


def test_which_tokens_count() -> None:
    assert torch.equal(LastToken()(HIDDEN, LENGTHS), torch.stack([HIDDEN[0, 6], HIDDEN[1, 0], HIDDEN[2, 2]]))
    assert torch.equal(FirstToken()(HIDDEN, LENGTHS), HIDDEN[:, 0])
    means = torch.stack([HIDDEN[0].mean(0), HIDDEN[1, 0], HIDDEN[2, :3].mean(0)])
    torch.testing.assert_close(MeanTokens()(HIDDEN, LENGTHS), means)


@pytest.mark.parametrize("pooling", [LastToken(), FirstToken(), MeanTokens()])
def test_padding_may_be_anything(pooling: nn.Module) -> None:
    """Even NaN, which no multiplication by 0 takes away; neither in the vectors nor in their gradients."""
    padding = torch.arange(7) >= LENGTHS[:, None]
    spoilt = HIDDEN.masked_fill(padding[..., None], math.nan).requires_grad_()
    pooled = pooling(spoilt, LENGTHS)
    assert torch.equal(pooled, pooling(HIDDEN, LENGTHS))
    pooled.sum().backward()
    assert spoilt.grad is not None
    assert not spoilt.grad[padding].any()


@pytest.mark.parametrize("pooling", [LastToken(), FirstToken(), MeanTokens()])
def test_the_dtype_stays(pooling: nn.Module) -> None:
    """Though a mean is summed in fp32: 512 ones in bfloat16 would stop at 256."""
    ones = torch.ones(1, 512, 1, dtype=torch.bfloat16)
    assert pooling(ones, torch.tensor([512])).dtype == torch.bfloat16
    assert pooling(ones, torch.tensor([512])).item() == 1
