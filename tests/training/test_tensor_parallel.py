"""How tensor parallelism cuts: each part of a fused matrix by itself, and nothing that it does not know."""

from functools import partial

import pytest
import torch
from python_runs import C, tiny_backbone
from torch import nn

from lit_llm.backbone.layers import CausalSelfAttention, GatedMLP, Head
from lit_llm.training.tensor_parallel import Split, splittable


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_pieces_join_to_the_whole(axis, ranks) -> None:
    """Whatever the sizes of the parts, no value is lost, doubled or moved."""
    whole = torch.arange(20.0 * 3).view(20, 3)
    whole = whole if axis == 0 else whole.T.contiguous()
    split = Split(axis, [12, 4, 4])
    pieces = [split.piece(whole, rank, ranks) for rank in range(ranks)]
    assert {piece.shape[axis] for piece in pieces} == {20 // ranks}
    assert torch.equal(split.joined(pieces), whole)


def test_a_rank_gets_queries_keys_and_values_of_its_own_heads() -> None:
    """Four query heads over two key-value heads, on two ranks: two queries and the key-value head that they share."""
    (attention, mlp) = splittable(tiny_backbone(attention=partial(CausalSelfAttention, n_kv_head=2), mlp=GatedMLP), 2)
    D = C // 4
    rows = torch.arange(8 * D).view(8 * D, 1)
    assert Split(0, attention.sizes).piece(rows, 1, 2).flatten().tolist() == [
        *range(2 * D, 4 * D),
        *range(5 * D, 6 * D),
        *range(7 * D, 8 * D),
    ]
    assert mlp.sizes == [64, 64]  # gate and up


class OwnAttention(CausalSelfAttention):
    pass


REFUSED = {
    "n_kv_head": (
        {"attention": partial(CausalSelfAttention, n_kv_head=1)},
        "the 4 and 1 heads of 'blocks.0.attention'",
    ),
    "hidden": (
        {"mlp": partial(GatedMLP, hidden=33)},
        "the 33 hidden units of 'blocks.0.mlp' cannot be shared by 2 ranks",
    ),
    "subclass": ({"attention": OwnAttention}, "cannot share 'blocks.0.attention.qkv.weight'"),
    "activation": ({"mlp": partial(GatedMLP, activation=nn.PReLU)}, "cannot share 'blocks.0.mlp.activation.weight'"),
    "dropout": (
        {"attention": partial(CausalSelfAttention, dropout=0.1)},
        "'blocks.0.attention.dropout' drops out with 0.1",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_share_is_named(name) -> None:
    """A wrong cut would train, and be wrong."""
    settings, said = REFUSED[name]
    with pytest.raises(ValueError, match=said):
        splittable(tiny_backbone(**settings), 2)


def test_what_lies_outside_the_blocks_is_not_its_business() -> None:
    assert len(splittable(tiny_backbone(n_layer=3, head=partial(Head, tied=False)), 4)) == 6
