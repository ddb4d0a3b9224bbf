"""The runs of a sweep, each in a process of its own, some at once."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import IO, Any

from lit_llm.evaluation.runs import FINISHED, read_run

COMMAND, LOG = "command.txt", "log.txt"  # in the folder of a job
LINES = 4  # of the log of a run that failed
PATIENCE = 120.0  # seconds for a run to write its checkpoint when it is stopped


class Outcome(Enum):
    """How a job ended."""

    SKIPPED = "finished before"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Args:
        title: What to call it.
        folder: Where its run folders lie, one for each time that it was started.
        command: `fit` and its options.
    """

    title: str
    folder: Path
    command: tuple[str, ...]

    def refuse_others(self) -> None:
        """Refuse a folder whose runs had other options: they would be taken for these.

        Raises:
            ValueError: If there is one.
        """
        file = self.folder / COMMAND
        before = file.read_text(encoding="utf-8").strip() if file.is_file() else None
        if before not in (None, shlex.join(self.command)):
            raise ValueError(
                f"'{self.folder}' holds a run of other options ({file} has them); choose another --name, or remove the "
                "folder"
            )

    @property
    def is_finished(self) -> bool:
        """Whether it has been run to its end."""
        return (self.folder / FINISHED).is_file()

    @property
    def newest(self) -> Path | None:
        """Its latest run folder."""
        numbers = [path.name.removeprefix("version_") for path in self.folder.glob("version_*")]
        last = max((int(number) for number in numbers if number.isdecimal()), default=None)
        return None if last is None else self.folder / f"version_{last}"

    @property
    def resumption(self) -> tuple[str, ...]:
        """The option that makes it go on where it was interrupted, if there is something to go on with."""
        newest = self.newest
        if newest is None or not any(self.folder.glob("version_*/checkpoints/last.ckpt")):
            return ()
        run = read_run(newest)
        ends = [run.config.get(f"trainer.{name}") or -1 for name in ("max_steps", "max_epochs")]
        return (
            () if max(ends) > 0 and run.is_finished else ("--ckpt_path=last",)
        )  # fit refuses to go on with nothing left to do

    def start(self, at_once: int) -> tuple[subprocess.Popen, IO[bytes]]:
        """Start its process, in a session of its own: Ctrl-C reaches the sweep alone, which passes it on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / COMMAND).write_text(f"{shlex.join(self.command)}\n", encoding="utf-8")
        threads = str(max(1, len(os.sched_getaffinity(0)) // at_once))
        environment = {"OMP_NUM_THREADS": threads, **os.environ} if at_once > 1 else None
        log = (self.folder / LOG).open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "lit_llm", *self.command, *self.resumption],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        return process, log

    def end(self, code: int) -> Outcome:
        """Mark it as finished if it is."""
        newest = self.newest
        if code == 0 and newest is not None and read_run(newest).is_finished:
            (self.folder / FINISHED).write_text(f"{newest.name}\n", encoding="utf-8")
            return Outcome.FINISHED
        return Outcome.FAILED

    def last_words(self) -> list[str]:
        """The end of its log."""
        with (self.folder / LOG).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 10_000))
            lines = log.read().decode(errors="replace").splitlines()
        return [line for line in lines if line.strip()][-LINES:]


def run_jobs(jobs: Sequence[Job], at_once: int) -> list[Outcome]:
    """Run jobs, some at once, and print a line for each that has ended.

    Args:
        jobs: Those of a sweep.
        at_once: How many may run at a time.

    Raises:
        ValueError: If the folder of a job belongs to another one; nothing has been started then.
    """
    for job in jobs:
        job.refuse_others()
    outcomes = {job: Outcome.SKIPPED for job in jobs if job.is_finished}
    waiting = [(number, job) for number, job in enumerate(jobs, start=1) if job not in outcomes]
    running: list[tuple[int, Job, subprocess.Popen, IO[bytes], float]] = []
    with _stopped_by_signals():
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    number, job = waiting.pop(0)
                    running.append((number, job, *job.start(at_once), time.monotonic()))
                time.sleep(0.1)
                for entry in [entry for entry in running if entry[2].poll() is not None]:
                    running.remove(entry)
                    number, job, process, log, began = entry
                    log.close()
                    outcomes[job] = job.end(process.returncode)
                    _tell(f"[{number}/{len(jobs)}] {job.title}", job, process.returncode, outcomes[job], began)
        finally:
            _stop([process for _, _, process, _, _ in running])
            for entry in running:
                entry[3].close()
    return [outcomes[job] for job in jobs]


def _tell(place: str, job: Job, code: int, outcome: Outcome, began: float) -> None:
    minutes = f"{(time.monotonic() - began) / 60:.1f} min"
    if outcome is Outcome.FINISHED:
        print(f"{place}: finished in {minutes}", flush=True)
        return
    how = f"failed with exit code {code}" if code else "ended before its last step"
    print(f"{place}: {how} after {minutes}; the end of {job.folder / LOG}:", file=sys.stderr)
    print("".join(f"    {line}\n" for line in job.last_words()), end="", file=sys.stderr, flush=True)


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    """Let runs write their checkpoints and end; what does not end in time, or is asked twice, is killed."""
    if processes:
        runs = "1 run" if len(processes) == 1 else f"{len(processes)} runs"
        print(f"stopping {runs}; the same command again goes on with them", file=sys.stderr, flush=True)
    try:
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + PATIENCE
        for process in processes:
            process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end a sweep as Ctrl-C does, with their own exit codes."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before: dict[signal.Signals, Any] = {name: signal.signal(name, leave) for name in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
