"""Drawing one id, and one id after the other."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_llm.backbone import GPT
from lit_llm.backbone.layers import Head
from lit_llm.inference.generate import generate, sample

B, T, H, C, V, BLOCK_SIZE = 2, 7, 4, 24, 97, 11
PROBABILITIES = torch.tensor([0.05, 0.5, 0.15, 0.3])  # in no order
NEVER = -math.inf


def gpt() -> GPT:
    torch.manual_seed(0)
    backbone = GPT(V, BLOCK_SIZE, 2, H, C, head=partial(Head, tied=False)).eval()
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.3)
    return backbone


def counting() -> GPT:
    """A backbone that says i + 1 after i: blocks that add nothing, one-hot embeddings, a shifted output matrix."""
    backbone = GPT(C, BLOCK_SIZE, 1, H, C, head=partial(Head, tied=False)).eval()
    for parameter in backbone.blocks.parameters():
        nn.init.zeros_(parameter)
    nn.init.zeros_(backbone.embedding.positions.weight)
    nn.init.eye_(backbone.embedding.tokens.weight)
    with torch.no_grad():
        backbone.head.linear.weight.copy_(torch.eye(C).roll(1, dims=0))
    return backbone


def prompt() -> Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))


def drawn(*args: Any, **settings: Any) -> list[list[int]]:
    """Ids by step and row."""
    return [new.tolist() for new in generate(*args, **settings)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def counts(probabilities: Tensor, draws: int = 20_000, **settings: Any) -> Tensor:
    rows = probabilities.log().expand(draws, -1)
    return sample(rows, generator=seeded(), **settings).bincount(minlength=len(probabilities))


def chi_square(counted: Tensor, probabilities: Tensor) -> float:
    expected = probabilities * counted.sum()
    return float(((counted - expected).square() / expected).sum())


# sample


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    """Pearson's statistic of 20,000 draws: 60 degrees of freedom, five standard deviations (11) above at most."""
    logits = torch.randn(61, generator=seeded(3))
    counted = counts(logits.softmax(-1), temperature=temperature)
    assert chi_square(counted, (logits / temperature).softmax(-1)) < 60 + 5 * 11
    assert chi_square(counted, (logits / (1.3 * temperature)).softmax(-1)) > 60 + 5 * 11  # it can tell


def test_temperature_zero_and_top_k_one_take_the_best() -> None:
    logits = torch.randn(1000, V, generator=seeded())
    best = logits.argmax(dim=-1)
    assert torch.equal(sample(logits, temperature=0.0), best)
    assert torch.equal(sample(logits, top_k=1), best)
    assert torch.equal(sample(logits, top_p=1e-9), best)


@pytest.mark.parametrize("temperature", [1e-30, 1e-6, 1e30])
def test_no_temperature_overflows(temperature: float) -> None:
    logits = 1e4 * torch.randn(1000, V, generator=seeded())
    ids = sample(logits, temperature=temperature, generator=seeded())
    assert torch.equal(ids, logits.argmax(dim=-1)) == (temperature < 1)


def test_top_k_draws_among_the_k_best_in_proportion() -> None:
    counted = counts(PROBABILITIES, top_k=2)
    assert counted[0] == counted[2] == 0
    assert chi_square(counted[[1, 3]], torch.tensor([0.5, 0.3]) / 0.8) < 1 + 5 * 1.4  # one degree of freedom
    assert torch.equal(counts(PROBABILITIES, top_k=4), counts(PROBABILITIES))
    assert torch.equal(counts(PROBABILITIES, top_k=99), counts(PROBABILITIES))


def test_top_k_keeps_no_more_than_k_of_equals() -> None:
    ids = sample(torch.zeros(1000, V), top_k=3, generator=seeded())
    assert len(ids.unique()) == 3


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.4, [1]), (0.6, [1, 3]), (0.79, [1, 3]), (0.81, [1, 2, 3]), (0.96, [0, 1, 2, 3])]
)
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, kept: list[int]) -> None:
    counted = counts(PROBABILITIES, top_p=top_p)
    assert counted.nonzero().flatten().tolist() == kept
    shares = PROBABILITIES[kept] / PROBABILITIES[kept].sum()
    assert chi_square(counted[kept], shares) < len(kept) + 5 * math.sqrt(2 * len(kept))


