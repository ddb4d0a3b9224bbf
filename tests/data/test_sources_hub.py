"""Data sets of the hub: served here, absent, and out of reach."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from source_files import TEXTS, texts, write

ASK = (
    "from lit_llm.data.sources import *\ntry:\n    list(Source('nobody/nothing', Reading()))\nexcept ValueError as e:\n"
)
ASK += "    print(e)"


def ask_the_hub(tmp_path: Path, **env: str) -> str:
    """In a process of its own: the hub's library reads its settings when it is imported."""
    env = os.environ | {"HF_HOME": str(tmp_path / "hf")} | env
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, env=env, check=True)
    return done.stdout


def test_a_data_set_without_a_network(tmp_path: Path) -> None:
    """L7: one sentence that names the data set and a way out."""
    said = ask_the_hub(tmp_path, HF_HUB_OFFLINE="1")
    assert said.startswith("'nobody/nothing' is no file or folder here, and as a Hugging Face data set it could not be")
    assert said.endswith("go online, or give a local copy by --data.source PATH\n")
    assert said.count("\n") == 1


@pytest.mark.slow
def test_a_data_set_on_a_hub_that_cannot_be_reached(tmp_path: Path, unreachable: Path) -> None:
    """L7: after the hub's own five tries, which take half a minute."""
    said = ask_the_hub(tmp_path, HF_HUB_OFFLINE="0")
    assert said.startswith("'nobody/nothing' is no file or folder here")
    assert said.count("\n") == 1


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """`datasets` itself, with a parquet file here in place of the one on the hub; what it was asked for."""
    path, asked, load = write(tmp_path / "far away" / "train.parquet", [*TEXTS, ""]), [], datasets.load_dataset

    def load_dataset(name: str, subset: str | None, split: str, revision: str | None, streaming: bool) -> Any:
        asked.append((name, subset, split, revision, streaming))
        files, cache = {"train": str(path)}, str(tmp_path / "hf")
        return load("parquet", data_files=files, split=split, streaming=streaming, cache_dir=cache)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    datasets.disable_progress_bars()
    return asked


@pytest.mark.parametrize("streaming", [False, True])
def test_a_data_set(hub: list[tuple], streaming: bool) -> None:
    assert texts("owner/name", subset="small", revision="v1", streaming=streaming) == TEXTS  # the empty row is none
    assert texts("owner/name", subset="small", revision="v1", streaming=streaming, max_documents=2) == TEXTS[:2]
    assert hub == [("owner/name", "small", "train", "v1", streaming)] * 2


@pytest.mark.parametrize("streaming", [False, True])
def test_a_data_set_without_the_field(hub: list[tuple], streaming: bool) -> None:
    with pytest.raises(
        ValueError, match=r"'owner/name' row 1 has no text in the field 'body' \(it has int 'n', str 'te"
    ):
        texts("owner/name", text_field="body", streaming=streaming)


def test_a_data_set_without_the_split(hub: list[tuple]) -> None:
    with pytest.raises(ValueError, match=r"'owner/name' is no file or folder here, .*split \"dev\""):
        texts("owner/name", split="dev")


def test_a_data_set_and_a_cache_that_cannot_be_written(hub: list[tuple], tmp_path: Path) -> None:
    """L6: the variable is named."""
    (tmp_path / "hf").write_text("a file where the cache would be")
    with pytest.raises(ValueError, match="set HF_HOME to a folder that can be written"):
        texts("owner/name")
