"""The wiring of the whole: sizes, initialisation, the two ends, padding, what is counted."""

import copy
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_llm import GPT
from lit_llm.backbone.layers import CausalSelfAttention, Embedding, GatedMLP, Head
from lit_llm.backbone.rotary import Rotary

B, T, H, C, V, LAYERS, BLOCK_SIZE = 2, 7, 4, 24, 97, 3, 11
UNTIED = partial(Head, tied=False)


def gpt(**settings: Any) -> GPT:
    torch.manual_seed(0)
    return GPT(**{"vocab_size": V, "block_size": BLOCK_SIZE, "n_layer": LAYERS, "n_head": H, "n_embd": C, **settings})


def ids(length: int = T) -> Tensor:
    return torch.randint(V, (B, length), generator=torch.Generator().manual_seed(1))


def test_shapes() -> None:
    backbone = gpt()
    assert backbone.hidden_states(ids()).shape == (B, T, C)
    assert backbone(ids()).shape == (B, T, V)
    assert backbone.logits(torch.randn(B, C)).shape == (B, V)


def test_the_logits_of_one_position_equal_those_of_all() -> None:
    backbone = gpt()
    last = backbone.logits(backbone.hidden_states(ids())[:, -1])
    torch.testing.assert_close(last, backbone(ids())[:, -1])


def test_gpt2_starts_with_gpt2s_statistics() -> None:
    backbone = gpt(n_embd=96, head=UNTIED)
    for name, parameter in backbone.named_parameters():
        if "norm" in name:
            assert (parameter == (1 if name.endswith("weight") else 0)).all()
        elif name.endswith("bias"):
            assert not parameter.any()
        else:
            std = 0.02 / math.sqrt(2 * LAYERS) if ".proj." in name else 0.02
            error = 1 / math.sqrt(parameter.numel())  # standard error of the mean, in units of std
            assert abs(parameter.mean()) < 5 * std * error, name
            assert abs(parameter.std() / std - 1) < 5 * error / math.sqrt(2), name


def test_a_part_that_starts_in_its_own_way_keeps_it() -> None:
    class OwnMLP(GatedMLP):
        def init_weights(self) -> None:
            nn.init.constant_(self.proj.weight, 0.5)

    for block in gpt(mlp=OwnMLP).blocks:
        assert (block.mlp.proj.weight == 0.5).all()
        assert block.attention.proj.weight.std() < 0.02


def test_a_tied_head_is_the_token_table() -> None:
    backbone = gpt()
    shapes = [tuple(weight.shape) for weight in backbone.state_dict().values()]
    assert shapes.count((V, C)) == 1
    assert "embedding.tokens.weight" in backbone.state_dict()
    assert backbone.num_parameters() == sum(math.prod(shape) for shape in shapes)
    hidden = torch.randn(B, T, C)
    torch.testing.assert_close(backbone.logits(hidden), hidden @ backbone.embedding.tokens.weight.T)
    # Both ends teach it: an id that is never read still gets a gradient, from the output.
    backbone(ids()).logsumexp(-1).sum().backward()
    assert backbone.embedding.tokens.weight.grad.any(dim=1).all()


def test_an_untied_head_is_a_matrix_of_its_own() -> None:
    backbone = gpt(head=UNTIED)
    assert backbone.num_parameters() == gpt().num_parameters() + V * C
    hidden = torch.randn(B, T, C)
    torch.testing.assert_close(backbone.logits(hidden), hidden @ backbone.head.linear.weight.T)
    backbone(ids()).logsumexp(-1).sum().backward()
    read = torch.zeros(V, dtype=torch.bool).index_fill(0, ids().flatten(), True)
    assert torch.equal(backbone.embedding.tokens.weight.grad.any(dim=1), read)


@pytest.mark.parametrize("head", [Head, UNTIED, partial(Head, softcap=3.0)], ids=["tied", "untied", "soft cap"])
def test_padded_rows_reach_neither_logits_nor_loss(head: Any) -> None:
    plain, padded = gpt(head=head), gpt(head=head, vocab_multiple=64)
    assert len(padded.embedding.tokens.weight) == 128  # 97 rounded up to a multiple of 64
    with torch.no_grad():
        for name, weight in padded.state_dict().items():
            weight[: len(plain.state_dict()[name])] = plain.state_dict()[name]
    losses = []
    for backbone in (plain, padded):
        logits = backbone(ids())
        assert logits.shape == (B, T, V)
        losses.append(nn.functional.cross_entropy(logits.flatten(0, 1), ids().roll(-1, 1).flatten()))
        losses[-1].backward()
    torch.testing.assert_close(losses[1], losses[0])
    for (name, ours), theirs in zip(padded.named_parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad[: len(theirs)], theirs.grad, msg=name)
        assert not ours.grad[len(theirs) :].any()


