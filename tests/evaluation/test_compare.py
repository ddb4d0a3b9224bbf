"""`lit-llm compare` on real runs: groups, formats, damage, and what it leaves alone."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_runs import call, losses, refusal

from lit_llm.evaluation.groups import group
from lit_llm.evaluation.hparams import FILE
from lit_llm.evaluation.runs import read_run, read_runs


def rewrite(run: Path, change: dict[str, Any]) -> None:
    """Set values of a run's config.yaml by their dotted places in the file."""
    content = yaml.safe_load((run / "config.yaml").read_text())
    for place, value in change.items():
        *outer, last = place.split(".")
        inner = content
        for name in outer:
            inner = inner[name]
        inner[last] = value
    (run / "config.yaml").write_text(yaml.safe_dump(content))


def test_seeds_are_one_row(logs: Path, capsys) -> None:
    """Named by what differs; the numbers are those of TensorBoard, the mean and the interval those of two seeds."""
    result = call(capsys, "compare", logs, "--format", "json")
    assert (result.code, result.err) == (0, "")
    made = json.loads(result.out)
    assert {each["name"] for each in made["groups"]} == {"lr=0.001", "lr=0.01"}
    assert made["settings"] == {"model.optimizer.lr": {"lr=0.001": 0.001, "lr=0.01": 0.01}}
    row = next(each for each in made["groups"] if each["name"] == "lr=0.001")
    assert [run["seed"] for run in row["runs"]] == [1, 2]
    last = [losses(logs / f"pretrain/version_{number}", "val/loss")[3] for number in (0, 1)]
    numbers = row["numbers"]
    assert numbers["val/loss"]["mean"] == pytest.approx(sum(last) / 2)
    assert numbers["val/loss"]["half"] == pytest.approx(12.7062 * abs(last[0] - last[1]) / 2, rel=1e-4)
    assert {name: numbers[name]["mean"] for name in ("steps", "tokens", "parameters")} == {
        "steps": 4,
        "tokens": 4 * 4 * 16,
        "parameters": 13824,
    }
    assert 0 < numbers["minutes"]["mean"] < 1


def test_every_format_is_alone_on_stdout(logs: Path, capsys) -> None:
    """md and csv hold the same numbers; a table in a pipe is not cut at 80 columns and has no escape codes."""
    metrics = ("--metrics", "val/loss,train/loss", "--sort_by", "name")
    text = call(capsys, "compare", logs, *metrics).out
    assert "\x1b" not in text
    assert re.search(r"lr=0\.001 +2 +\d\.\d{3} ± \d\.\d{3} +\d\.\d{3} ± \d\.\d{3} +4 +256 +\d\.\d\d +13,824", text)
    rows = list(csv.DictReader(io.StringIO(call(capsys, "compare", logs, *metrics, "--format", "csv").out)))
    assert [row["name"] for row in rows] == ["lr=0.001", "lr=0.01"]
    table = call(capsys, "compare", logs, *metrics, "--format", "md").out
    for row in rows:
        assert f"| {row['name']} | 2 | {float(row['val/loss']):.3f} ± {float(row['val/loss interval']):.3f} |" in table
        assert row["model.optimizer.lr"] == row["name"].removeprefix("lr=")


def test_settings_can_be_left_out(logs: Path, capsys) -> None:
    """Of runs of different tasks nearly all differ."""
    assert "settings that differ" in call(capsys, "compare", logs).out
    assert "settings that differ" not in call(capsys, "compare", logs, "--settings", "false").out


