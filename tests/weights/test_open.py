"""What other people's weights are taken from, and everything that is refused: K5, K7, K11 to K13, K23."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_gpt2 import tensors, write_gpt2

from lit_llm import GPT
from lit_llm.weights.open import open_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_gpt2(tmp_path / "theirs")


def shards(folder: Path) -> dict[str, str]:
    """The same weights in two files; the index of them, not yet written."""
    (folder / "model.safetensors").unlink()
    files = {}
    names = sorted(tensors())
    for number, part in enumerate((names[:9], names[9:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors()[name] for name in part}, folder / file)
        files |= dict.fromkeys(part, file)
    return files


def refused(folder: Path | str) -> str:
    with pytest.raises(ValueError, match=r".") as said:
        GPT.from_pretrained(str(folder))
    assert "\n" not in str(said.value)
    return str(said.value)


def test_whole_and_in_shards(folder) -> None:
    """One file, two with an index, two without: the same network; the files may be gone afterwards."""
    whole = GPT.from_pretrained(str(folder))
    assert not whole.training
    files = shards(folder)
    without = GPT.from_pretrained(str(folder))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    with_index = GPT.from_pretrained(str(folder))
    for path in folder.iterdir():
        path.write_bytes(b"")
    idx = torch.randint(97, (2, 7), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(whole(idx), without(idx))
        assert torch.equal(whole(idx), with_index(idx))


def test_dtype(folder) -> None:
    """As most numbers are stored, or as asked for."""
    assert {p.dtype for p in GPT.from_pretrained(str(folder)).parameters()} == {torch.float32}
    assert {p.dtype for p in GPT.from_pretrained(str(folder), torch.bfloat16).parameters()} == {torch.bfloat16}
    half = {n: t if n.endswith("bias") else t.bfloat16() for n, t in load_file(folder / "model.safetensors").items()}
    save_file(half, folder / "model.safetensors")
    assert {p.dtype for p in GPT.from_pretrained(str(folder)).parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("size", [0, 4, 1000, 0.5, -10])
def test_truncated(folder, size) -> None:
    """K5: told with the file and its size."""
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * size) if size == 0.5 else size])
    assert f"'{path}' ({path.stat().st_size:,} bytes) is damaged or was cut short" in refused(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "pointer of git-lfs"),
        (b"<!DOCTYPE html><html>not found</html>", "is a web page"),
        (b"PK\x03\x04" + bytes(99), "is an archive"),
        (struct.pack("<Q", 2**60) + bytes(99), "header too large"),
    ],
)
def test_something_else(folder, content, said) -> None:
    """K7, K11."""
    (folder / "model.safetensors").write_bytes(content)
    assert said in refused(folder)


@pytest.mark.parametrize("change", [{"shape": [10**9, 24]}, {"data_offsets": [0, 9999]}, {"data_offsets": [8, 104]}])
def test_a_header_that_lies(folder, change) -> None:
    """K11: another shape, offsets that overlap; nothing is allocated."""
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + length])
    header["transformer.ln_f.weight"] |= change
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length :])
    assert "is damaged or was cut short" in refused(folder)


ELSEWHERE = ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "x.bin", "..\\x.safetensors"]


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_an_index_that_points_elsewhere(folder, elsewhere) -> None:
    """K12."""
    files = shards(folder) | {"transformer.wte.weight": elsewhere}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert f"points to '{elsewhere}', and a shard is a .safetensors file beside it" in refused(folder)


@pytest.mark.parametrize("with_index", [True, False])
def test_a_missing_shard(folder, with_index) -> None:
    files = shards(folder)
    if with_index:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "lacks the weights file model-00002-of-00002.safetensors" in refused(folder)


def test_all_that_does_not_fit_in_one_sentence(folder) -> None:
    """K13: missing, unknown, of another shape, of another dtype."""
    stored = tensors()
    del stored["transformer.ln_f.bias"]
    stored["strange"] = torch.zeros(3)
    stored["transformer.wpe.weight"] = torch.zeros(12, 24)
    stored["transformer.ln_f.weight"] = torch.zeros(24, dtype=torch.int32)
    save_file(stored, folder / "model.safetensors")
    said = refused(folder)
    assert "missing is transformer.ln_f.bias; unknown is strange; " in said
    assert "of another shape is transformer.wpe.weight ((12, 24) instead of (11, 24)); " in said
    assert said.endswith("of a dtype that no weight has is transformer.ln_f.weight (I32)")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite(folder, value, monkeypatch) -> None:
    """K13: refused by name, and taken where that is said."""
    stored = tensors()
    stored["transformer.h.1.mlp.c_fc.weight"][3, 5] = value
    save_file(stored, folder / "model.safetensors")
    assert "in transformer.h.1.mlp.c_fc.weight that are infinite or NaN; LIT_LLM_ALLOW_NONFINITE=1" in refused(folder)
    assert not GPT.from_pretrained(str(folder), allow_nonfinite=True).blocks[1].mlp.fc.weight.isfinite().all()
    monkeypatch.setenv("LIT_LLM_ALLOW_NONFINITE", "1")
    GPT.from_pretrained(str(folder))


def test_masks_and_other_heads_are_dropped(folder) -> None:
    save_file(
        {**tensors(), "transformer.h.0.attn.bias": torch.ones(1, 1, 11, 11), "score.weight": torch.ones(2, 24)},
        folder / "model.safetensors",
    )
    source = open_source(folder)
    filled = source.fill(GPT.from_pretrained(str(folder)), torch.float32)
    assert set(filled.dropped) == {"transformer.h.0.attn.bias", "score.weight"}
    assert "; dropped: " in str(filled)


def test_a_tied_head_that_is_there_again(folder) -> None:
    """K23: an equal copy is left out, another one refused."""
    table = tensors()["transformer.wte.weight"]
    save_file({**tensors(), "lm_head.weight": table.clone()}, folder / "model.safetensors")
    assert GPT.from_pretrained(str(folder)).head.linear is None
    save_file({**tensors(), "lm_head.weight": table + 1}, folder / "model.safetensors")
    assert "tied weights transformer.wte.weight and lm_head.weight, which differ" in refused(folder)


def pickle_instead(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def pipe_instead(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


def folder_instead(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (pickle_instead, "holds its weights as a pickle ('pytorch_model.bin'); a .bin file can run code"),
        (pipe_instead, "lacks the weights file model.safetensors"),
        (folder_instead, "lacks the weights file model.safetensors"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json' is no JSON"),
        (lambda folder: (folder / "config.json").write_text("[" * 99999), "config.json' is no JSON"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
            "model_type is 'bert'",
        ),
    ],
)
def test_folders_that_hold_something_else(folder, change: Callable[[Path], object], said) -> None:
    change(folder)
    assert said in refused(folder)


def test_names_of_something_else(folder) -> None:
    """A pickle, a part, a pipe, nothing."""
    pickle_instead(folder)
    os.mkfifo(folder / "pipe")
    assert "is not read: a .bin file can run code" in refused(folder / "pytorch_model.bin")
    assert "is a part of a model; name its folder" in refused(folder / "config.json")
    assert "is no folder and no file" in refused(folder / "pipe")
    assert "there is no checkpoint, run folder or folder of a model" in refused(folder / "nothing")


def test_a_hub_that_cannot_be_reached(monkeypatch) -> None:
    """Told at once, and what helps."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "cache")
    said = refused("nobody/nothing@main")
    assert said.startswith(
        "'nobody/nothing@main' is no folder here, and as a model of the Hugging Face hub it could not"
    )
    assert said.endswith("go online, or give a local folder")
