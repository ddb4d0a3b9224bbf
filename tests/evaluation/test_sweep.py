"""`lit-llm sweep`: its jobs, what is skipped and repeated, and what a failed or interrupted run leaves."""

import shlex
import shutil
import signal
from pathlib import Path

import pytest
from cli_runs import call, refusal, spawn, wait_for, weights, write_text, write_tiny, write_yaml

from lit_llm.evaluation.processes import Job, Outcome, run_jobs
from lit_llm.evaluation.runs import FINISHED, read_runs
from lit_llm.evaluation.sweep import seeds_of, split

GRID = {"variants": {"plain": {}, "fast": {"config": "fast.yaml", "model.optimizer.lr": 0.03}}}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The options of a sweep of two variants of a tiny run."""
    write_yaml(tmp_path / "fast.yaml", {"trainer": {"gradient_clip_val": 1.0}})
    return ["-c", str(write_tiny(tmp_path)), "--grid", str(write_yaml(tmp_path / "grid.yaml", GRID))]


def test_jobs(files, tmp_path, capsys) -> None:
    """A line each: configs, overlays, what all share, what the variant sets, seed and place, in this order."""
    result = call(capsys, "sweep", *files, "--seeds", "2", "--trainer.max_steps", "3", "--print_jobs", "true")
    assert (result.code, result.err) == (0, "")
    jobs = [shlex.split(line) for line in result.out.splitlines()]
    logs = tmp_path / "logs"  # the config says so
    assert jobs[3] == [
        *("lit-llm", "fit", "-c", files[1], "-c", str(tmp_path / "fast.yaml"), "--trainer.max_steps", "3"),
        *("--model.optimizer.lr=0.03", "--seed_everything=2", f"--trainer.logger.save_dir={logs}"),
        *(f"--trainer.logger.name={tmp_path.name}/fast/seed_2", "--trainer.enable_progress_bar=false"),
    ]
    assert [job[-2].partition("/")[2] for job in jobs] == [f"{v}/seed_{s}" for v in ("plain", "fast") for s in (1, 2)]
    assert not logs.exists()


def test_whose_an_option_is() -> None:
    own, configs, options = split(
        ["-c", "a.yaml", "--seeds=3", "--config=b.yaml", "--data.source", "x", "--jobs", "2", "--model.compile=true"]
    )
    assert own == ["--seeds=3", "--jobs=2"]
    assert configs == ["a.yaml", "b.yaml"]
    assert options == ["--data.source", "x", "--model.compile=true"]


@pytest.mark.parametrize(("asked", "seeds"), [(3, [1, 2, 3]), ([7, 0], [7, 0])])
def test_seeds(asked, seeds) -> None:
    assert seeds_of(asked) == seeds


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--seeds", "0"], "--seeds 0 cannot be"),
        (["--seeds", "[1,1]"], "--seeds [1, 1] cannot be"),
        (["--jobs", "0"], "--jobs 0 cannot be"),
        (["--job", "3"], "--job 3 cannot be: there are 2 jobs"),
        (["--grid", "gone.yaml"], "cannot read the config file 'gone.yaml'"),
        (["--ckpt_path", "last"], "--ckpt_path is set for each run by the sweep"),
        (["--name"], "--name needs a value"),
    ],
)
def test_refusals(options, told, files, capsys) -> None:
    assert told in refusal(call(capsys, "sweep", *files, *options))


def test_no_config(files, capsys) -> None:
    assert "needs the config of a run" in refusal(call(capsys, "sweep", *files[2:]))


def test_what_becomes_of_jobs(trained: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """Failed, ended without a run, finished, finished before; the end of the log of those that failed."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    jobs = [Job(name, tmp_path / name, (command,)) for name, command in
            [("wrong", "fti"), ("none", "--version"), ("done", "--help"), ("before", "--help")]]  # fmt: skip
    shutil.copytree(trained / "pretrain/version_0", tmp_path / "done/version_0")  # as if the job had made it
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / FINISHED).write_text("version_0\n")
    outcomes = run_jobs(jobs, at_once=2)
    assert outcomes == [Outcome.FAILED, Outcome.FAILED, Outcome.FINISHED, Outcome.SKIPPED]
    told = capsys.readouterr()
    assert "[3/4] done: finished in" in told.out
    assert "[1/4] wrong: failed with exit code 2" in told.err
    assert "there is no command 'fti'; did you mean 'fit'?" in told.err
    assert "[2/4] none: ended before its last step" in told.err
    assert (tmp_path / "done" / FINISHED).read_text() == "version_0\n"
    assert run_jobs(jobs[2:], at_once=1) == [Outcome.SKIPPED, Outcome.SKIPPED]


