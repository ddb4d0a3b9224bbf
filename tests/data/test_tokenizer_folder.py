"""Tokenizers that come along with a model: their ids, what stands around a text, and folders that are not whole."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from instruction_rows import data
from tiny_tokenizers import TEXT
from transformers import AutoTokenizer

from lit_llm.data.bpe import END_OF_TEXT, train_bpe
from lit_llm.data.tokenizer import from_state, to_state
from lit_llm.data.tokenizer_folder import tokenizer_of

CONTENT = train_bpe([TEXT], 300, [END_OF_TEXT, "<|user|>"])  # 298, 299


def folder(path: Path, content: str | dict[str, Any] = CONTENT, **settings: Any) -> Path:
    """A folder with a tokenizer and settings files, these by their names without suffix."""
    path.mkdir(exist_ok=True)
    (path / "tokenizer.json").write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    for name, value in settings.items():
        (path / f"{name}.json").write_text(json.dumps(value), "utf-8")
    return path


def test_the_end_of_a_text_is_what_the_settings_say(tmp_path: Path) -> None:
    """By name or by id; the file closest to the tokenizer has the last word."""
    assert tokenizer_of(folder(tmp_path)).end_of_text == 298
    assert tokenizer_of(folder(tmp_path, config={"eos_token_id": 299})).end_of_text == 299
    assert tokenizer_of(folder(tmp_path, generation_config={"eos_token_id": [298, 299]})).end_of_text == 298
    assert tokenizer_of(folder(tmp_path, tokenizer_config={"eos_token": "<|user|>"})).end_of_text == 299
    assert tokenizer_of(folder(tmp_path, tokenizer_config={"eos_token": {"content": "<|user|>"}})).end_of_text == 299


def test_all_ends_of_a_generated_text_are_kept(tmp_path: Path) -> None:
    """The tokenizer's own first; those it does not know are none, and nothing changes where there is one."""
    one = to_state(tokenizer_of(folder(tmp_path, generation_config={"eos_token_id": 298})))
    assert "other_ends" not in one  # states and fingerprints as before
    tokenizer = tokenizer_of(folder(tmp_path, generation_config={"eos_token_id": [298, 299, 5, 298, 50256]}))
    assert (tokenizer.end_of_text, tokenizer.other_ends, tokenizer.ends) == (298, (299,), {298, 299})
    again = from_state(json.loads(json.dumps(to_state(tokenizer))))
    assert again.ends == {298, 299}
    assert again.fingerprint() == tokenizer.fingerprint()
    turn = tokenizer_of(folder(tmp_path, tokenizer_config={"eos_token": "<|user|>"}))
    assert (turn.end_of_text, turn.other_ends) == (299, (298,))


def test_an_end_that_the_tokenizer_does_not_know_is_none(tmp_path: Path) -> None:
    """A default of config.json, say: beyond the vocabulary, or an ordinary token of it."""
    for i in (50256, 2):
        assert tokenizer_of(folder(tmp_path, config={"eos_token_id": i})).end_of_text == 298


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|user|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<|user|>": {"id": "<|user|>", "ids": [299], "tokens": ["<|user|>"]}},
}


def test_the_begin_of_a_text_is_a_rule_of_the_tokenizer(tmp_path: Path) -> None:
    """Of tokenizer.json's post-processor alone, as transformers 5.23 does; 4.57 went by add_bos_token."""
    with_rule = {**json.loads(CONTENT), "post_processor": {"type": "Sequence", "processors": [TEMPLATE]}}
    begin = {"bos_token": "<|endoftext|>"}
    for content, wanted in ((json.loads(CONTENT), None), (with_rule, 299)):
        for said in ({}, {"add_bos_token": True}, {"add_bos_token": False}):
            settings = {**begin, **said, "tokenizer_class": "PreTrainedTokenizerFast"}
            path = folder(tmp_path, content, tokenizer_config=settings)
            assert tokenizer_of(path).begin_of_text == wanted
            theirs = AutoTokenizer.from_pretrained(path)("a").input_ids
            assert theirs[: len(theirs) - 1] == ([] if wanted is None else [wanted])


def test_the_chat_template_is_kept(tmp_path: Path) -> None:
    """As text, from a file of its own before the settings; of several the default."""
    named = [{"name": "tools", "template": "{{ tools }}"}, {"name": "default", "template": "{{ é }}"}]
    assert tokenizer_of(folder(tmp_path)).chat_template is None
    assert tokenizer_of(folder(tmp_path, tokenizer_config={"chat_template": named})).chat_template == "{{ é }}"
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}\n", "utf-8")
    assert tokenizer_of(tmp_path).chat_template == "{{ messages }}\n"


def test_sample_prompts_have_bos_once(tmp_path: Path) -> None:
    """Where the template writes a BOS that no rule puts before a text (DeepSeek V3), and where one does."""
    template = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    settings = {"bos_token": "<|user|>", "add_bos_token": True, "chat_template": template}
    rule = {"type": "Sequence", "processors": [TEMPLATE]}
    for extra, spelt in (({}, 1), ({"post_processor": rule}, 0)):
        path = folder(tmp_path / str(spelt), {**json.loads(CONTENT), **extra}, tokenizer_config=settings)
        tokenizer = tokenizer_of(path)
        served = data(tmp_path, tokenizer=tokenizer, template="source", val_fraction=0.5)
        prompts = served.sample_prompts()
        assert len(prompts) == 3
        assert {prompt.count("<|user|>") for prompt in prompts} == {spelt}
        assert (tokenizer.begin_of_text is not None) + spelt == 1  # what begins a text is put before it once
        ids = served.prepared.examples["val"].ids
        assert (ids == 299).sum() == len(served.prepared.talks["val"])


def test_a_checkpoint_carries_all_of_it(tmp_path: Path) -> None:
    settings = {"chat_template": "{{ messages }}", "bos_token": "<|user|>"}
    tokenizer = tokenizer_of(folder(tmp_path, tokenizer_config=settings))
    again = from_state(json.loads(json.dumps(to_state(tokenizer))))
    for name in ("begin_of_text", "end_of_text", "chat_template", "vocab_size", "adds_space"):
        assert getattr(again, name) == getattr(tokenizer, name), name
    assert again.encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()
    assert again.fingerprint() == tokenizer.fingerprint()


def test_more_ids_than_the_model_has_rows(tmp_path: Path) -> None:
    """A row too few for text is refused; a control token beyond the table is left out (Gemma 3)."""
    with pytest.raises(ValueError, match=r"has 298 ids and the model beside it knows 297 \(vocab_size in config.json"):
        tokenizer_of(folder(tmp_path, config={"vocab_size": 297}))
    assert tokenizer_of(folder(tmp_path, config={"vocab_size": 299})).vocab_size == 299
    assert tokenizer_of(folder(tmp_path, config={"text_config": {"vocab_size": 304}})).vocab_size == 300


BROKEN: dict[str, Callable[[Path], Path]] = {
    "holds no tokenizer.json, nor a file *.model": lambda path: path,
    "is no tokenizer that can be used: Expecting value": lambda path: folder(path, CONTENT[:998]),
    "is no tokenizer that can be used: TypeError": lambda path: folder(path, "[]"),
    "is no tokenizer that can be used: KeyError: 'added_tokens'": lambda path: folder(path, "{}"),
    "is no settings file that can be read: it holds a list": lambda path: folder(path, tokenizer_config=[]),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_folders_that_cannot_be_used(tmp_path: Path, reason: str) -> None:
    """One sentence that names the file."""
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        tokenizer_of(BROKEN[reason](tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
