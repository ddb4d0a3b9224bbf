"""A rank that dies, raises or gets stuck: all end within 30 seconds, and not with exit code 0 (T6 to T10)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runs import run_folders, spawn, wait_for, weights, write_tiny
from two_ranks import free_port

pytestmark = pytest.mark.slow
LIMIT = 30  # seconds
FAULTS = """
import os
import sys
import time
from pathlib import Path

from lightning import Callback


class Fault(Callback):
    def __init__(self, kind: str, on: int):
        self.kind, self.on = kind, on

    def on_train_batch_start(self, trainer, module, batch, number):
        if number == 2:
            Path(f"pid_{trainer.global_rank}").write_text(str(os.getpid()))
        if number == 2 and trainer.global_rank == self.on:
            if self.kind == "raise":
                raise RuntimeError("a fault of one rank")
            if self.kind == "sleep":
                time.sleep(600)

    def on_exception(self, trainer, module, exception):
        if self.kind == "raise":
            trainer.save_checkpoint("on_exception.ckpt")  # for which all ranks would have to come
"""


def start(folder: Path, kind: str = "none", on: int = 0, *options: str, launcher: bool = False) -> subprocess.Popen:
    """A run without end on two ranks, by Lightning's launcher or by torchrun."""
    (folder / "rank_faults.py").write_text(FAULTS)
    fault = (
        "--trainer.callbacks+=rank_faults.Fault",
        f"--trainer.callbacks.kind={kind}",
        f"--trainer.callbacks.on={on}",
    )
    args = ("fit", "-c", write_tiny(folder), "--trainer.max_steps=-1", "--trainer.devices=2", *fault, *options)
    strategy = () if any("strategy" in option for option in options) else ("--trainer.strategy=ddp",)
    port = free_port()
    if not launcher:
        return spawn(*args, *strategy, env={"MASTER_PORT": str(port)})
    run = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port", str(port), "-m", "lit_llm"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *run, *map(str, (*args, *strategy))]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ranks(folder: Path, process: subprocess.Popen) -> list[int]:
    """Process ids of both ranks, as soon as both are at work."""
    files = [folder / f"pid_{rank}" for rank in range(2)]
    wait_for(process, lambda: all(file.exists() and file.read_text() for file in files))
    return [int(file.read_text()) for file in files]


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def started() -> Iterator[list[int]]:
    """Process ids that a test has to have seen the end of, and that are killed if it has not."""
    processes: list[int] = []
    yield processes
    for process in filter(is_alive, processes):
        os.kill(process, signal.SIGKILL)


def end(process: subprocess.Popen, processes: list[int], limit: float = LIMIT) -> tuple[int, str]:
    """Exit code and stderr; all ranks are gone by then, or soon after."""
    deadline = time.monotonic() + limit
    try:
        _, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    while any(map(is_alive, processes)):
        assert time.monotonic() < deadline, f"a rank is still there: {err[-2000:]}"
        os.sched_yield()
    return process.returncode, err


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank(tmp_path, started, victim) -> None:
    """T6."""
    process = start(tmp_path)
    started += ranks(tmp_path, process)
    os.kill(started[victim], signal.SIGKILL)
    code, _ = end(process, started)
    assert code != 0


def test_a_rank_that_is_asked_to_stop(tmp_path, started) -> None:
    """T7: it saves and stops together with the other one."""
    process = start(tmp_path)
    started += ranks(tmp_path, process)
    os.kill(started[1], signal.SIGTERM)
    code, err = end(process, started)
    assert code == 143, err
    assert weights(run_folders(tmp_path)[0])["global_step"] > 2


@pytest.mark.parametrize("on", [0, 1])
def test_an_exception_on_one_rank(tmp_path, started, on) -> None:
    """T8: even where it saves a checkpoint then, to which no other rank comes."""
    process = start(tmp_path, "raise", on)
    started += ranks(tmp_path, process)
    code, err = end(process, started)
    assert code not in (0, 143)
    assert "a fault of one rank" in err


@pytest.mark.parametrize("on", [0, 1])
def test_a_stuck_rank(tmp_path, started, on) -> None:
    """T10: the others wait as long as the strategy says; then the stuck one tells where it is."""
    own = "{class_path: lightning.pytorch.strategies.DDPStrategy, init_args: {timeout: '0:00:20'}}"
    process = start(tmp_path, "sleep", on, f"--trainer.strategy={own}")
    started += ranks(tmp_path, process)
    code, err = end(process, started, 20 + LIMIT)
    assert code not in (0, 143)
    assert "rank_faults.py" in err.partition("most recent call first")[2], err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_launcher_that_is_ended(tmp_path, started, number) -> None:
    """T9: torchrun leaves no orphans."""
    process = start(tmp_path, launcher=True)
    started += ranks(tmp_path, process)
    process.send_signal(number)
    code, _ = end(process, started)
    assert code != 0
