"""A folder of each family goes out as it came in: family, tensors, logits in transformers, ids of texts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runs import call, tiny_config, write_text, write_yaml
from safetensors.torch import load_file
from tiny_pretrained import MODELS, make
from tiny_tokenizers import AROUND, KINDS, STRINGS
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from lit_llm.weights.families import family_for, family_of

V = 331  # more than any of the tokenizers has ids
# By what each family comes with: bytes, some after a rule; or pieces with bytes for strangers, as sentencepiece's.
FALLBACK = ("llama", "mistral", "mixtral", "gemma", "gemma2", "gemma3", "phi3")
TOKENIZERS = {name: "byte fallback" if name in FALLBACK else "byte level" for name in MODELS} | {
    "qwen3": "byte level, composed",
    "gpt_neox": "byte level with words",
}


def write(folder: Path, name: str) -> Any:
    """The folder of a model with its tokenizer, and the model of transformers."""
    model = make(name, vocab_size=V)
    model.save_pretrained(folder)
    tokenizer = KINDS[TOKENIZERS[name]]()
    if TOKENIZERS[name] == "byte fallback":
        tokenizer.post_processor = AROUND
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 1]}))
    return model


def tensors(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_what_came_in_as_a_family_goes_out_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Every tensor under its name, bit for bit; in transformers the same logits, and ids of 100 texts."""
    theirs, model = tmp_path / "theirs", write(tmp_path / "theirs", name)
    result = call(capsys, "export", "--checkpoint", theirs, "--out", tmp_path / "out")
    assert result.code == 0, result.err
    before, after = tensors(theirs), tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    assert type(again) is type(model)
    idx = torch.randint(V, (2, 13), generator=torch.Generator().manual_seed(1))
    assert torch.equal(again(idx).logits, model(idx).logits)
    assert again.generation_config.eos_token_id == [2, 1]
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (theirs, tmp_path / "out")]
    assert len(STRINGS) == 100
    for text in STRINGS:
        wanted, got = (tokenizer.encode(text) for tokenizer in tokenizers)
        assert wanted == got, text


# A checkpoint says what is computed and not whence it came: of equal families the first is written.
EQUAL = {"phi3": "mistral"}


@pytest.mark.parametrize("name", MODELS)
def test_from_settings_alone_an_equal_family_is_found(tmp_path: Path, name: str) -> None:
    make(name).config.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    family = family_for(family_of(config).settings(config))
    assert family.model_type == EQUAL.get(name, config["model_type"])


@torch.no_grad()
def test_through_a_run_logits_stay_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A Phi-3, trained for a step that moves nothing, goes out as a Mistral: in transformers the same, to 1e-5."""
    model = write(tmp_path / "theirs", "phi3")
    config = tiny_config(tmp_path)
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 1e-30}}
    config["model"]["init_args"] = {"init_from": str(tmp_path / "theirs"), "optimizer": optimizer}
    del config["data"]["init_args"]["tokenizer"]
    config["trainer"]["max_steps"] = 2
    write_text(tmp_path / "text.txt")
    assert call(capsys, "fit", "-c", write_yaml(tmp_path / "tiny.yaml", config)).code == 0
    result = call(capsys, "export", "--checkpoint", tmp_path / "logs" / "tiny", "--out", tmp_path / "out")
    assert "a 'mistral' with" in result.out
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    idx = torch.randint(V, (2, 13), generator=torch.Generator().manual_seed(1))
    wanted, got = model(idx).logits, again(idx).logits
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()  # the products of fused rows are summed otherwise