def test_top_p_is_of_what_top_k_leaves() -> None:
    """Of 0.5 and 0.3 the first alone is 0.625, so 0.6 leaves one; of all four it leaves two."""
    assert counts(PROBABILITIES, top_k=2, top_p=0.6).nonzero().flatten().tolist() == [1]


def test_top_p_one_keeps_every_id() -> None:
    """Even one whose better ones sum to 1 in fp32: the same draws as without."""
    logits = torch.randn(1000, 5000, generator=seeded())
    assert torch.equal(sample(logits, top_p=1.0, generator=seeded()), sample(logits, generator=seeded()))


def test_rows_are_drawn_apart() -> None:
    logits = torch.tensor([[0.0, NEVER, NEVER], [NEVER, NEVER, 0.0], [NEVER, 0.0, NEVER]])
    for settings in ({}, {"top_k": 2}, {"top_p": 0.9}):
        assert sample(logits, **settings).tolist() == [0, 2, 1]


def test_low_precision_logits_are_drawn_in_fp32() -> None:
    logits = torch.randn(1000, V, generator=seeded()).bfloat16()
    assert torch.equal(sample(logits, generator=seeded()), sample(logits.float(), generator=seeded()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, r"temperature -0\.1"),
        ({"temperature": math.nan}, "temperature nan"),
        ({"temperature": math.inf}, "temperature inf"),
        ({"top_k": 0}, "top_k 0"),
        ({"top_k": -3}, "top_k -3"),
        ({"top_p": 0.0}, r"top_p 0\.0"),
        ({"top_p": 1.1}, r"top_p 1\.1"),
        ({"temperature": 0.0, "top_k": 0}, "top_k 0"),
    ],
)
def test_arguments_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(torch.zeros(B, V), **settings)
    with pytest.raises(ValueError, match=message):
        drawn(gpt(), prompt(), 1, **settings)


# generate


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"top_k": 1}])
def test_greedy_is_the_best_id_again_and_again_in_a_sliding_window(settings: dict[str, Any]) -> None:
    """Far beyond block_size; the reference computes all logits of each window."""
    backbone, idx = gpt(), prompt()
    expected = []
    for _ in range(2 * BLOCK_SIZE):
        best = backbone(idx[:, -BLOCK_SIZE:]).argmax(dim=-1)[:, -1:]
        idx = torch.cat((idx, best), dim=1)
        expected.append(best.flatten().tolist())
    assert drawn(backbone, prompt(), 2 * BLOCK_SIZE, **settings) == expected
    backbone.block_size = BLOCK_SIZE - 1
    assert drawn(backbone, prompt(), 2 * BLOCK_SIZE, **settings) != expected  # it depends on the whole window


def test_a_seed_repeats_a_text() -> None:
    backbone = gpt()
    texts = [drawn(backbone, prompt(), 20, generator=seeded(seed)) for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]
    state = torch.get_rng_state()
    drawn(backbone, prompt(), 3, generator=seeded())
    assert torch.equal(torch.get_rng_state(), state)  # nor does it touch anybody else's randomness


def test_it_stops_once_every_row_has_ended() -> None:
    """The row that ends first goes on until the last one has."""
    backbone, idx = counting(), torch.tensor([[0, 3], [0, 7]])
    assert drawn(backbone, idx, 9, 0.0) == [[4 + i, 8 + i] for i in range(9)]
    assert drawn(backbone, idx, 99, 0.0, end_of_text=10) == [[4 + i, 8 + i] for i in range(7)]
    assert drawn(backbone, idx, 2, 0.0, end_of_text=10) == [[4, 8], [5, 9]]


def test_an_end_in_the_prompt_is_no_end() -> None:
    assert drawn(counting(), torch.tensor([[5, 5]]), 3, 0.0, end_of_text=5) == [[6], [7], [8]]


def test_no_gradient_and_no_change_of_the_prompt() -> None:
    backbone, idx = gpt(), prompt()
    new = next(generate(backbone, idx, 3))
    assert new.shape == (B,)
    assert new.is_inference()
    assert torch.is_grad_enabled()
    assert torch.equal(idx, prompt())


def test_no_token_is_asked_for_and_none_comes() -> None:
    assert drawn(gpt(), prompt(), 0) == []


def test_nothing_to_continue_is_refused() -> None:
    with pytest.raises(ValueError, match="no id to continue"):
        drawn(gpt(), prompt()[:, :0], 3)
    with pytest.raises(ValueError, match="max_new_tokens -1 "):
        drawn(gpt(), prompt(), -1)
