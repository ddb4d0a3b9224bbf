"""One id after the other, in rows that do not notice each other; and a draft model that guesses ahead."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_llm.backbone import GPT
from lit_llm.backbone.layers import CausalSelfAttention, Embedding, Head
from lit_llm.backbone.rotary import Rotary
from lit_llm.inference.generate import Drawn, generate
from lit_llm.inference.sampling import Sampling, probabilities
from lit_llm.inference.speculative import Speculation

H, C, V, BLOCK_SIZE = 4, 24, 97, 31
PROMPTS = [[5, 9, 2, 7, 7, 1, 3], [4], [8, 8, 60]]
GREEDY = Sampling(temperature=0.0)


class Forgetful(CausalSelfAttention):
    """An attention that keeps nothing in a cache, as one of a user's own."""

    def forward(self, x: Tensor, context: Any = None) -> Tensor:
        return super().forward(x)


PARTS: dict[str, dict[str, Any]] = {
    "learned positions": {},
    "window": {
        "attention": partial(CausalSelfAttention, rotary=Rotary, window=3, n_kv_head=2),
        "embedding": partial(Embedding, positions=False),
    },
    "no cache": {"attention": Forgetful},
}
every_part = pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)


def gpt(seed: int = 0, vocab_size: int = V, scale: float = 0.3, **parts: Any) -> GPT:
    torch.manual_seed(seed)
    backbone = GPT(vocab_size, BLOCK_SIZE, 2, H, C, **{"head": partial(Head, tied=False), **parts}).eval()
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=scale)
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


def rows(drawn: Any) -> list[list[int]]:
    """The new ids of each row."""
    return torch.stack([step.ids for step in drawn], dim=1).tolist()


@torch.no_grad()
def greedy_by_hand(backbone: GPT, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(backbone(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@every_part
def test_greedy_is_the_best_id_again_and_again(parts: dict[str, Any]) -> None:
    """In rows of different lengths, to the last position; the reference computes all logits each time."""
    backbone, count = gpt(**parts), BLOCK_SIZE - 7 + 1  # the last one is not read
    expected = [greedy_by_hand(backbone, prompt, count) for prompt in PROMPTS]
    assert rows(generate(backbone, PROMPTS, count, GREEDY)) == expected


@every_part
def test_a_seed_repeats_a_row_whatever_its_neighbours(parts: dict[str, Any]) -> None:
    backbone, sampling = gpt(**parts), Sampling(repetition_penalty=1.2, top_k=50)
    together = rows(generate(backbone, PROMPTS, 20, sampling, seeds=[5, 6, 7]))
    for number, prompt in enumerate(PROMPTS):
        assert rows(generate(backbone, [prompt], 20, sampling, seeds=[5 + number])) == [together[number]]
    state = torch.get_rng_state()
    assert rows(generate(backbone, PROMPTS, 20, sampling)) != together
    assert torch.equal(torch.get_rng_state(), state)  # nor does it touch anybody else's randomness


def test_a_penalty_counts_the_prompt_and_what_was_drawn() -> None:
    """With one that forbids all that came before, no id comes twice."""
    for new, prompt in zip(
        rows(generate(gpt(), PROMPTS, 24, Sampling(0.0, repetition_penalty=1e6))), PROMPTS, strict=True
    ):
        assert len({*new, *prompt}) == len(new) + len(set(prompt))


@torch.no_grad()
def test_logprobs_are_those_of_the_backbone() -> None:
    """Of each drawn id, before temperature and top_k."""
    backbone = gpt()
    steps = list(generate(backbone, PROMPTS, 9, Sampling(0.5, top_k=3), seeds=[1, 2, 3], logprobs=True))
    for row, prompt in enumerate(PROMPTS):
        ids = [*prompt, *(int(step.ids[row]) for step in steps)]
        exact = backbone(torch.tensor([ids]))[0].log_softmax(-1)
        for number, step in enumerate(steps):
            at = len(prompt) + number
            assert step.logprobs is not None
            assert float(step.logprobs[row]) == pytest.approx(float(exact[at - 1, ids[at]]), abs=1e-4)


def test_it_stops_once_every_row_has_ended() -> None:
    """The row that ends first goes on until the last one has; an end in the prompt is no end."""
    prompts = [[0, 3], [7]]
    assert rows(generate(counting(), prompts, 9, GREEDY)) == [[4 + i for i in range(9)], [8 + i for i in range(9)]]
    assert len(list(generate(counting(), prompts, 29, GREEDY, ends=[10]))) == 7
    assert len(list(generate(counting(), prompts, 2, GREEDY, ends=[10]))) == 2
    assert len(list(generate(counting(), prompts, 29, GREEDY, ends=[6, 10]))) == 3  # of several, each row's first
    assert rows(generate(counting(), [[5, 5]], 3, GREEDY, ends=[5])) == [[6, 7, 8]]


def test_no_gradient() -> None:
    new = next(generate(gpt(), PROMPTS, 3))
    assert new.ids.shape == (3,)
    assert new.ids.is_inference()
    assert torch.is_grad_enabled()


def test_what_cannot_be_is_refused_before_any_work() -> None:
    backbone = gpt()
    backbone.hidden_states = None  # type: ignore[assignment]  # no work can be done
    assert list(generate(backbone, PROMPTS, 0)) == []
    for prompts, count, message in (
        ([[1], []], 3, "no id to continue"),
        (PROMPTS, -1, "max_new_tokens -1 "),
        (PROMPTS, 26, r"a prompt of 7 tokens and 26 new ones do not fit the model's 31 positions"),
    ):
        with pytest.raises(ValueError, match=message):
            next(generate(backbone, prompts, count))


# with a draft model


@every_part
@pytest.mark.parametrize("draft_tokens", [1, 4])
def test_a_draft_changes_no_greedy_text(parts: dict[str, Any], draft_tokens: int) -> None:
    """One that is never right, and the model itself, of which every guess is kept."""
    backbone = gpt(**parts)
    for draft, rate in ((gpt(seed=1, **parts), None), (backbone, 1.0)):
        speculation = Speculation(backbone, draft, draft_tokens)
        for prompt in PROMPTS:
            count = BLOCK_SIZE - len(prompt) + 1
            assert rows(speculation.generate(prompt, count, GREEDY)) == [greedy_by_hand(backbone, prompt, count)]
        assert speculation.acceptance_rate == 1.0 if rate else speculation.acceptance_rate < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7, top_k=4, repetition_penalty=1.5)])
