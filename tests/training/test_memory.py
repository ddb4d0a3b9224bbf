"""Memory that a training step frees: kept for the next one on a CPU, given back after the run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lit_llm.training import heap
from lit_llm.training.heap import USUAL, tune_heap

pytestmark = pytest.mark.skipif(not tune_heap(USUAL), reason="memory is kept by knobs of glibc")

MEASURES = """
import resource
from pathlib import Path

import torch

FLOATS = 2**24  # 64 MiB: beyond what glibc keeps by itself
PAGES = FLOATS * 4 // resource.getpagesize()

def resident():
    "What of this process is in memory, in such tensors."
    return int(Path("/proc/self/statm").read_text().split()[1]) / PAGES

def kept():
    "How much of such a tensor stays in memory once it is freed."
    before = resident()
    torch.ones(FLOATS)
    return resident() - before
"""


def in_new_process(code: str) -> None:
    """Where no other test has left holes in the heap, or moved to another one."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", MEASURES + code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_what_is_freed_is_used_again_until_it_is_given_back() -> None:
    in_new_process("""
from lit_llm.training.heap import APART, KEEP, give_back, tune_heap

assert kept() < 0.1
before = resident()
assert tune_heap(APART)
assert kept() < 0.1
assert tune_heap(KEEP)
assert kept() > 0.9
give_back()
assert resident() - before < 0.1
""")


@pytest.mark.parametrize("fails", [False, True])
def test_it_holds_for_a_run_alone(tmp_path: Path, fails: bool) -> None:
    in_new_process(f"""
from lit_llm.training.memory import KeepFreedMemory
from python_runs import tiny_data, tiny_module, trainer

class Look(KeepFreedMemory):
    kept = []  # at the start of each step

    def on_train_batch_start(self, *args):
        self.kept.append(kept())
        if {fails} and len(self.kept) == 2:
            raise RuntimeError("no more")

    def teardown(self, *args, **kwargs):
        before = resident()
        super().teardown(*args, **kwargs)
        self.given_back = before - resident()

look, failed = Look(), False
try:
    trainer(max_steps=2, limit_val_batches=0, callbacks=[look]).fit(tiny_module(), tiny_data(Path({str(tmp_path)!r})))
except RuntimeError:
    failed = True
assert failed == {fails}
assert look.kept[0] < 0.1 and look.kept[1] > 0.9
assert look.given_back > 0.9
""")


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.sys, "platform", "darwin")
    assert not tune_heap(USUAL)
