"""Runs cut at random places, by steps and by epochs: what goes on equals what was never cut, to the last bit.

Three places of each kind by default, all twenty with `-m slow`; real processes are killed in `test_kills.py`.
"""

import random
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from cli_runs import call, equal_at_the_end, run_folders
from resume_runs import MIXES, OFTEN, TASKS, batches, curves, write_config

CUTS = 20  # of each task, by steps and by epochs


def test_the_mixes_are_pairwise() -> None:
    for one, two in combinations(range(5), 2):
        met = {(mix[one], mix[two]) for mix in MIXES}
        assert len(met) == len({mix[one] for mix in MIXES}) * len({mix[two] for mix in MIXES})


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple, tuple[Path, Path]]:
    """Configs and run folders of what was never cut, by task, unit and mix."""
    return {}


def fit(capsys: Any, config: Path, logs: Path, *options: object) -> int:
    watch = "--trainer.callbacks+=resume_parts.Batches"
    return call(capsys, "fit", "-c", config, f"--trainer.logger.save_dir={logs}", watch, *options).code


@pytest.mark.parametrize(
    "number", [n if n in (1, 4, 11) else pytest.param(n, marks=pytest.mark.slow) for n in range(CUTS)]
)
@pytest.mark.parametrize("unit", ["steps", "epochs"])
@pytest.mark.parametrize("name", TASKS)
def test_a_run_cut_anywhere_goes_on(tmp_path, capsys, wholes, tmp_path_factory, name, unit, number) -> None:
    """By an exception before, within or after a step, in a validation, or between two epochs."""
    mix = MIXES[number % len(MIXES)]
    if (name, unit, mix) not in wholes:
        folder = tmp_path_factory.mktemp("whole")
        config = write_config(folder, name, unit, mix)
        assert fit(capsys, config, folder / "logs") == 0
        wholes[name, unit, mix] = config, run_folders(folder)[0]
    config, whole = wholes[name, unit, mix]
    choose = random.Random(f"{name} {unit} {number}")
    hook, longest = choose.choice(
        [
            ("on_train_batch_start", len(batches(whole))),
            ("on_before_optimizer_step", len(curves([whole])["train/loss"])),
            ("on_train_batch_end", len(batches(whole))),
            ("on_validation_batch_start", len(curves([whole])["val/loss"])),
            ("on_validation_end", len(curves([whole])["val/loss"])),
        ]
    )
    crash = ("--trainer.callbacks+=resume_parts.Crash", f"--trainer.callbacks.hook={hook}")
    calls = choose.randrange(mix[0] if "batch" in hook and "train" in hook else 0, longest)
    with pytest.raises(RuntimeError, match="crash"):
        fit(
            capsys,
            config,
            tmp_path / "logs",
            f"--trainer.callbacks+={OFTEN}",
            *crash,
            f"--trainer.callbacks.calls={calls}",
        )
    go_on = () if not list(tmp_path.rglob("last.ckpt")) else ("--ckpt_path=last",)
    assert fit(capsys, config, tmp_path / "logs", *go_on) == 0
    cut = run_folders(tmp_path)
    assert equal_at_the_end(whole, cut[-1])
    found, wanted = curves(cut), curves([whole])
    for tag in [tag for tag in wanted if tag.startswith(("train/", "val/"))]:
        assert found[tag] == wanted[tag]
    read, rest = batches(whole), batches(cut[-1])
    assert rest == read[len(read) - len(rest) :]
