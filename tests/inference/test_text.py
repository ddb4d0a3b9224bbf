"""Text in, text out."""

import pytest
import torch
from python_runs import T, V, tiny_backbone

from lit_llm.data.tokenizer import Bytes, Characters
from lit_llm.inference.generate import generate
from lit_llm.inference.text import TextModel

PROMPT = "the cat sat"  # longer than the window


def model(**settings: int) -> TextModel:
    return TextModel(tiny_backbone(scale=4.0, **settings).eval(), Bytes())


def characters(end_of_text: bool = False) -> TextModel:
    tokenizer = Characters(end_of_text)
    tokenizer.fit(["the cat sat on a mat"])
    return TextModel(tiny_backbone(scale=4.0, vocab_size=tokenizer.vocab_size).eval(), tokenizer)


def test_temperature_zero_is_greedy() -> None:
    """The best token again and again, by a plain loop over ever longer texts; the window slides."""
    ids = list(PROMPT.encode())
    with torch.no_grad():
        for _ in range(3 * T):
            ids.append(int(model().backbone(torch.tensor([ids[-T:]]))[0, -1].argmax()))
    new = bytes(i for i in ids[len(PROMPT) :] if i < 256).decode(errors="replace")
    assert 256 not in ids  # no end of text, which would have stopped it
    assert model().complete(PROMPT, 3 * T, temperature=0.0) == new
    assert model().complete(PROMPT, 3 * T, temperature=1.0, top_k=1, seed=5) == new


def test_a_seed_repeats_a_text() -> None:
    """And nothing else does; the randomness of others is left alone."""
    state = torch.get_rng_state()
    texts = [model().complete(PROMPT, 20, seed=seed) for seed in (5, 5, 6, None, None)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 4
    assert torch.equal(torch.get_rng_state(), state)


def test_an_empty_prompt_starts_from_the_end_of_text() -> None:
    """The token that stands before every text; a tokenizer without one says so."""
    own = model()
    drawn = [int(new) for new in generate(own.backbone, torch.tensor([[256]]), 9, 0.0)]
    assert own.complete("", 9, temperature=0.0) == own.tokenizer.decode(drawn)
    assert characters(end_of_text=True).complete("", 5, seed=0) != ""
    with pytest.raises(ValueError, match="the prompt is empty, and this tokenizer has no token to start"):
        characters().complete("", 5)


def test_the_end_of_a_text_ends_it_and_is_not_shown() -> None:
    """Here the network says nothing but the end, and then nothing but a space."""
    own = characters(end_of_text=True)
    backbone, end = own.backbone, own.tokenizer.end_of_text
    for wanted, text in ((end, ""), (0, " " * 6)):
        with torch.no_grad():
            backbone.norm.weight.zero_()
            backbone.norm.bias.copy_(100 * backbone.embedding.tokens.weight[wanted])
            backbone.embedding.tokens.weight[wanted].mul_(3)
        assert own.complete("cat", 6, temperature=0.0) == text


def test_a_character_that_the_corpus_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="the character 'é' is not among the 10 of the corpus"):
        characters().complete("the catés", 5)


def test_rows_that_pad_the_table_are_never_drawn() -> None:
    """Not even where they would win by far, at a temperature at which every token comes up."""
    own = model(vocab_multiple=64)
    with torch.no_grad():
        assert own.backbone.embedding.tokens.weight.shape[0] == 320
        own.backbone.norm.bias.fill_(1.0)
        own.backbone.embedding.tokens.weight[V:] = 1e3
        assert own.backbone.head(own.backbone.norm.bias, own.backbone.embedding.tokens.weight).argmax() >= V
    generator = torch.Generator().manual_seed(0)
    for temperature in (0.0, 1.0, 50.0):
        rows = torch.zeros(40, 1, dtype=torch.long)
        drawn = torch.stack(list(generate(own.backbone, rows, 20, temperature, generator=generator)))
        assert drawn.max() < V


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    """Half a character at the end of the drawn bytes is no error."""
    assert "\ufffd" in model().complete(PROMPT, 40, temperature=50.0, seed=0)
