"""`lit-llm export`: what we train loads in transformers with equal logits and ids; what it cannot be is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cli_runs import ROOT, Result, call, refusal, run_folders, tiny_config, write_text, write_yaml
from safetensors import safe_open

from lit_llm.__main__ import main
from lit_llm.data.tokenizer_folder import tokenizer_of
from lit_llm.inference.sampling import Sampling
from lit_llm.inference.text import Asked, TextModel
from lit_llm.weights.families import family_of
from lit_llm.weights.lit_folder import read_lit_folder

SIZES = {"n_layer": 2, "n_head": 4, "n_embd": 24}
STRINGS = ["the cat sat on a mat", "", " two  spaces\n", "naïve Größe", "日本語 🙂🚀", "עברית हिन्दी"]


def backbone(name: str) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "configs" / "backbone" / f"{name}.yaml").read_text("utf-8"))
    content["init_args"] |= SIZES
    if "mlp" in content["init_args"]:
        content["init_args"]["mlp"]["init_args"]["hidden"] = 40
    return content


KINDS: dict[str, dict[str, Any]] = {
    "gpt2": backbone("nano"),
    "llama": backbone("llama_nano"),
    "own": {
        "class_path": "lit_llm.GPT",
        "init_args": {
            **SIZES,
            "attention": {"class_path": "experiments.e0003_swap.parts.DecayingAttention"},
        },
    },
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run folder of two steps for each kind, by the command line."""
    folders = {}
    for kind, network in KINDS.items():
        folder = tmp_path_factory.mktemp(kind)
        config = tiny_config(folder)
        write_text(folder / "text.txt")
        config["trainer"]["max_steps"] = 2
        config["model"]["init_args"]["backbone"] = network
        tokenizer = {"class_path": "lit_llm.data.bpe.BPE", "init_args": {"vocab_size": 300}}
        config["data"]["init_args"]["tokenizer"] = tokenizer
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(ROOT))
            assert main(["fit", "--config", str(write_yaml(folder / "tiny.yaml", config))]) == 0
        folders[kind] = run_folders(folder)[-1]
    return folders


