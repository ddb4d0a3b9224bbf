"""Drawing one id."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_llm.inference.sampling import Sampling, generators_of, probabilities
from lit_llm.inference.sampling import sample as draw_ids

B, V = 2, 97
PROBABILITIES = torch.tensor([0.05, 0.5, 0.15, 0.3])  # in no order
NEVER = -math.inf


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample(logits: Tensor, seed: int = 0, seen: Tensor | None = None, **settings: Any) -> Tensor:
    return draw_ids(logits, Sampling(**settings), [seeded(seed)] * len(logits), seen)


def kept(probability: Tensor, **settings: Any) -> list[int]:
    """The ids that can come, and that each comes in proportion to its own probability."""
    result = probabilities(probability.log()[None], Sampling(**settings))[0]
    ids = result.nonzero().flatten()
    assert torch.allclose(result[ids], probability[ids] / probability[ids].sum())
    return ids.tolist()


def chi_square(counted: Tensor, expected: Tensor) -> float:
    expected = expected * counted.sum()
    return float(((counted - expected).square() / expected).sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    """Pearson's statistic of 20,000 draws: 60 degrees of freedom, five standard deviations (11) above at most."""
    logits = torch.randn(61, generator=seeded(3))
    drawn = sample(logits.expand(20_000, -1), temperature=temperature).bincount(minlength=61)
    assert chi_square(drawn, (logits / temperature).softmax(-1)) < 60 + 5 * 11
    assert chi_square(drawn, (logits / (1.3 * temperature)).softmax(-1)) > 60 + 5 * 11  # it can tell


def test_temperature_zero_and_top_k_one_take_the_best() -> None:
    logits = torch.randn(1000, V, generator=seeded())
    best = logits.argmax(dim=-1)
    for settings in ({"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}):
        assert torch.equal(sample(logits, **settings), best)


@pytest.mark.parametrize("temperature", [1e-30, 1e-6, 1e30])
def test_no_temperature_overflows(temperature: float) -> None:
    """N5: nor do logits of ±1e4 and beyond."""
    logits = 1e4 * torch.randn(1000, V, generator=seeded())
    assert torch.equal(sample(logits, temperature=temperature), logits.argmax(dim=-1)) == (temperature < 1)
    assert probabilities(logits, Sampling(temperature, repetition_penalty=2.0), logits > 0).isfinite().all()


def test_top_k_draws_among_the_k_best() -> None:
    assert kept(PROBABILITIES, top_k=2) == [1, 3]
    assert kept(PROBABILITIES, top_k=4) == kept(PROBABILITIES, top_k=99) == [0, 1, 2, 3]
    assert len(sample(torch.zeros(1000, V), top_k=3).unique()) == 3  # no more than k of equals


@pytest.mark.parametrize(
    ("top_p", "ids"), [(0.4, [1]), (0.6, [1, 3]), (0.79, [1, 3]), (0.81, [1, 2, 3]), (0.96, [0, 1, 2, 3])]
)
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, ids: list[int]) -> None:
    assert kept(PROBABILITIES, top_p=top_p) == ids


def test_top_p_is_of_what_top_k_leaves() -> None:
    """Of 0.5 and 0.3 the first alone is 0.625, so 0.6 leaves one; of all four it leaves two."""
    assert kept(PROBABILITIES, top_k=2, top_p=0.6) == [1]


def test_top_p_one_keeps_every_id() -> None:
    """Even one whose better ones sum to 1 in fp32: the same draws as without."""
    logits = torch.randn(100, 5000, generator=seeded())
    assert torch.equal(sample(logits, top_p=1.0), sample(logits))


@pytest.mark.parametrize(("min_p", "ids"), [(0.0, [0, 1, 2, 3]), (0.09, [0, 1, 2, 3]), (0.2, [1, 2, 3]), (0.5, [1, 3])])
def test_min_p_is_a_share_of_the_best(min_p: float, ids: list[int]) -> None:
    assert kept(PROBABILITIES, min_p=min_p) == ids


def test_a_repetition_penalty_lowers_what_was_seen() -> None:
    """Whatever the sign of its score; the rest stays in proportion."""
    logits, seen = torch.tensor([[2.0, -2.0, 1.0, -1.0]]), torch.tensor([[True, True, False, False]])
    penalised = probabilities(logits, Sampling(repetition_penalty=2.0), seen)
    assert torch.allclose(penalised, torch.tensor([[1.0, -4.0, 1.0, -1.0]]).softmax(-1))
    assert sample(logits, temperature=0.0, repetition_penalty=3.0, seen=seen).tolist() == [2]


def test_rows_are_drawn_apart() -> None:
    logits = torch.tensor([[0.0, NEVER, NEVER], [NEVER, NEVER, 0.0], [NEVER, 0.0, NEVER]])
    for settings in ({}, {"top_k": 2}, {"top_p": 0.9}, {"min_p": 0.1}):
        assert sample(logits, **settings).tolist() == [0, 2, 1]


def test_a_row_has_its_own_random_numbers() -> None:
    logits = torch.randn(3, V, generator=seeded())
    alone = [draw_ids(logits[row : row + 1], Sampling(), generators_of([row], logits.device))[0] for row in range(3)]
    assert draw_ids(logits, Sampling(), generators_of([0, 1, 2], logits.device)).tolist() == alone


def test_low_precision_logits_are_drawn_in_fp32() -> None:
    logits = torch.randn(1000, V, generator=seeded()).bfloat16()
    assert torch.equal(sample(logits), sample(logits.float()))


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
        ({"min_p": -0.1}, r"min_p -0\.1"),
        ({"min_p": 1.5}, r"min_p 1\.5"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty 0\.0"),
        ({"temperature": 0.0, "top_k": 0}, "top_k 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)
