"""What the tests of data share: published encodings without a network, and a network that is not there."""

import shutil
import socket
from pathlib import Path

import pytest
from hypothesis import settings

from lit_llm.data.bpe import Tiktoken

# A slow machine is no failure, a failure comes back in the next run, and nothing is left in the folder of the tests.
settings.register_profile("data", deadline=None, derandomize=True, database=None)
settings.load_profile("data")


@pytest.fixture
def gpt2(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiktoken:
    """GPT-2's tokenizer, from a copy of tiktoken's cache: tiktoken deletes a damaged file and adds its own."""
    folder = tmp_path / "tiktoken_cache"
    folder.mkdir()
    for path in (shared / "tokenizers" / "tiktoken_cache").iterdir():
        shutil.copyfile(path, folder / path.name)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
    return Tiktoken("gpt2")


@pytest.fixture
def unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every way out leads to a closed port, and tiktoken has nothing cached; the folder where it looks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, address)
        monkeypatch.setenv(name.upper(), address)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "nothing_cached"
    folder.mkdir()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})  # nor in this process
    return folder
