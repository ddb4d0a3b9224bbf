"""The run folder: each run has one of its own, or a sentence that says why not."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lit_llm.training.logger import RunLogger

fork = multiprocessing.get_context("fork")  # real processes, without importing everything again


def results(*functions: Callable[[], Any]) -> list[Any]:
    """What functions return or raise in processes of their own, which begin together."""
    barrier, queue = fork.Barrier(len(functions)), fork.SimpleQueue()

    def process(function: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            queue.put(function())
        except Exception as error:
            queue.put(f"{type(error).__name__}: {error}")

    processes = [fork.Process(target=process, args=(function,)) for function in functions]
    for each in processes:
        each.start()
    found = [queue.get() for _ in processes]
    for each in processes:
        each.join()
    return found


def test_three_runs_at_once_get_three_folders(tmp_path) -> None:
    """C21: however close to each other they begin; ten times, for once may be luck."""
    for number in range(10):
        versions = results(*[lambda: RunLogger(str(tmp_path), "at_once").version] * 3)
        assert sorted(versions) == [3 * number, 3 * number + 1, 3 * number + 2]
    assert len(list((tmp_path / "at_once").iterdir())) == 30


def test_next_number_is_above_the_highest(tmp_path) -> None:
    """A gap is not filled, so that the newest run has the highest number; other folders are none of ours."""
    for name in ("version_2", "version_11", "version_12_old", "version_x", "other_99"):
        (tmp_path / "run" / name).mkdir(parents=True)
    logger = RunLogger(str(tmp_path))
    assert not (tmp_path / "run" / "version_12").exists()  # nothing is made before it is asked for
    assert logger.version == 12
    assert logger.version == 12
    assert Path(logger.log_dir) == tmp_path / "run" / "version_12"
    assert Path(logger.log_dir).is_dir()


def test_a_number_asked_for_is_given_once(tmp_path) -> None:
    assert RunLogger(str(tmp_path), version=5).version == 5
    with pytest.raises(ValueError, match=r"version_5' is taken; leave --trainer\.logger\.version out"):
        _ = RunLogger(str(tmp_path), version=5).version
    assert RunLogger(str(tmp_path)).version == 6


def test_home_is_expanded_and_only_events_are_written(tmp_path, monkeypatch) -> None:
    """~ is the user's folder; a file that says less than config.yaml is not added."""
    monkeypatch.setenv("HOME", str(tmp_path))
    logger = RunLogger("~/runs", "mine")
    logger.log_metrics({"val/loss": 1.5}, step=3)
    logger.save()
    logger.finalize("success")
    (file,) = (tmp_path / "runs" / "mine" / "version_0").iterdir()
    assert "tfevents" in file.name


@pytest.fixture
def visible() -> Iterator[Path]:
    """A folder that every user can look into, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def as_nobody(function: Callable[[], Any]) -> Any:
    """What a function returns or raises for a user with no rights; root may write everywhere."""

    def become() -> Any:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        return function()

    return results(become)[0]


def test_a_folder_that_cannot_be_written_to(visible) -> None:
    """K4: refused before anything is computed; nothing is left."""
    visible.chmod(0o555)
    said = as_nobody(lambda: RunLogger(str(visible), "mine"))
    assert said == (
        f"ValueError: cannot make a run folder in '{visible / 'mine'}' (Permission denied); "
        "choose another by --trainer.logger.save_dir"
    )
    assert not list(visible.iterdir())
    visible.chmod(0o777)
    assert as_nobody(lambda: RunLogger(str(visible), "mine").version) == 0  # it can be otherwise


def test_a_folder_that_cannot_be_looked_into(visible) -> None:
    """K4: the same sentence where even its existence is hidden."""
    (visible / "hidden").mkdir(mode=0o000)
    said = as_nobody(lambda: RunLogger(str(visible / "hidden" / "logs"), "mine"))
    assert str(said).startswith("ValueError: cannot make a run folder in")


def test_a_folder_that_becomes_unwritable(visible) -> None:
    """K4: also where it is found out late."""

    def late() -> Any:
        logger = RunLogger(str(visible), "mine")
        visible.chmod(0o555)
        return logger.version

    visible.chmod(0o777)
    if os.geteuid() == 0:
        os.chown(visible, 65534, 65534)
    assert "Permission denied" in as_nobody(late)
    visible.chmod(0o755)


def test_a_file_in_the_way(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="file' is a file"):
        RunLogger(str(tmp_path / "file" / "logs"), "mine")
