"""A checkpoint is written whole or not at all, whatever happens on the way."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cli_runs import wait_for

from lit_llm.training.checkpoint_io import CheckpointError, WholeFiles, sweep

SAVING = """
import sys, torch
from pathlib import Path
from lit_llm.training.checkpoint_io import WholeFiles

step = 0
while True:
    step += 1
    WholeFiles().save_checkpoint({"step": step, "weights": torch.full((500_000,), float(step))}, Path(sys.argv[1]))
"""


def content(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_the_folder_is_made_and_nothing_else_is_left(tmp_path) -> None:
    path = tmp_path / "a" / "b" / "last.ckpt"
    for step in (1, 2):
        WholeFiles().save_checkpoint({"step": step}, path)
        assert content(path) == {"step": step}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_full_disk_costs_no_checkpoint(tmp_path, monkeypatch, name) -> None:
    """K2, K3: one sentence with what is needed and what is free; the one before stays, the half one goes."""
    path = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"step": 1}, path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, name, full)
    with pytest.raises(CheckpointError, match="No space left on device; it needs 8 MB"):
        WholeFiles().save_checkpoint({"step": 2, "weights": [torch.zeros(2_000_000)]}, path)
    assert content(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


LIMITED = """
import resource, sys, torch
from pathlib import Path
from lit_llm.training.checkpoint_io import WholeFiles

resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))
WholeFiles().save_checkpoint({"weights": torch.zeros(2_000_000)}, Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the size of a file is limited by POSIX's setrlimit")
def test_a_true_limit_in_the_middle_of_the_file(tmp_path) -> None:
    """K3: torch's own writer meets it."""
    path = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"step": 1}, path)
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "(File too large; it needs 8 MB, and there are" in done.stderr
    assert content(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(50))
def test_a_kill_in_the_middle_of_a_save_costs_no_checkpoint(tmp_path, number) -> None:
    """K1: with TMPDIR on another file system; what is found is whole, and the leftovers are swept."""
    path = tmp_path / "last.ckpt"
    env = os.environ | {"TMPDIR": "/dev/shm" if Path("/dev/shm").is_dir() else str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", SAVING, str(path)], env=env, stderr=subprocess.PIPE)
    parts = f"last.ckpt.part-*-{process.pid}"
    wait_for(process, path.exists)
    for _ in range(number % 7 + 1):  # some saves later, and each time in the middle of one
        wait_for(process, lambda: not list(tmp_path.glob(parts)))
        wait_for(process, lambda: list(tmp_path.glob(parts)))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    whole = content(path)
    assert torch.equal(whole["weights"], torch.full((500_000,), float(whole["step"])))
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_leftovers_of_the_dead_are_swept(tmp_path) -> None:
    """Not what a living process writes, nor what belongs to another machine."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = [f"last.ckpt.part-{host}-{pid}" for host, pid in (
        (socket.gethostname(), dead.pid), (socket.gethostname(), os.getpid()), ("elsewhere", dead.pid)
    )]  # fmt: skip
    for name in names:
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(names[1:])


def test_a_checkpoint_that_cannot_be_removed_is_told_of(tmp_path, monkeypatch) -> None:
    """K21: the save that was to replace it has succeeded."""
    from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(TorchCheckpointIO, "remove_checkpoint", refuse)
    with pytest.warns(UserWarning, match=r"old\.ckpt' could not be removed \(Permission denied\)"):
        WholeFiles().remove_checkpoint(tmp_path / "old.ckpt")
