"""Loggers of others, each installed in an environment of its own: what their own stores hold of a run."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cli_runs import ROOT, call, events, tiny_config, weights, write_text, write_yaml

pytestmark = [pytest.mark.slow, pytest.mark.network]

VALUES = ("train/loss", "val/loss", "test/loss")


class Case(NamedTuple):
    """A logger, the packages that it needs, and a script that prints a run's values as its own package reads them.

    The script gets the newest run; it prints the last value of each of `VALUES`, and the learning rate of the optimizer
    among the hyper-parameters.
    """

    logger: str
    settings: dict[str, Any]
    packages: tuple[tuple[str, ...], ...]
    script: str


CASES = {
    "mlflow": Case(
        "lightning.pytorch.loggers.MLFlowLogger",
        {"experiment_name": "mine", "tracking_uri": "sqlite:///runs.db"},
        # The whole of mlflow would ask for other versions of what is installed here.
        (
            ("mlflow-skinny==3.17.2", "sqlalchemy", "alembic"),
            ("--no-deps", "mlflow==3.17.2", "mlflow-tracing==3.17.2"),
        ),
        """
from mlflow.tracking import MlflowClient
client = MlflowClient(tracking_uri="sqlite:///runs.db")
runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id], order_by=["start_time DESC"])
values, rate = runs[0].data.metrics, float(runs[0].data.params["model.optimizer.lr"])
""",
    ),
    "wandb": Case(
        "lightning.pytorch.loggers.WandbLogger",
        {"project": "mine", "save_dir": "wb", "offline": True},
        (("wandb==0.31.0",),),
        """
import glob, json
from wandb.proto.wandb_internal_pb2 import Record
values, parts = {}, b""
with open(sorted(glob.glob("wb/wandb/offline-run-*/*.wandb"))[-1], "rb") as file:
    data = file.read()
place = 7
while place + 7 <= len(data):
    if (left := 32768 - place % 32768) < 7:  # of a block: the rest is padding
        place += left
        continue
    size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
    parts += data[place + 7 : place + 7 + size]
    place += 7 + size
    if kind not in (1, 4):  # whole, or the last part
        continue
    record, parts = Record.FromString(parts), b""
    for item in record.history.item:
        values["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    for item in [*record.run.config.update, *record.config.update]:
        if item.key == "model.optimizer.lr":
            rate = json.loads(item.value_json)
""",
    ),
    "swanlab": Case(
        "swanlab.integration.pytorch_lightning.SwanLabLogger",
        {"project": "mine", "save_dir": "sw", "mode": "local"},
        (("swanlab==0.10.3",),),
        """
import glob
import yaml
from swanlab.proto.swanlab.record.v1.record_pb2 import Record
from swanlab.sdk.internal.core_python.store import DataStoreReader
folder, reader, values = sorted(glob.glob("swanlog/run-*"))[-1], DataStoreReader(), {}
reader.open(glob.glob(folder + "/*.swanlab")[0])
for data in reader:
    record = Record.FromString(data)
    if record.HasField("scalar"):
        values[record.scalar.key] = record.scalar.value.number
with open(folder + "/files/config.yaml") as file:
    rate = yaml.safe_load(file)["model.optimizer.lr"]["value"]
""",
    ),
}


def install(folder: Path, packages: tuple[tuple[str, ...], ...]) -> Path:
    """An environment with the packages, over that of the tests; its Python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "base.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    for names in packages:
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *names]
        made = subprocess.run(pip, capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"pip cannot install {' '.join(names)}: {made.stderr.strip().splitlines()[-1]}")
    return python


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CASES)
def test_a_run_is_in_the_store_of_its_logger(name, tmp_path, capsys) -> None:
    """Values and hyper-parameters of fit and test; a folder for each run, a run that goes on, and lit-llm compare."""
    case = CASES[name]
    python = install(tmp_path / "env", case.packages)
    config = tiny_config(tmp_path)
    config["trainer"]["logger"] = {"class_path": case.logger, "init_args": case.settings}
    config["data"]["init_args"]["test_fraction"] = 0.1
    write_text(tmp_path / "text.txt", 120)
    fit = ["fit", "-c", str(write_yaml(tmp_path / "tiny.yaml", config)), "--test_best=true"]

    def run(*args: str) -> str:
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        made = subprocess.run([python, *args], capture_output=True, text=True, env=env)
        assert made.returncode == 0, made.stderr
        return made.stdout

    def new_run(*options: str) -> tuple[Path, dict[str, Any]]:
        """The run folder, and what the logger's own package reads of the run."""
        before = set(tmp_path.rglob("last.ckpt"))
        run("-m", "lit_llm", *fit, *options)
        (made,) = set(tmp_path.rglob("last.ckpt")) - before
        printed = run("-c", f"import json{case.script}\nprint(json.dumps([values, rate]))")
        values, rate = json.loads(printed.splitlines()[-1])
        return made.parents[1], {"lr": rate, **values}

    first, seen = new_run()
    kept = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    second, seen_then = new_run("--model.optimizer.lr=0.02")
    assert (seen["lr"], seen_then["lr"]) == (0.01, 0.02)
    for folder, values in ((first, seen), (second, seen_then)):
        for tag in VALUES:
            assert values[tag] == pytest.approx(events(folder).Scalars(tag)[-1].value, rel=1e-6), tag
    third, _ = new_run("--ckpt_path=last", "--trainer.max_steps=6", "--model.optimizer.lr=0.02")
    assert weights(third)["global_step"] == 6
    assert kept == {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}

    made = json.loads(call(capsys, "compare", first, second, "--format", "json").out)
    assert made["settings"] == {"model.optimizer.lr": {"lr=0.01": 0.01, "lr=0.02": 0.02}}
    assert {"test/loss", "val/loss", "parameters", "steps"} <= made["groups"][0]["numbers"].keys()
