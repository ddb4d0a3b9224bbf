"""lit-llm sweep."""

import shlex
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from lit_llm.config_files import check_config, flat
from lit_llm.evaluation.grid import Variant, read_grid
from lit_llm.evaluation.processes import Job, Outcome, run_jobs
from lit_llm.usage import MAX_SEED, Parser

OWN = ("grid", "seeds", "jobs", "job", "print_jobs", "name")
SAVE_DIR = "trainer.logger.save_dir"
PROGRESS_BAR = "trainer.enable_progress_bar"


def run(args: list[str]) -> int:
    """Train what a grid names and has not been trained yet; a run that fails is told of, and the others go on."""
    own, configs, options = split(args[1:])
    config = parser().parse_args(own)
    if config.jobs < 1:
        raise ValueError(f"--jobs {config.jobs} cannot be: it is at least 1")
    if not configs:
        raise ValueError("sweep needs the config of a run: -c FILE, as of lit-llm fit")
    for path in configs:
        check_config(Path(path))
    grid = Path(config.grid)
    name = config.name or (grid.absolute().parent.name if grid.stem == "grid" else grid.stem)
    sweep = Sweep(name, Path(_save_dir(configs, options)), tuple(configs), tuple(options))
    jobs = [sweep.job(variant, seed) for variant in read_grid(grid) for seed in seeds_of(config.seeds)]
    if config.print_jobs:
        print("\n".join(shlex.join(["lit-llm", *job.command]) for job in jobs))
        return 0
    if config.job is not None:
        if not 1 <= config.job <= len(jobs):
            raise ValueError(f"--job {config.job} cannot be: there are {len(jobs)} jobs, from 1")
        jobs = jobs[config.job - 1 : config.job]
    outcomes = run_jobs(jobs, config.jobs)
    tell(outcomes, sweep.folder)
    return 1 if Outcome.FAILED in outcomes else 0


def tell(outcomes: list[Outcome], folder: Path) -> None:
    """Print how it ended, and what to type next."""
    numbers = {outcome.value: outcomes.count(outcome) for outcome in Outcome if outcome in outcomes}
    print(", ".join(f"{number} {word}" for word, number in numbers.items()))
    print(f"to compare them: lit-llm compare {shlex.quote(str(folder))}")
    if Outcome.FAILED in outcomes:
        print("the same command again runs those that failed", file=sys.stderr)


@dataclass(frozen=True)
class Sweep:
    """What all runs of a sweep share.

    Args:
        name: Folder of the sweep.
        save_dir: Folder of all runs.
        configs: Files of a run.
        options: Further options of fit.
    """

    name: str
    save_dir: Path
    configs: tuple[str, ...]
    options: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where its runs lie."""
        return self.save_dir / self.name

    def job(self, variant: Variant, seed: int) -> Job:
        """One run: overlays after the configs, and what the variant sets after what all share."""
        name = "/".join(filter(None, (self.name, variant.name, f"seed_{seed}")))
        files = [word for path in self.configs for word in ("-c", path)]
        overlays = [word for pair in pairwise(variant.options) if pair[0] == "-c" for word in pair]
        shown = any(option.partition("=")[0] == f"--{PROGRESS_BAR}" for option in self.options)
        command = ["fit", *files, *overlays, *self.options, *variant.options[len(overlays) :]]
        command += [f"--seed_everything={seed}", f"--{SAVE_DIR}={self.save_dir}", f"--trainer.logger.name={name}"]
        command += [] if shown else [f"--{PROGRESS_BAR}=false"]  # nobody sees it
        title = f"{variant.name} seed {seed}".strip()
        return Job(title, self.save_dir / name, tuple(command))


def split(args: list[str]) -> tuple[list[str], list[str], list[str]]:
    """The options of the sweep itself, the config files, and the options that every run is given.

    Args:
        args: All of them.

    Raises:
        ValueError: If an option of the runs is the sweep's business.
    """
    own: list[str] = []
    configs: list[str] = []
    options: list[str] = []
    rest = list(args)
    while rest:
        argument = rest.pop(0)
        option, equals, value = argument.partition("=")
        if option in ("-c", "--config"):
            configs.append(value if equals else _value(option, rest))
        elif option.lstrip("-") in OWN and option.startswith("--"):
            own.append(argument if equals else f"{option}={_value(option, rest)}")
        elif argument in ("-h", "--help"):
            own.append(argument)
        elif option in ("--seed_everything", "--ckpt_path", "--trainer.logger.name", "--trainer.logger.version"):
            raise ValueError(f"{option} is set for each run by the sweep; see --seeds and --name")
        else:
            options.append(argument)
    return own, configs, options


def _value(option: str, rest: list[str]) -> str:
    if not rest:
        raise ValueError(f"{option} needs a value")
    return rest.pop(0)


def seeds_of(asked: int | list[int]) -> list[int]:
    """The seeds of `--seeds`: a number of them, from 1, or themselves.

    Raises:
        ValueError: If there is none, one twice, or one out of range.
    """
    seeds = list(range(1, asked + 1)) if isinstance(asked, int) else asked
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed <= MAX_SEED for seed in seeds):
        raise ValueError(
            f"--seeds {asked} cannot be: it is how many, at least 1, or a list of different ones, as '[1,2,3]'"
        )
    return seeds


def _save_dir(configs: list[str], options: list[str]) -> str:
    """Where the runs will lie: as an option says, or the last of the files, or the logger."""
    for option, value in reversed(list(pairwise([*options, ""]))):
        name, equals, joined = option.partition("=")
        if name == f"--{SAVE_DIR}":
            return joined if equals else value
    for path in reversed(configs):
        settings: dict[str, Any] = dict(flat(yaml.safe_load(Path(path).read_text(encoding="utf-8"))))
        if SAVE_DIR in settings:
            return str(settings[SAVE_DIR])
    return "logs"


def parser() -> Parser:
    """The options."""
    parser = Parser(
        prog="lit-llm sweep",
        usage="lit-llm sweep -c FILE [-c FILE ...] --grid FILE [--seeds N] [options of fit]",
        description="Train every variant of a grid with several seeds, each run in a process and a folder of its own, "
        "LOGS/SWEEP/VARIANT/seed_N. What is finished is not run again, what was interrupted goes on. All options of "
        "fit are known, and given to every run.",
    )
    add = parser.add_argument
    add("--grid", type=str, required=True, help="file of variants (named, with options and overlays) and axes")
    add("--seeds", type=int | list[int], default=1, help="how many, from 1; or which, as '[1,2,3]'")
    add("--jobs", type=int, default=1, help="runs at once; they share the cores (OMP_NUM_THREADS)")
    add("--job", type=int | None, default=None, help="run only this one, from 1: a task of a SLURM array")
    add("--print_jobs", type=bool, default=False, help="print the command of each run, a line each, and run nothing")
    add("--name", type=str | None, default=None, help="folder of the sweep; null is the grid's file, or its folder")
    return parser