def test_other_options_are_refused(trained: Path, tmp_path: Path) -> None:
    """Runs of other options under the same name would be taken for these."""
    job = Job("one", tmp_path / "one", ("fit", "--a=1"))
    job.folder.mkdir()
    (job.folder / "command.txt").write_text("fit --a=2\n")
    with pytest.raises(ValueError, match="holds a run of other options"):
        run_jobs([job], at_once=1)


def test_attempts_that_were_repeated_do_not_count(trained: Path, tmp_path: Path) -> None:
    for number in (0, 1):
        shutil.copytree(trained / "pretrain/version_0", tmp_path / f"sweep/seed_1/version_{number}")
    assert len(read_runs([tmp_path / "sweep"])[0]) == 2
    (tmp_path / "sweep/seed_1" / FINISHED).write_text("version_1\n")
    assert [run.folder.name for run in read_runs([tmp_path / "sweep"])[0]] == ["version_1"]


@pytest.mark.slow
def test_a_sweep_from_end_to_end(files, tmp_path, capsys) -> None:
    """A failed run does not stop the others; the same command runs what is missing; compare shows rows by name."""
    grid = {"variants": {**GRID["variants"], "odd": {"model.backbone.n_embd": 25}}}
    write_yaml(tmp_path / "grid.yaml", grid)
    sweep = ["sweep", *files, "--name", "tried", "--seeds", "2", "--jobs", "2"]
    result = call(capsys, *sweep)
    assert result.code == 1
    assert result.out.splitlines()[-2] == "4 finished, 2 failed"
    assert "n_embd 25 is not divisible by n_head 4" in result.err
    again = call(capsys, *sweep)
    assert again.code == 1
    assert again.out.splitlines()[-2] == "4 finished before, 2 failed"
    command = shlex.split(again.out.splitlines()[-1].partition(": lit-llm ")[2])
    shown = call(capsys, *command)
    assert (shown.code, shown.err) == (0, "")
    assert "plain " in shown.out
    assert "fast " in shown.out


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on(files, tmp_path) -> None:
    """Ctrl-C: the run saves, nothing stays behind; the same command goes on from there, and one run is shown."""
    write_text(tmp_path / "text.txt", lines=60)
    options = ["--name", "long", "--seeds", "[5]", "--trainer.max_steps", "3000", "--trainer.val_check_interval", "100"]
    write_yaml(tmp_path / "grid.yaml", {"variants": {"plain": {}}})
    folder = tmp_path / "logs/long/plain/seed_5"
    process = spawn("sweep", *files, *options)
    wait_for(process, lambda: list(folder.glob("version_0/checkpoints/last.ckpt")))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "stopping 1 run" in err
    assert not (folder / FINISHED).exists()
    reached = weights(folder / "version_0")["global_step"]
    assert reached < 3000
    process = spawn("sweep", *files, *options)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    assert (folder / FINISHED).read_text() == "version_1\n"
    (run,), notes = read_runs([tmp_path / "logs/long"])
    assert (run.steps, notes) == (3000, [])
    assert run.curve("train/loss")[0].step == 0
    assert run.events.scalars["train/loss"][0].step == reached
