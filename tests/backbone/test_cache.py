"""What is computed with a cache is what is computed without one, for every choice of parts."""

from typing import Any

import pytest
import torch
from test_every_variant import BLOCK_SIZE, H, V, attention, build, every_variant, ids
from torch import Tensor, nn

from lit_llm.backbone import GPT, attention_by_blocks, attention_kernels
from lit_llm.backbone.cache import Cache
from lit_llm.backbone.context import Context
from lit_llm.backbone.experts import Experts

LENGTHS = [7, 2, 4]  # of the rows of a ragged batch; with a window of 3, one shorter and two longer


@pytest.fixture(params=[False, True], ids=["short", "long"])
def reads_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention as over a few keys, or as over many."""
    monkeypatch.setattr(attention_kernels, "FROM_MEMORY", 1 if request.param else 2**62)


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-5 * b.abs().max())  # fp32, another order of the sums


def logits(backbone: GPT, cache: Cache, idx: Tensor, counts: Tensor | None = None) -> Tensor:
    cache.expect(idx.shape[1], counts)
    return backbone(idx, Context(cache=cache))


def decoded(backbone: GPT, idx: Tensor, prompt: int, size: int = BLOCK_SIZE) -> Tensor:
    """Logits of all tokens: those of the prompt in one pass, each other one in its own."""
    cache = Cache(size)
    parts = [logits(backbone, cache, idx[:, :prompt])]
    parts += [logits(backbone, cache, idx[:, t : t + 1]) for t in range(prompt, idx.shape[1])]
    assert len(cache) == len(backbone.blocks)
    return torch.cat(parts, dim=1)


@pytest.mark.usefixtures("reads_memory")
@every_variant
@torch.no_grad()
@pytest.mark.parametrize("prompt", [1, 2, 5])
def test_decoding_equals_one_pass(parts: dict[str, Any], prompt: int) -> None:
    """From prompts shorter and longer than the window (3), until the positions end, far past the window."""
    backbone, idx = build(parts), ids(2, BLOCK_SIZE)
    assert close(decoded(backbone, idx, prompt), backbone(idx))


@pytest.mark.usefixtures("reads_memory")
@every_variant
@torch.no_grad()
def test_rows_of_different_lengths_equal_rows_alone(parts: dict[str, Any]) -> None:
    """N8: what pads a row, and how long its neighbours are, changes nothing."""
    backbone, idx, counts = build(parts), ids(len(LENGTHS), BLOCK_SIZE), torch.tensor(LENGTHS)
    steps = BLOCK_SIZE - max(LENGTHS)
    for padding in (0, V - 1):
        cache = Cache(BLOCK_SIZE)
        prompts = idx[:, : max(LENGTHS)].where(torch.arange(max(LENGTHS)) < counts[:, None], padding)
        first = logits(backbone, cache, prompts, counts)
        rest = [logits(backbone, cache, idx.gather(1, (counts + t)[:, None])) for t in range(steps)]
        for row, count in enumerate(LENGTHS):
            alone = backbone(idx[row : row + 1, : count + steps])[0]
            assert close(torch.cat((first[row, :count], *(step[row] for step in rest))), alone)


@every_variant
@torch.no_grad()
def test_the_last_token_of_a_prompt_changes_no_earlier_logit(parts: dict[str, Any]) -> None:
    backbone, idx = build(parts), ids(2, BLOCK_SIZE)
    changed = idx.clone()
    changed[:, 6] = (changed[:, 6] + 1) % V
    before, after = decoded(backbone, idx, 7), decoded(backbone, changed, 7)
    # Experts multiply the tokens that they get, which are now one more or less, so that sums take another order.
    tolerance = 1e-5 if any(isinstance(part, Experts) for part in backbone.modules()) else 0.0
    assert torch.allclose(before[:, :6], after[:, :6], rtol=0, atol=tolerance)
    assert not torch.isclose(before[:, 6:], after[:, 6:]).all(-1).any()


@pytest.mark.usefixtures("reads_memory")
@every_variant
@torch.no_grad()
def test_tokens_taken_back_leave_no_trace(parts: dict[str, Any]) -> None:
    """As a draft model's guesses are: three are read in one pass, and up to all of them forgotten."""
    backbone, idx, guesses = build(parts), ids(1, BLOCK_SIZE), ids(1, 2 * BLOCK_SIZE).flip(1)
    exact = backbone(idx)
    for kept in (1, 2, 3):
        cache, t = Cache(BLOCK_SIZE, spare=2), 5
        assert close(logits(backbone, cache, idx[:, :t]), exact[:, :t])
        while t + 3 <= BLOCK_SIZE:
            block = torch.cat((idx[:, t : t + kept], guesses[:, t : t + 3 - kept]), dim=1)
            assert close(logits(backbone, cache, block)[:, :kept], exact[:, t : t + kept])
            t += kept
            cache.rewind(t)


@torch.no_grad()
def test_a_ring_is_not_taken_for_tokens_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest window, and passes over as many tokens as a ring of its own size would have slots."""
    monkeypatch.setattr(attention_by_blocks, "BLOCK", 1)
    backbone, idx, cache = build(attention(window=1)), ids(1, BLOCK_SIZE), Cache(BLOCK_SIZE, spare=2)
    found = [logits(backbone, cache, part) for part in idx.split([4, 3, 3, 1], dim=1)]
    assert close(torch.cat(found, dim=1), backbone(idx))


@torch.no_grad()
def test_a_window_needs_no_more_memory_than_it_sees() -> None:
    """A ring of its size, whatever the text's length; and it is a window: tokens before it change nothing."""
    torch.manual_seed(0)
    backbone = GPT(V, 40, 1, H, 24, **attention(window=3)).eval()
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.3)
    idx, cache = ids(2, 40), Cache(40)
    assert close(decoded(backbone, idx, 9, size=40), backbone(idx))
    logits(backbone, cache, idx[:, :9])
    keys, values = next(iter(cache._stored.values()))
    assert keys.shape == values.shape == (2, H, 3, 6)


@torch.no_grad()
def test_memory_is_taken_once() -> None:
    """Decoding writes into what the first pass has made."""
    backbone, idx, cache = build({}), ids(2, BLOCK_SIZE), Cache(BLOCK_SIZE)
    logits(backbone, cache, idx[:, :4])
    places = [tensor.data_ptr() for pair in cache._stored.values() for tensor in pair]
    for t in range(4, BLOCK_SIZE):
        logits(backbone, cache, idx[:, t : t + 1])
    assert [tensor.data_ptr() for pair in cache._stored.values() for tensor in pair] == places


def test_more_than_fits_is_refused() -> None:
    backbone, idx, cache = build({}), ids(1, BLOCK_SIZE), Cache(5, spare=1)
    with pytest.raises(ValueError, match="0 \\+ 6 tokens do not fit a cache of 5"):
        logits(backbone, cache, idx[:, :6])
    with torch.no_grad():
        logits(backbone, cache, idx[:, :2])
    with pytest.raises(ValueError, match="a pass over 3 more tokens"):
        cache.expect(3)
    for length in (0, 3):
        with pytest.raises(ValueError, match=f"{length} tokens cannot be what stays of 2"):
            cache.rewind(length)