def test_a_draft_changes_no_distribution(sampling: Sampling) -> None:
    """Pearson's statistic of three ids, the last two of them judged, in 2,000 texts.

    Five standard deviations above its degrees of freedom at most; the draft's own distribution is far beyond.
    """
    backbone, draft = gpt(0, vocab_size=7), gpt(1, vocab_size=7)
    speculation, prompt = Speculation(backbone, draft, 3), [2, 5]
    counted = torch.zeros(7, 7, 7)
    for seed in range(2000):
        (ids,) = rows(speculation.generate(prompt, 3, sampling, seed))
        counted[tuple(ids)] += 1
    assert 0.05 < speculation.acceptance_rate < 0.95
    assert spread(counted, backbone, prompt, sampling) < 5
    assert spread(counted, draft, prompt, sampling) > 10


@torch.no_grad()
def spread(counted: Tensor, backbone: GPT, prompt: list[int], sampling: Sampling) -> float:
    """Standard deviations between Pearson's statistic of three ids and its mean."""

    def odds(ids: list[int]) -> Tensor:
        seen = torch.zeros(1, 7, dtype=torch.bool)
        seen[0, ids] = True
        return probabilities(backbone(torch.tensor([ids]))[:, -1], sampling, seen)[0]

    expected = torch.zeros(7, 7, 7)
    for a in range(7):
        for b in range(7):
            expected[a, b] = odds(prompt)[a] * odds([*prompt, a])[b] * odds([*prompt, a, b])
    expected = expected * counted.sum()
    rare = expected < 5  # for which the statistic does not hold; counted as one
    counts, means = (torch.cat((part[~rare], part[rare].sum()[None])) for part in (counted, expected))
    freedom = len(counts) - 1
    return float(((counts - means).square() / means.clamp(min=1)).sum() - freedom) / (2 * freedom) ** 0.5


def test_a_draft_tells_logprobs_and_ends_as_the_model_does() -> None:
    backbone, draft = gpt(), gpt(1)
    plain = list(generate(backbone, PROMPTS[:1], 20, GREEDY, logprobs=True))
    guessed: list[Drawn] = list(Speculation(backbone, draft).generate(PROMPTS[0], 20, GREEDY, logprobs=True))
    for one, other in zip(plain, guessed, strict=True):
        assert one.ids == other.ids
        assert float(one.logprobs) == pytest.approx(float(other.logprobs), abs=1e-4)  # type: ignore[arg-type]
    assert rows(Speculation(counting(), counting()).generate([3], 20, GREEDY, ends=[12, 9])) == [[4, 5, 6, 7, 8, 9]]


def test_drafts_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="the draft model knows 24 ids, not 97"):
        Speculation(gpt(), counting())
    with pytest.raises(ValueError, match="draft_tokens 0 cannot be"):
        Speculation(gpt(), gpt(), 0)
