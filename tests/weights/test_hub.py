"""Models of a hub: the real client against a hub on this machine."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cli_runs import call, refusal, spawn
from huggingface_hub import constants
from safetensors.torch import save_file
from tiny_gpt2 import tensors, write_gpt2
from tiny_hub import REVISIONS, Hub, serving
from tiny_tokenizers import KINDS

from lit_llm import GPT

NAME = "openai-community/gpt2"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two revisions with other weights, and files beside them that are not fetched."""
    path = tmp_path_factory.mktemp("hub")
    made = {"main": write_gpt2(path / "main"), "v1": write_gpt2(path / "v1")}
    save_file({name: 2 * tensor for name, tensor in tensors().items()}, path / "v1" / "model.safetensors")
    for folder in made.values():
        (folder / "pytorch_model.bin").write_bytes(b"a pickle")
        (folder / "README.md").write_text("a card")
    return made


@pytest.fixture
def hub(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub that the client of this process knows, and an empty cache."""
    with serving(NAME, folders) as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield hub


def logits(source: str | Path) -> torch.Tensor:
    with torch.no_grad():
        return GPT.from_pretrained(str(source))(torch.arange(7)[None])


def refused(source: str) -> str:
    with pytest.raises(ValueError, match=r".") as said:
        GPT.from_pretrained(source)
    assert "\n" not in str(said.value)
    return str(said.value)


def test_a_model_is_fetched_once(hub: Hub, folders: dict[str, Path]) -> None:
    """Settings and weights, no pickle and no card; then from the cache, also with the hub gone."""
    assert torch.equal(logits(NAME), logits(folders["main"]))
    assert sorted(hub.fetched) == ["config.json", "model.safetensors"]
    assert torch.equal(logits(NAME), logits(folders["main"]))
    assert len(hub.fetched) == 2
    hub.shutdown()
    hub.server_close()
    assert torch.equal(logits(NAME), logits(folders["main"]))


@pytest.mark.parametrize("revision", ["v1", REVISIONS["v1"]])
def test_a_revision(hub: Hub, folders: dict[str, Path], revision: str) -> None:
    """By its name, and by its commit."""
    theirs = logits(f"{NAME}@{revision}")
    assert torch.equal(theirs, logits(folders["v1"]))
    assert not torch.equal(theirs, logits(folders["main"]))


def test_a_download_that_breaks_off_is_tried_again(hub: Hub, folders: dict[str, Path]) -> None:
    """By the client itself, and it is whole then."""
    hub.cut = 20_000
    assert torch.equal(logits(NAME), logits(folders["main"]))
    assert hub.fetched.count("model.safetensors") == 2


def test_a_download_that_cannot_go_on(hub: Hub, folders: dict[str, Path]) -> None:
    """One sentence; when the hub is well again, so is the next try."""
    hub.cut, hub.is_broken = 20_000, True
    assert refused(NAME).startswith(
        f"'{NAME}' is no folder here, and as a model of the Hugging Face hub it could not be fetched: "
    )
    hub.is_broken = False
    assert torch.equal(logits(NAME), logits(folders["main"]))


def test_names_that_the_hub_does_not_know(hub: Hub) -> None:
    assert "could not be fetched: " in refused("nobody/nothing")
    assert "could not be fetched: " in refused(f"{NAME}@v9")


def test_a_cache_that_has_changed(hub: Hub, tmp_path: Path, folders: dict[str, Path]) -> None:
    """K6: a large file is called by its SHA-256 there, and a flipped bit shows; deleted, it is fetched again."""
    logits(NAME)
    (file,) = (tmp_path / "cache").glob("models--*/snapshots/*/model.safetensors")
    blob = file.resolve()
    content = bytearray(blob.read_bytes())
    content[-9] ^= 1
    blob.write_bytes(content)
    assert refused(NAME) == f"'{file}' is damaged, by its SHA-256; delete '{blob}', and it is fetched again"
    blob.unlink()
    assert torch.equal(logits(NAME), logits(folders["main"]))


def test_a_hub_that_is_away(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing cached, nobody there: one sentence on the command line."""
    hub.shutdown()
    hub.server_close()
    said = refusal(call(capsys, "generate", "--checkpoint", NAME))
    assert said.startswith(
        f"'{NAME}' is no folder here, and as a model of the Hugging Face hub it could not be fetched"
    )
    assert said.endswith("go online, or give a local folder")


@pytest.mark.slow
def test_by_the_command_line(folders: dict[str, Path], tmp_path: Path) -> None:
    """Of the hub that HF_ENDPOINT names, with its tokenizer; then offline."""
    folder = shutil.copytree(folders["main"], tmp_path / "with tokenizer")
    KINDS["words"]().save(str(folder / "tokenizer.json"))
    with serving(NAME, {"main": folder}) as hub:
        env = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        args = ("generate", "--checkpoint", NAME, "--prompt", "the cat", "--temperature", "0", "--max_new_tokens", "3")
        texts = []
        for offline in ("0", "1"):
            process = spawn(*args, env={**env, "HF_HUB_OFFLINE": offline}, stderr=subprocess.PIPE)
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
            texts.append(out)
    assert texts[0] == texts[1]
    assert texts[0].startswith("the cat")