@pytest.fixture(autouse=True)
def own_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The experiments can be imported, as in the folder that one works in."""
    monkeypatch.syspath_prepend(str(ROOT))


def export(capsys: pytest.CaptureFixture[str], run: Path, out: Path, *options: object) -> Result:
    return call(capsys, "export", "--checkpoint", run, "--out", out, *options)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_transformers_computes_the_same(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """N11: logits and ids, and its greedy text is ours."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = export(capsys, runs[kind], tmp_path / "out")
    assert result.code == 0, result.err
    assert f"a '{kind}' with" in result.out
    ours = TextModel.from_source(runs[kind])
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "out"),
        AutoTokenizer.from_pretrained(tmp_path / "out"),
    )
    for text in STRINGS:
        assert tokenizer.encode(text) == ours.tokenizer.encode(text).tolist()
    idx = torch.randint(0, ours.backbone.vocab_size, (3, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, got = ours.backbone(idx), model(idx).logits
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    prompt = tokenizer("the", return_tensors="pt")
    drawn = model.generate(**prompt, max_new_tokens=4, do_sample=False)[0]
    assert tokenizer.decode(drawn, skip_special_tokens=True) == "the" + ours.complete("the", Asked(4, Sampling(0.0)))


@pytest.mark.parametrize("kind", [pytest.param("gpt2", marks=pytest.mark.slow), "llama"])
def test_every_tensor_is_written_once_bit_for_bit(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """K23: a tied head has no tensor of its own; in shards or in one file, and back into ours."""
    assert export(capsys, runs[kind], tmp_path / "one").code == 0
    assert export(capsys, runs[kind], tmp_path / "many", "--shard_size", 1e-5).code == 0
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert not (tmp_path / "one" / "model.safetensors.index.json").exists()
    assert len(set(index["weight_map"].values())) > 3
    one, many = tensors(tmp_path / "one"), tensors(tmp_path / "many")
    assert one.keys() == many.keys() == index["weight_map"].keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in many.values())
    assert "lm_head.weight" not in one
    family = family_of(json.loads((tmp_path / "one" / "config.json").read_text()))
    ours = TextModel.from_source(runs[kind]).backbone
    for entry in family.entries(ours):
        for read in (one, many):
            assert torch.equal(entry.join([read[name] for name in entry.theirs]), ours.state_dict()[entry.name])


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder, whose files say that they are torch's."""
    found: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            assert file.metadata()["format"] == "pt"
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return found


def test_another_dtype(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dtype = torch.bfloat16
    assert export(capsys, runs["llama"], tmp_path / "out", "--dtype", "bf16").code == 0
    assert {tensor.dtype for tensor in tensors(tmp_path / "out").values()} == {dtype}
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == str(dtype).removeprefix("torch.")


def test_the_folder_tells_what_it_is(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ids around a text, and a card with a header, data, settings and results."""
    assert export(capsys, runs["gpt2"], tmp_path / "out").code == 0
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*names, "README.md"}
    end = tokenizer_of(tmp_path / "out").end_of_text
    for name in ("config", "generation_config"):
        assert json.loads((tmp_path / "out" / f"{name}.json").read_text())["eos_token_id"] == end
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["library_name"] == "transformers"
    assert "gpt2" in header["tags"]
    for part in ("# tiny", "| val/loss | ", "| optimizer steps | 2 |", "text.txt", "n_embd: 24", "vocab_size: 300"):
        assert part in card, part


def test_a_backbone_of_no_family(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused with the reason; in our own layout it is read again, with its tokenizer."""
    told = refusal(export(capsys, runs["own"], tmp_path / "out"))
    assert "DecayingAttention" in told
    assert "--format lit" in told
    assert list(tmp_path.iterdir()) == []
    assert export(capsys, runs["own"], tmp_path / "out", "--format", "lit").code == 0
    again, ours = TextModel.from_source(tmp_path / "out"), TextModel.from_source(runs["own"])
    idx = torch.arange(7)[None]
    assert torch.equal(again.backbone(idx), ours.backbone(idx))
    assert again.tokenizer.fingerprint() == ours.tokenizer.fingerprint()


def test_a_target_is_not_lost(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing that is there is replaced unasked, and no folder that holds no model."""
    out, other, file = tmp_path / "out", tmp_path / "other", tmp_path / "file"
    out.mkdir()
    (out / "settings.json").write_text("{}")
    (out / "mine.txt").write_text("mine")
    assert "is not empty; choose another, or replace it with --overwrite true" in refusal(
        export(capsys, runs["llama"], out)
    )
    assert (out / "mine.txt").exists()
    assert export(capsys, runs["gpt2"], out, "--overwrite", "true").code == 0
    assert not (out / "mine.txt").exists()
    assert json.loads((out / "config.json").read_text())["model_type"] == "gpt2"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    assert "something else than a model" in refusal(export(capsys, runs["llama"], other, "--overwrite", "true"))
    file.write_text("mine")
    assert "is a file" in refusal(export(capsys, runs["llama"], file))
    assert "cannot write" in refusal(export(capsys, runs["llama"], file / "below"))
    assert "--shard_size 0.0 cannot be" in refusal(export(capsys, runs["llama"], tmp_path / "x", "--shard_size", 0))
    assert {path.name for path in tmp_path.iterdir()} == {"out", "other", "file"}


def test_settings_of_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    """K19: those of another version are told as such."""
    with pytest.raises(ValueError, match="is no settings file of an exported model"):
        read_lit_folder(tmp_path)
    (tmp_path / "settings.json").write_text('{"version": 2, "backbone": {}, "tokenizer": null}')
    with pytest.raises(ValueError, match="is of version 2, and this lit-llm reads version 1"):
        read_lit_folder(tmp_path)
