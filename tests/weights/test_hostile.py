"""Sources that are damaged where no format shows it, and sources that would run code: K6, K8, K9, K10."""

import json
import pickle
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runs import call, refusal
from safetensors.torch import load_file
from tiny_gpt2 import write_gpt2
from tiny_tokenizers import KINDS

from lit_llm import GPT
from lit_llm.weights.checkpoint import checkpoint_source
from lit_llm.weights.open import open_source
from lit_llm.weights.tensor_files import TensorFiles


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_gpt2(tmp_path / "theirs")


def refused(source: object) -> str:
    with pytest.raises(ValueError, match=r".") as said:
        GPT.from_pretrained(str(source))
    assert "\n" not in str(said.value)
    return str(said.value)


def test_a_flipped_bit_of_an_export_is_found_or_harmless(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """K6: wherever it falls in the weights file, it is refused, or reads as before."""
    assert call(capsys, "export", "--checkpoint", folder, "--out", tmp_path / "out").code == 0
    path = tmp_path / "out" / "model.safetensors"
    good, choose, refusals = path.read_bytes(), random.Random(0), 0
    wanted = load_file(path)
    for place in (choose.randrange(8 * len(good)) for _ in range(200)):
        path.write_bytes(flipped(good, place))
        with suppress(ValueError):
            refusals += 1
            files = TensorFiles(path.parent)
            read = {name: files(name) for name in files.stored}
            refusals -= 1
            assert all(name not in wanted or torch.equal(read[name], wanted[name]) for name in read), place
    assert refusals > 150
    path.write_bytes(flipped(good, 8 * len(good) - 1))  # the sign of a weight: nothing but the checksum can tell
    assert refused(tmp_path / "out").endswith(" is not what was written; export it again")


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def as_bin(folder: Path, content: bytes) -> Path:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    return folder


def under_our_name(folder: Path, content: bytes) -> Path:
    (folder / "model.safetensors").write_bytes(content)
    return folder


def beside(folder: Path, content: bytes) -> Path:
    path = folder.with_name("file.ckpt")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("place", [as_bin, under_our_name, beside])
def test_a_pickle_is_not_opened(folder: Path, place: Callable[[Path, bytes], Path]) -> None:
    """K8: whatever it is called; and it would have done something."""
    marker = folder / "marker"
    content = pickle.dumps(Malicious(marker))
    said = refused(place(folder, content))
    assert "pickle" in said or "is no checkpoint" in said
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a/model.bin", "https://127.0.0.1:9/owner/name", "file:///tmp/x"])
def test_an_address_is_not_opened(capsys: pytest.CaptureFixture[str], url: str) -> None:
    """K9: it is no name of a source."""
    said = refusal(call(capsys, "generate", "--checkpoint", url))
    assert said.startswith(f"there is no checkpoint, run folder or folder of a model '{url}'")


def commands(marker: Path) -> dict[str, dict[str, Any]]:
    """What the settings of a backbone might name to run a command."""
    system: dict[str, Any] = {"class_path": "os.system", "init_args": {"command": f"touch {marker}"}}
    popen: dict[str, Any] = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", str(marker)]}}
    attention = {"class_path": "lit_llm.backbone.layers.CausalSelfAttention", "init_args": {"qk_norm": system}}
    return {
        "part": {"norm": system},
        "class": {"norm": popen},
        "part of a part": {"attention": attention},
        "in one word": {"norm.class_path": "os.system", "norm.init_args.command": f"touch {marker}"},
    }


@pytest.mark.parametrize("kind", ["part", "class", "part of a part", "in one word", "backbone"])
def test_a_function_is_no_part_of_a_network(tmp_path: Path, kind: str) -> None:
    """K10: neither in a checkpoint nor in a folder of our layout; nothing is run, nor the class that wrote it made."""
    marker = tmp_path / "marker"
    sizes = {"vocab_size": 97, "block_size": 11, "n_layer": 1, "n_head": 2, "n_embd": 24}
    settings: dict[str, Any] = {"class_path": "lit_llm.GPT", "init_args": sizes}
    if kind == "backbone":
        settings = commands(marker)["part"]["norm"]
    else:
        settings["init_args"] |= commands(marker)[kind]
    theirs = {"backbone": settings, "_class_path": "os.system", "_instantiator": "os.system"}
    source = checkpoint_source("theirs.ckpt", {"hyper_parameters": theirs, "state_dict": {}})
    with pytest.raises(ValueError, match=r"cannot be built here: ") as said:
        source.backbone()
    assert "\n" not in str(said.value)
    write_gpt2(tmp_path / "own")
    (tmp_path / "own" / "config.json").unlink()
    (tmp_path / "own" / "settings.json").write_text(json.dumps({"version": 1, "backbone": settings, "tokenizer": None}))
    assert "cannot be built here: " in refused(tmp_path / "own")
    assert not marker.exists()


def test_a_tokenizer_that_is_none(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """K10: the state of a tokenizer names a class of tokenizers, or is refused."""
    out = tmp_path / "out"
    assert call(capsys, "export", "--checkpoint", folder, "--out", out, "--format", "lit").code == 0
    settings = json.loads((out / "settings.json").read_text())
    settings["tokenizer"] = {"class_path": "os.system", "command": f"touch {tmp_path / 'marker'}"}
    (out / "settings.json").write_text(json.dumps(settings))
    said = refusal(call(capsys, "generate", "--checkpoint", out))
    assert "names the tokenizer 'os.system', which cannot be imported here" in said
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("command", ["generate", "export", "fit"])
def test_a_tokenizer_with_more_ids_than_the_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """One sentence on the command line, with both numbers."""
    KINDS["byte level"]().save(str(folder / "tokenizer.json"))
    options = {
        "generate": ("--checkpoint", folder),
        "export": ("--checkpoint", folder, "--out", tmp_path / "out"),
        "fit": ("-c", "configs/pretrain.yaml", "--model.init_from", folder, "--trainer.accelerator=cpu"),
    }
    said = refusal(call(capsys, command, *options[command]))
    assert "290 ids and the model beside it knows 97 (vocab_size in config.json); take both from the same place" in said
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_another_layout_with_more_ids(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert call(capsys, "export", "--checkpoint", folder, "--out", out, "--format", "lit").code == 0
    settings = json.loads((out / "settings.json").read_text())
    settings["tokenizer"] = {"class_path": "lit_llm.data.tokenizer.Bytes"}
    (out / "settings.json").write_text(json.dumps(settings))
    said = refusal(call(capsys, "generate", "--checkpoint", out))
    assert said == f"the tokenizer of '{out}' has 257 ids and its model embeds 97; take both from the same place"
    shutil.rmtree(out)
    assert not open_source(folder).has_tokenizer
