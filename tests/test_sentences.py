"""Messages in the user's words: no name of a library's inner class, whatever is wrong."""

import re
from pathlib import Path

import pytest
from cli_runs import call, refusal, write_tiny

from lit_llm.weights.build import build

INNER = re.compile(r"Namespace\(|NestedArg|ActionTypeHint|typing\.|Union\[|Optional\[|<class '")
WRONG = {
    "--model.trainable.last_blocks=2": "'model.trainable' must be str, a list or a mapping, not 'last_blocks: 2' (What",
    "--model.unfreeze_by.x=1": "'model.unfreeze_by' must be one of 'step', 'epoch', not 'x: 1'",
    "--model.layer_decay.x=1": "'model.layer_decay' must be float, not 'x: 1'",
    "--model.optimizer.betas=[1]": "'model.optimizer.betas' must be a list of 2 values, not '[1]'",
    "--data.tokenizer=[a]": "'data.tokenizer' must be a subclass of Tokenizer",
    "--data.batch_size.x=1": "'data.batch_size' must be int, not 'x: 1'",
    "--trainer.max_epochs.x=1": "'trainer.max_epochs' must be int, not 'x: 1'",
    "--test_best.x=1": "'test_best' must be bool, not 'x: 1'",
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("option", WRONG)
def test_wrong_options_are_refused_in_words(config, capsys, option) -> None:
    said = refusal(call(capsys, "fit", "-c", config, option))
    assert said.startswith(WRONG[option])
    assert not INNER.search(said)


ATTENTION = "lit_llm.backbone.layers.CausalSelfAttention"
ROTARY = {"class_path": "lit_llm.backbone.rotary.Rotary", "init_args": {"fraction": 0.25}}
REFUSED = {
    "rotary": ({"attention": {"class_path": ATTENTION, "init_args": {"rotary": ROTARY}}}, "of head_dim 12 rotates 3"),
    "heads": ({"n_head": 5}, "n_embd 72 is not divisible by n_head 5"),
    "groups": ({"attention": {"class_path": ATTENTION, "init_args": {"n_kv_head": 4}}}, "divisible by n_kv_head 4"),
    "pattern": ({"pattern": "GL"}, "pattern 'GL' has the letter 'L'"),
    "window": ({"attention": {"class_path": ATTENTION, "init_args": {"window": 0}}}, "window 0 sees nothing"),
}


@pytest.mark.parametrize("part", REFUSED)
def test_a_part_says_itself_why_it_cannot_be_built(part) -> None:
    """As `generate`, `GPT.from_pretrained` and --model.init_from build it."""
    own, words = REFUSED[part]
    sizes = {"vocab_size": 97, "block_size": 8, "n_layer": 1, "n_head": 6, "n_embd": 72}
    with pytest.raises(ValueError, match="cannot be built here") as caught:
        build({"class_path": "lit_llm.GPT", "init_args": {**sizes, **own}})
    assert words in str(caught.value)
    assert not INNER.search(str(caught.value))
