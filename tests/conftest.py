"""What all tests share: one thread each, a token cache of their own, and the real data where it exists."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).parents[2] / "shared" / "data"

BEFORE = set(os.environ)  # of the session: fixtures of a whole file run before those of a test

torch.set_num_threads(1)  # two workers share two cores
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    """A GPU is seen by the tests that need one (`-m gpu`), and by no others: what they expect are a CPU's numbers."""
    if "gpu" not in config.option.markexpr.replace("not gpu", ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's token cache, nor leaves anything where it was started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_LLM_CACHE", str(tmp_path_factory.getbasetemp() / "lit_llm_cache"))


@pytest.fixture(autouse=True)
def seed_variables() -> Iterator[None]:
    """Lightning leaves the seed of a run in the environment, where the data of the next one reads it."""
    yield
    for name in [name for name in os.environ if name.startswith("PL_") and name not in BEFORE]:
        del os.environ[name]


@pytest.fixture
def shared() -> Path:
    """The folder of real data; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data at {SHARED}")
    return SHARED
