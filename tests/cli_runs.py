"""What the tests of the command line share: a tiny run, ways to call it, and what a refusal looks like."""

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import lightning  # noqa: F401 (its log handler keeps the stderr of this moment, which outlives those of single tests)
import pytest
import torch
import yaml

from lit_llm.__main__ import main

ROOT = Path(__file__).parents[1]
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "big", "red", "dogs", "run", "home", "fast"]


def write_text(path: Path, lines: int = 60, seed: int = 0) -> Path:
    """A text that a model of bytes can learn something from."""
    choose = random.Random(seed)
    path.write_text("\n".join(" ".join(choose.choice(WORDS) for _ in range(9)) for _ in range(lines)), "utf-8")
    return path


def tiny_config(folder: Path) -> dict:
    """A complete run of four steps, with its text, cache and logs in a folder."""
    logger = {"save_dir": str(folder / "logs"), "name": "tiny"}
    return {
        "seed_everything": 1234,
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": -1,
            "max_steps": 4,
            "val_check_interval": 2,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": {"class_path": "lit_llm.training.logger.RunLogger", "init_args": logger},
            "callbacks": [
                {"class_path": "lit_llm.training.checkpoints.BestCheckpoint"},
                {"class_path": "lit_llm.training.checkpoints.LastCheckpoint"},
            ],
        },
        "model": {
            "class_path": "lit_llm.modules.LanguageModeling",
            "init_args": {
                "backbone": {"class_path": "lit_llm.GPT", "init_args": {"n_layer": 1, "n_head": 4, "n_embd": 24}},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01, "weight_decay": 0.1}},
            },
        },
        "data": {
            "class_path": "lit_llm.data.pretraining.Pretraining",
            "init_args": {
                "source": str(folder / "text.txt"),
                "tokenizer": {"class_path": "lit_llm.data.tokenizer.Bytes"},
                "block_size": 7,
                "batch_size": 5,
                "cache_dir": str(folder / "cache"),
            },
        },
    }


def write_tiny(folder: Path, lines: int = 60) -> Path:
    """The config of a tiny run and its text; the path of the config."""
    write_text(folder / "text.txt", lines)
    return write_yaml(folder / "tiny.yaml", tiny_config(folder))


def write_yaml(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), "utf-8")
    return path


class Result(NamedTuple):
    """What a command leaves."""

    code: int
    out: str
    err: str


def call(capsys: pytest.CaptureFixture[str], *args: object) -> Result:
    """Run a command in this process."""
    capsys.readouterr()
    try:
        code = main([str(arg) for arg in args])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    return Result(code, *capsys.readouterr())


def spawn(*args: object, **options: object) -> subprocess.Popen:
    """Start the command line in a process of its own."""
    env = os.environ | {"OMP_NUM_THREADS": "1"} | options.pop("env", {})  # type: ignore[operator]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"} | options
    return subprocess.Popen([sys.executable, "-m", "lit_llm", *map(str, args)], env=env, **pipes)  # type: ignore


def refusal(result: Result) -> str:
    """The one sentence of a wrong usage, without the name of the command; everything else about it is checked."""
    assert result.code == 2, result.err
    assert "Traceback" not in result.err
    lines = [line for line in result.err.splitlines() if re.match(r"lit-llm( \w+)*: error: ", line)]
    assert result.err.splitlines()[-1:] == lines, result.err  # one line, and the last one
    return lines[0].partition(": error: ")[2]


def printed(result: Result) -> dict:
    """The configuration that --print_config put on stdout."""
    assert result.code == 0, result.err
    return yaml.safe_load(result.out)


def run_folders(folder: Path, name: str = "tiny") -> list[Path]:
    """The run folders of a tiny run, the oldest first."""
    return sorted((folder / "logs" / name).glob("version_*"), key=lambda path: int(path.name[8:]))


def weights(run: Path, name: str = "last") -> dict:
    """The checkpoint of a run, read without running any code in it."""
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def same(first: dict, second: dict) -> bool:
    """Whether two states hold the same tensors, bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def equal_at_the_end(first: Path, second: Path) -> bool:
    """Weights, optimizer and schedule, bit for bit."""
    one, two = weights(first), weights(second)
    moments = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (one, two)]
    return (
        same(one["state_dict"], two["state_dict"])
        and all(same(moments[0][number], moments[1][number]) for number in moments[0])
        and one["optimizer_states"][0]["param_groups"] == two["optimizer_states"][0]["param_groups"]
        and one["lr_schedulers"] == two["lr_schedulers"]
    )


def wait_for(process: subprocess.Popen, there: Callable[[], object], seconds: float = 120) -> None:
    """Look until something is there; a process that has ended, or takes too long, has failed."""
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, "it takes too long"
        with suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"it has ended with {process.wait(0.02)}: {process.communicate()[1]}")


def events(run: Path) -> Any:
    """What a run has logged, as TensorBoard reads it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run)).Reload()


def losses(run: Path, tag: str = "train/loss") -> dict[int, float]:
    """One curve of a run, by step."""
    return {event.step: event.value for event in events(run).Scalars(tag)}
