"""Text in, text out."""

import pytest
import torch
from python_runs import V, tiny_backbone

from lit_llm.data.tokenizer import Bytes, Characters
from lit_llm.inference.generate import generate
from lit_llm.inference.sampling import Sampling
from lit_llm.inference.text import Asked, TextModel

PROMPT, NEW = "the cat sat", 21
GREEDY = Sampling(0.0)


def model(**settings: int) -> TextModel:
    return TextModel(tiny_backbone(scale=4.0, block_size=64, **settings).eval(), Bytes())


def characters(end_of_text: bool = False) -> TextModel:
    tokenizer = Characters(end_of_text)
    tokenizer.fit(["the cat sat on a mat"])
    return TextModel(tiny_backbone(scale=4.0, vocab_size=tokenizer.vocab_size, block_size=64).eval(), tokenizer)


def test_temperature_zero_is_greedy() -> None:
    """The best token again and again, by a plain loop over ever longer texts."""
    ids = list(PROMPT.encode())
    with torch.no_grad():
        for _ in range(NEW):
            ids.append(int(model().backbone(torch.tensor([ids]))[0, -1].argmax()))
    new = bytes(i for i in ids[len(PROMPT) :] if i < 256).decode(errors="replace")
    assert 256 not in ids  # no end of text, which would have stopped it
    assert model().complete(PROMPT, Asked(NEW, GREEDY)) == new
    assert model().complete(PROMPT, Asked(NEW, Sampling(top_k=1)), seed=5) == new


def test_a_seed_repeats_a_text() -> None:
    """And nothing else does; the randomness of others is left alone."""
    state = torch.get_rng_state()
    texts = [model().complete(PROMPT, Asked(20), seed=seed) for seed in (5, 5, 6, None, None)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 4
    assert torch.equal(torch.get_rng_state(), state)


def test_an_empty_prompt_starts_from_the_end_of_text() -> None:
    """The token that stands before every text; a tokenizer without one says so."""
    own = model()
    drawn = [int(new.ids) for new in generate(own.backbone, [[256]], 9, GREEDY)]
    assert own.complete("", Asked(9, GREEDY)) == own.tokenizer.decode(drawn)
    assert characters(end_of_text=True).complete("", Asked(5), seed=0) != ""
    with pytest.raises(ValueError, match="the prompt is empty, and this tokenizer has no token to start"):
        characters().complete("", Asked(5))


def test_the_end_of_a_text_ends_it_and_is_not_shown() -> None:
    """Here the network says nothing but the end, and then nothing but a space."""
    own = characters(end_of_text=True)
    backbone, end = own.backbone, own.tokenizer.end_of_text
    for wanted, text in ((end, ""), (0, " " * 6)):
        with torch.no_grad():
            backbone.norm.weight.zero_()
            backbone.norm.bias.copy_(100 * backbone.embedding.tokens.weight[wanted])
            backbone.embedding.tokens.weight[wanted].mul_(3)
        assert own.complete("cat", Asked(6, GREEDY)) == text
    own.tokenizer.other_ends = (0,)
    assert own.complete("cat", Asked(6, GREEDY)) == ""


def test_a_character_that_the_corpus_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="the character 'é' is not among the 10 of the corpus"):
        characters().complete("the catés", Asked(5))


def test_rows_that_pad_the_table_are_never_drawn() -> None:
    """Not even where they would win by far, at a temperature at which every token comes up."""
    own = model(vocab_multiple=64)
    with torch.no_grad():
        assert own.backbone.embedding.tokens.weight.shape[0] == 320
        own.backbone.norm.bias.fill_(1.0)
        own.backbone.embedding.tokens.weight[V:] = 1e3
        assert own.backbone.head(own.backbone.norm.bias, own.backbone.embedding.tokens.weight).argmax() >= V
    for temperature in (0.0, 1.0, 50.0):
        for drawn in generate(own.backbone, [[0]] * 40, 20, Sampling(temperature), seeds=range(40)):
            assert drawn.ids.max() < V


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    """Half a character at the end of the drawn bytes is no error."""
    assert "\ufffd" in model().complete(PROMPT, Asked(40, Sampling(50.0)), seed=0)


PROMPTS = ["the cat sat", "a", "on the mat, on the", "the cat"]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_texts_together_are_texts_alone(batch_size: int) -> None:
    """Each with the seed of its place, its stop string, its end; whatever is continued beside it."""
    own, asked = model(), Asked(30, Sampling(0.9, top_p=0.95), stop=("t", "\x0c"), logprobs=True)
    together = list(own.complete_all(PROMPTS, asked, seed=5, batch_size=batch_size))
    for number, (prompt, text) in enumerate(zip(PROMPTS, together, strict=True)):
        (alone,) = own.complete_all([prompt], asked, seed=5 + number)
        assert (text.text, text.ids, text.finish_reason) == (alone.text, alone.ids, alone.finish_reason)
        assert text.logprobs == pytest.approx(alone.logprobs, abs=1e-4)  # fp32, another order of the sums
        assert "".join(own.stream(prompt, asked, seed=5 + number)) == text.text
        assert "t" not in text.text
        assert text.finish_reason == ("length" if len(text.ids) == 30 and text.ids[-1] not in (116, 12) else "stop")
        assert text.logprobs is not None
        assert len(text.logprobs) == len(text.ids)
    assert {text.finish_reason for text in together} == {"length", "stop"}


def test_tokens_end_where_the_positions_do() -> None:
    """Unless so many were asked for by name; each prompt has its own limit."""
    own = model()
    lengths = [len(text.ids) for text in own.complete_all(["a", "b" * 60, "c" * 63], Asked(None, GREEDY))]
    assert lengths == [64, 5, 2]  # the last one is drawn and not read
    for prompt, asked in (("b" * 60, Asked(6)), ("b" * 65, Asked())):
        with pytest.raises(ValueError, match="do not fit the model's 64 positions"):
            own.complete(prompt, asked)
    for message, settings in (("max_new_tokens -1", {"max_new_tokens": -1}), ("stop string ''", {"stop": ("",)})):
        with pytest.raises(ValueError, match=message):
            Asked(**settings)


def test_a_draft_writes_the_same_text() -> None:
    own, asked = model(), Asked(30, GREEDY)
    plain = [text.text for text in own.complete_all(PROMPTS, asked)]
    own.speculate(model(n_head=2), draft_tokens=3)
    assert [text.text for text in own.complete_all(PROMPTS, asked)] == plain
    assert own.speculation is not None
    assert own.speculation.guessed > 0
    with pytest.raises(ValueError, match="the draft model has another tokenizer than the model"):
        own.speculate(characters())
