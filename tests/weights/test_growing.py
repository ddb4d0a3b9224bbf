"""A pretrained backbone with rows for new tokens."""

from functools import partial
from pathlib import Path

import pytest
import torch
from python_runs import tiny_backbone
from tiny_gpt2 import tensors, write_gpt2

from lit_llm.backbone import GPT
from lit_llm.backbone.layers import Head
from lit_llm.weights.build import build, tensors_of
from lit_llm.weights.families.names import Entry, Same
from lit_llm.weights.growing import fill_grown
from lit_llm.weights.matching import Stored
from lit_llm.weights.open import open_source
from lit_llm.weights.source import Source

IDX = torch.arange(14).view(2, 7)


def source_of(backbone: GPT, vocab_size: int, vocab_multiple: int) -> Source:
    weights = tensors_of(backbone)
    return Source(
        "tiny",
        {"class_path": "lit_llm.GPT", "init_args": {"vocab_size": vocab_size, "vocab_multiple": vocab_multiple}},
        {name: Stored(tuple(value.shape), value.dtype) for name, value in weights.items()},
        lambda name: weights[name].detach(),
        lambda module: [Entry(name, (name,), Same()) for name in tensors_of(module)],
        lambda name: False,
    )


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("head", [Head, partial(Head, tied=False), partial(Head, tied=False, bias=True)])
def test_old_rows_stay_and_new_ones_are_their_mean(multiple: int, head: type) -> None:
    """In the token table and in a head of its own; 61 ids of padded tables of 64 become 63, or 67 of 72."""
    made = partial(tiny_backbone, head=head, vocab_multiple=multiple)
    old = made(5.0, vocab_size=61).eval()
    for size in (63, 67):
        new = made(vocab_size=size).eval()
        new.embedding.tokens.weight.requires_grad_(False)
        filled = fill_grown(source_of(old, 61, multiple), new, new, torch.float32, range(61, size))
        assert filled.loaded == len(tensors_of(new))
        assert not new.embedding.tokens.weight.requires_grad
        with torch.no_grad():
            logits, grown = old(IDX), new(IDX)
        assert grown.shape[-1] == size
        torch.testing.assert_close(grown[..., :61], logits)
        # The mean of the logits is the logit of the mean row: a product is linear.
        torch.testing.assert_close(grown[..., 61:], logits.mean(-1, keepdim=True).expand(-1, -1, size - 61))
        table = new.embedding.tokens.weight
        torch.testing.assert_close(table[61:size], old.embedding.tokens.weight[:61].mean(0).expand(size - 61, -1))
        assert table.shape[0] % multiple == 0


def test_rows_that_a_model_has_in_reserve(tmp_path: Path) -> None:
    """A tokenizer of fewer ids than the model: new ones take rows of it, and start at the mean of the known."""
    source = open_source(write_gpt2(tmp_path / "gpt2"))
    backbone = build(source.settings)
    fill_grown(source, backbone, backbone, torch.float32, range(90, 92))
    stored = tensors()["transformer.wte.weight"]
    table = backbone.embedding.tokens.weight
    torch.testing.assert_close(table[90:92], stored[:90].mean(0).expand(2, -1))
    assert torch.equal(table[:90], stored[:90])
    assert torch.equal(table[92:], stored[92:])