def test_damage_is_told_and_the_rest_shown(logs: Path, capsys) -> None:
    """A cut file, a half-written config, a folder without events: a line each on stderr (T15)."""
    runs = [logs / f"pretrain/version_{number}" for number in range(4)]
    file = next(runs[0].glob("events.*"))
    file.write_bytes(file.read_bytes()[:-7])
    config = (runs[1] / "config.yaml").read_text()
    (runs[1] / "config.yaml").write_text(config[: len(config) // 2])
    next(runs[2].glob("events.*")).unlink()
    result = call(capsys, "compare", logs)
    assert result.code == 0
    told = result.err.splitlines()
    assert [line.partition(": ")[0] for line in told] == [str(run) for run in runs[:3]]
    assert "is cut off in a record at byte" in told[0]
    assert "its config.yaml cannot be read" in told[1]
    assert told[2].endswith("it has no events")
    assert "13,824" in result.out


def test_an_unfinished_run_is_a_row_of_its_own(logs: Path, capsys) -> None:
    """Its numbers are of another moment, and do not belong into the mean of the finished ones."""
    rewrite(logs / "pretrain/version_1", {"trainer.max_steps": 90})
    rewrite(logs / "pretrain/version_0", {"trainer.max_steps": 4})
    made = json.loads(call(capsys, "compare", logs, "--format", "json").out)
    names = {each["name"]: len(each["runs"]) for each in made["groups"]}
    assert sum(names.values()) == 4
    assert [name for name in names if name.endswith("(unfinished)")]
    assert sorted(names.values()) == [1, 1, 2]


def test_a_run_that_went_on_is_one_run(logs: Path) -> None:
    """Its time is that of both, its curve begins where the first began."""
    first, second = (logs / f"pretrain/version_{number}" for number in (0, 1))
    rewrite(second, {"ckpt_path": str(first / "checkpoints/last.ckpt"), "seed_everything": 1})
    runs, _ = read_runs([first, second])
    assert [run.folder for run in runs] == [second]
    assert runs[0].minutes == pytest.approx((read_run(first).minutes or 0) + (read_run(second).minutes or 0))
    assert len(runs[0].curve("val/loss")) == 2  # of the same steps: the later run counts


def test_older_runs_are_counted_in_their_checkpoints(logs: Path) -> None:
    run = read_run(logs / "pretrain/version_0")
    counted = run.parameters
    run = read_run(logs / "pretrain/version_0")
    del run.events.settings["parameters"]
    assert run.parameters == counted == 13824


def test_names_of_folders_tell_more_than_settings(logs: Path) -> None:
    """Where each group has a folder of its own, it is named by it, without what all share and without the seed."""
    for number, name in enumerate(("wide/seed_1", "wide/seed_2", "deep/seed_1", "deep/seed_2")):
        shutil.copytree(logs / f"pretrain/version_{number}", logs / "sweep" / name / "version_0")
    groups = group(read_runs([logs / "sweep"])[0])
    assert {each.name: len(each.runs) for each in groups} == {"wide": 2, "deep": 2}


def test_reading_changes_nothing(logs: Path, capsys) -> None:
    before = {path: path.stat().st_mtime_ns for path in logs.rglob("*")}
    assert call(capsys, "compare", logs).code == 0
    assert {path: path.stat().st_mtime_ns for path in logs.rglob("*")} == before


def test_hparams_on_request(logs: Path, capsys) -> None:
    """TensorBoard's own code takes the columns of the table from it, and the values from the curves of each run."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

    shown = call(capsys, "compare", logs, "--write_hparams", "true", "--metrics", "train/loss").out
    again = call(capsys, "compare", logs, "--metrics", "train/loss").out
    assert shown == again
    assert len(list(logs.rglob(FILE))) == 4
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(logs))
    multiplexer.Reload()
    context = backend_context.Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(logs))))
    request = api_pb2.GetExperimentRequest(include_metrics=True)
    experiment = get_experiment.Handler(RequestContext(), context, "", request).run()
    assert {each.name for each in experiment.hparam_infos} == {"seed_everything", "model.optimizer.lr"}
    assert [each.name.tag for each in experiment.metric_infos] == ["train/loss"]
    columns = [api_pb2.ColParams(metric=each.name) for each in experiment.metric_infos]
    request = api_pb2.ListSessionGroupsRequest(slice_size=9, allowed_statuses=[0, 1, 2, 3], col_params=columns)
    rows = list_session_groups.Handler(RequestContext(), context, "", request).run().session_groups
    values = {each.sessions[0].name: each.metric_values[0].value for each in rows}
    assert values == {f"pretrain/version_{n}": losses(logs / f"pretrain/version_{n}")[3] for n in range(4)}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["nowhere"], "there is no run folder 'nowhere'"),
        (["."], "the folder '.' holds no run"),
        ([], "paths"),
        (["LOGS", "--format", "xml"], "--format xml is not known; it is one of table, md, csv, json"),
        (["LOGS", "--metrics", "val/los"], "no run has logged 'val/los' of --metrics; did you mean 'val/loss'?"),
        (["LOGS", "--sort_by", "height"], "--sort_by height is no column that has a value"),
        (["LOGS", "--baseline", "tfidf"], "--baseline tfidf is no group"),
    ],
)
def test_refusals(options, told, trained: Path, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert told in refusal(call(capsys, "compare", *[trained if option == "LOGS" else option for option in options]))


def test_the_figure(logs: Path, tmp_path: Path, capsys) -> None:
    """A picture of some size; a suffix that is no format is refused."""
    pytest.importorskip("matplotlib")
    assert call(capsys, "compare", logs, "--plot", tmp_path / "new/figure.png").code == 0
    assert (tmp_path / "new/figure.png").read_bytes().startswith(b"\x89PNG")
    assert "cannot write the picture" in refusal(call(capsys, "compare", logs, "--plot", tmp_path / "figure.jpgg"))


def test_the_figure_without_matplotlib(logs: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install 'lit-llm[plot]'" in refusal(call(capsys, "compare", logs, "--plot", tmp_path / "figure.png"))


def test_it_does_without_torch(logs: Path) -> None:
    shown = f"main(['compare', {str(logs)!r}]); print('torch' in sys.modules)"
    code = f"import sys; from lit_llm.__main__ import main; {shown}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