def test_embedding_adds_positions_to_scaled_tokens() -> None:
    embedding = Embedding(V, BLOCK_SIZE, C, scale=5.0)
    tokens, positions = embedding.tokens.weight, embedding.positions.weight
    torch.testing.assert_close(embedding(ids()), 5.0 * tokens[ids()] + positions[:T])
    restarting = torch.tensor([[0, 1, 2, 3, 0, 1, 2], [0, 0, 1, 0, 1, 2, 3]])
    torch.testing.assert_close(embedding(ids(), restarting), 5.0 * tokens[ids()] + positions[restarting])
    without = Embedding(V, BLOCK_SIZE, C, positions=False)
    assert torch.equal(without(ids()), without.tokens.weight[ids()])


def test_the_embedding_scale_is_rounded_as_gemma_was_trained() -> None:
    """In bfloat16 sqrt(2048) is 45.25, and the product of a 1 shows it."""
    embedding = Embedding(V, BLOCK_SIZE, C, positions=False, scale=2048**0.5).bfloat16()
    nn.init.ones_(embedding.tokens.weight)
    assert (embedding(ids()) == 45.25).all()


def test_the_final_soft_cap_bounds_the_logits() -> None:
    head, table, hidden = Head(V, C, softcap=3.0), torch.randn(V, C), torch.randn(B, T, C)
    torch.testing.assert_close(head(hidden, table), 3.0 * torch.tanh(hidden @ table.T / 3.0))


def test_an_input_beyond_the_learned_positions_is_refused() -> None:
    backbone = gpt()
    assert backbone(ids(BLOCK_SIZE)).shape == (B, BLOCK_SIZE, V)
    with pytest.raises(ValueError, match=r"12 tokens .* 11 learned positions"):
        backbone(ids(BLOCK_SIZE + 1))


@pytest.mark.parametrize("name", ["vocab_size", "block_size", "n_layer", "n_head", "n_embd", "vocab_multiple"])
def test_a_size_below_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} -2 "):
        gpt(**{name: -2})
    with pytest.raises(ValueError, match=f"{name} 0 "):
        gpt(**{name: 0})


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"n_embd": 25}, r"n_embd 25 .* n_head 4"),
        ({"attention": partial(CausalSelfAttention, n_kv_head=3)}, r"n_head 4 .* n_kv_head 3"),
    ],
)
def test_heads_that_do_not_fit_are_refused_before_a_table_is_allocated(settings: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        gpt(vocab_size=10**13, **settings)  # a table of a petabyte


def test_flops_of_gpt2_small() -> None:
    """6 N + 12 n_layer n_embd block_size; N without the positions, and with one token table, tied or not."""
    with torch.device("meta"):
        tied, untied = GPT(50257, 1024), GPT(50257, 1024, head=UNTIED)
    assert tied.num_parameters() == 124_439_808
    assert tied.flops_per_token() == 6 * (124_439_808 - 1024 * 768) + 12 * 12 * 768 * 1024
    assert untied.flops_per_token() == tied.flops_per_token()


def test_flops_follow_the_heads() -> None:
    """Scores and what they weigh are as wide as all heads together, whatever the width of the residual stream."""
    with torch.device("meta"):
        narrow, wide = (
            GPT(97, 7, n_layer=2, n_head=4, n_embd=24, attention=partial(CausalSelfAttention, head_dim=size))
            for size in (5, 11)
        )
    weights = 6 * (wide.num_parameters() - narrow.num_parameters())
    assert wide.flops_per_token() - narrow.flops_per_token() == weights + 2 * 12 * 7 * 4 * (11 - 5)


def test_validating_first_does_not_spoil_training() -> None:
    """What a forward under inference mode leaves behind would break the next backward."""
    backbone = gpt(attention=partial(CausalSelfAttention, rotary=Rotary, window=3))
    with torch.inference_mode():
        expected = backbone(ids())
    logits = backbone(ids())
    logits.sum().backward()
    assert torch.equal(logits, expected)
    assert torch.equal(copy.deepcopy(backbone)(ids()), expected)
