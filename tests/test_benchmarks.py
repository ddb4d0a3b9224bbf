"""The entry points that a benchmark loads: they keep their contracts, and train."""

import importlib.util
import math
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from lit_llm import GPT

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
B, T, V = 3, 7, 29
SHAPE = {"L": 2, "H": 4, "C": 24, "T": T, "B": B, "V": V}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def get_batch(rows: int = B, length: int = T) -> tuple[Tensor, Tensor]:
    """Counting: the next token follows from the last one."""
    idx = (torch.randint(V, (rows, 1)) + torch.arange(length + 1)) % V
    return idx[:, :-1], idx[:, 1:]


@pytest.mark.parametrize("large", [2, 2**18], ids=["large batch", "small batch"])
@pytest.mark.parametrize("mode", ["fp32", "bf16"])
def test_a_step_of_training(mode: str, large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Returns the mean loss, which falls from that of a model that knows nothing."""
    train, precision = load("train"), torch.get_float32_matmul_precision()
    monkeypatch.setattr(train, "LARGE_BATCH", large)
    torch.manual_seed(0)
    try:
        step, info = train.make_train(SHAPE, mode, get_batch)
        losses = [float(step()) for _ in range(60)]
    finally:
        torch.set_float32_matmul_precision(precision)
    assert losses[0] == pytest.approx(math.log(V), rel=0.02)
    assert losses[-1] < 0.98 * losses[0]
    assert info["params"] == 24 * (V + T + 2) + 2 * (24 * 24 * 12 + 24 * 13)  # tables and last norm; two blocks


def test_the_bare_loop_loads_nothing_of_lightning() -> None:
    """Whose imports would count as memory of the step."""
    code = "import sys, train; assert not {'lightning', 'torchmetrics'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=BENCHMARKS)


def test_seconds_of_a_step_in_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    trainer = load("trainer")
    monkeypatch.setattr(trainer, "SHAPES", {"a": SHAPE})
    assert 0 < trainer.make_trainer("a", get_batch)(3) < 1


def test_a_table_of_kernels(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that take longest first; shares of a whole."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    kernels, precision = load("kernels"), torch.get_float32_matmul_precision()
    monkeypatch.setattr(kernels, "SHAPE", {name: SHAPE[name] for name in "LHCTV"})
    try:
        kernels.main(["--device=cpu", "--batch_size=3", "--kernels=1000"])
    finally:
        torch.set_float32_matmul_precision(precision)
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.endswith(f" of a step of {B * T} tokens")
    shares = [float(row.split()[1].rstrip("%")) for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.05 * len(rows) + 0.1)


@pytest.mark.parametrize("mode", ["fp32", "bf16", "int8"])
def test_decoding(mode: str) -> None:
    """So many ids as asked for, the same ones each time."""
    torch.manual_seed(0)
    decode, info = load("decode").make_decode(SHAPE | {"ctx": 32}, mode, compile=False)
    ids = decode([3, 1, 4], 9)
    assert len(ids) == 9
    assert set(ids) <= set(range(V))
    assert decode([3, 1, 4], 9) == ids
    assert info["params"] == V * 24 + 32 * 24 + 2 * (12 * 24 * 24 + 13 * 24) + 2 * 24


def test_what_a_batch_brings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    decode = load("decode")
    monkeypatch.setattr(decode, "SHAPE", SHAPE | {"ctx": 32})
    monkeypatch.setattr(decode, "PROMPT", 4)
    monkeypatch.setattr(decode, "NEW", 5)
    decode.main(["--modes", "bf16", "--batch_size=3", "--rounds=2", "--no-compile"])
    head, line = capsys.readouterr().out.splitlines()
    assert head == "tokens/s of 1 and 3 texts, 4 + 5 tokens each; ratio, median [least..most]"
    assert re.fullmatch(r"bf16: [\d.]+ [\d.]+ [\d.]+ \[[\d.]+\.\.[\d.]+\]", line)


@pytest.mark.parametrize("begin", [None, 28])
@pytest.mark.parametrize("count", [2, 8, 15, 23])
def test_windows_predict_every_token_once(begin: int | None, count: int) -> None:
    """From those before it; the very first one only where something comes before it."""
    ids = list(range(count))
    parts = load("quality").windows(ids, 7, begin)
    assert [i for part in parts for i in part[0, 1:].tolist()] == ids[begin is None :]
    assert all((part.shape[1] <= 8 and part[0, 0] == begin) or begin is None for part in parts)


@torch.no_grad()
def test_perplexity_is_that_of_all_tokens() -> None:
    """The exponential of the mean loss, however the windows are cut."""
    torch.manual_seed(0)
    backbone = GPT(V, 7, 1, 4, 24).eval()
    ids = torch.randint(V, (17,)).tolist()
    parts = load("quality").windows(ids, 7, None)
    found, count = load("quality").perplexity(backbone, parts)
    losses = [-backbone(part[:, :-1])[0].log_softmax(-1)[range(part.shape[1] - 1), part[0, 1:]] for part in parts]
    assert count == 16
    assert found == pytest.approx(float(torch.cat(losses).mean().exp()), rel=1e-5)
