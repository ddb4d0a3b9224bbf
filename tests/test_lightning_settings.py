"""Lightning's flags, loggers, profilers and plugins: what each does, or is refused with; and that docs list all."""

import inspect
import json
import re
from csv import DictReader
from pathlib import Path

import lightning.pytorch.callbacks
import lightning.pytorch.loggers
import lightning.pytorch.plugins
import lightning.pytorch.profilers
import lightning_parts
import pytest
import test_lightning_callbacks as callbacks
import yaml
from cli_runs import ROOT, call, events, refusal, run_folders, weights
from lightning import Trainer
from test_lightning_callbacks import write

OFFERED = {
    "Callbacks": set(lightning.pytorch.callbacks.__all__),
    "Loggers": set(lightning.pytorch.loggers.__all__),
    "Profilers": set(lightning.pytorch.profilers.__all__),
    "Plugins": set(lightning.pytorch.plugins.__all__),
    "Flags": set(inspect.signature(Trainer.__init__).parameters) - {"self", "callbacks"},
}


def documented() -> dict[str, dict[str, str]]:
    """The tables of the page: by section what each name is said to do."""
    text = (ROOT / "docs" / "lightning.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {
        part.split("\n")[0]: {
            name: said
            for names, said in re.findall(r"^\| (`.+?) \| (.+?) \|", part, flags=re.MULTILINE)
            for name in re.findall(r"`(\w+)`", names)
        }
        for part in sections
    }


@pytest.mark.parametrize("section", OFFERED)
def test_the_page_lists_what_lightning_offers(section) -> None:
    """A new one without a row fails, and so does a row of one that is gone."""
    assert documented()[section].keys() == OFFERED[section]


def test_the_page_says_of_callbacks_what_the_tests_see() -> None:
    rows = documented()["Callbacks"]
    assert {name for name, said in rows.items() if said.startswith("refused")} == set(callbacks.REFUSED)
    others = {callbacks.SEARCHED, callbacks.SCHEDULED, callbacks.WRITTEN, *callbacks.ELSEWHERE}
    assert rows.keys() - set(callbacks.REFUSED) == set(callbacks.WORKS) | others


REFUSED = {
    "log_every_n_steps=0": "it is at least 1",
    "accumulate_grad_batches=0": "it is at least 1",
    "check_val_every_n_epoch=0": "it is at least 1",
    "num_sanity_val_steps=-2": "it is at least -1",
    "gradient_clip_val=-1": "it is at least 0",
    "val_check_interval=0": "--trainer.limit_val_batches 0",
    "barebones=true": "use lit-llm bench",
    "model_registry=x": "use lit-llm export",
    "precision=16-true": "use bf16-true or 16-mixed",
}
# Refused by Lightning itself, in one sentence.
LIGHTNINGS = {
    "accelerator=tpu": "torch_xla",
    "accelerator=gpu": "No supported gpu backend",
    "strategy=deepspeed": "deepspeed",
    "num_nodes=0": "must be a positive integer",
    "precision=transformer-engine": "transformer_engine",
    "gradient_clip_algorithm=foo": "Allowed algorithms",
    "profiler=xla": "torch_xla",
    "profiler=foo": "it can only be one of",
    "reload_dataloaders_every_n_epochs=-1": "int >= 0",
    "fast_dev_run=-1": ">= 0",
    "max_epochs=-2": "non-negative integer or -1",
}


@pytest.mark.parametrize("option", REFUSED)
def test_a_flag_is_refused(option, tmp_path, capsys) -> None:
    """Before any text is read, with what it must be or what to use instead."""
    assert REFUSED[option] in refusal(call(capsys, "fit", "-c", write(tmp_path), f"--trainer.{option}"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
@pytest.mark.parametrize("option", LIGHTNINGS)
def test_a_flag_is_refused_by_lightning(option, tmp_path, capsys) -> None:
    assert LIGHTNINGS[option] in refusal(call(capsys, "fit", "-c", write(tmp_path), f"--trainer.{option}"))
    assert run_folders(tmp_path) == []


def test_flags_that_one_run_shows(tmp_path, capsys) -> None:
    """What a callback sees of a run by epochs with many flags set."""
    flags = {"max_epochs": 2, "max_steps": -1, "limit_train_batches": 4, "limit_val_batches": 1}
    flags |= {"check_val_every_n_epoch": 2, "val_check_interval": 1.0, "num_sanity_val_steps": 1}
    flags |= {"accumulate_grad_batches": 2, "gradient_clip_val": 1e-3, "gradient_clip_algorithm": "value"}
    flags |= {"deterministic": True, "detect_anomaly": True, "inference_mode": False}
    sgd = ("--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=1", "--model.optimizer.weight_decay=0")
    assert call(capsys, "fit", "-c", write(tmp_path, **flags), *sgd).code == 0
    seen = lightning_parts.Spy.seen
    assert (seen["steps"], seen["epoch"], seen["sane"], seen["val"]) == (4, 1, 1, [4])
    assert seen["accumulated"] == [2] * 8
    assert 0 < max(seen["moved"]) <= 1.01e-3  # the rate is 1, and a gradient at most this
    assert (seen["anomaly"], seen["exact"], seen["inference"]) == (True, True, False)


def test_a_version_of_a_logger_is_given_once(tmp_path, capsys) -> None:
    """Of Lightning's own loggers: one sentence, and the files of the first run stay as they were."""
    for name in ("TensorBoardLogger", "CSVLogger"):
        logger = {"class_path": f"lightning.pytorch.loggers.{name}", "init_args": {"save_dir": name, "version": 3}}
        config = write(tmp_path, logger=logger, max_steps=2)
        assert call(capsys, "fit", "-c", config).code == 0
        (run,) = Path(name).rglob("version_3")
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        said = refusal(call(capsys, "fit", "-c", config))
        assert "version_3' is taken; leave --trainer.logger.version out" in said
        assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # of the run that goes on
def test_two_runs_without_a_logger(tmp_path, capsys) -> None:
    """The second does not write over the checkpoints of the first; a run that goes on there may."""
    config = write(tmp_path, logger=False, max_steps=2)
    assert call(capsys, "fit", "-c", config).code == 0
    assert "which this one would overwrite" in refusal(call(capsys, "fit", "-c", config))
    go_on = ("--ckpt_path=checkpoints/last.ckpt", "--trainer.max_steps=4")
    assert call(capsys, "fit", "-c", config, *go_on).code == 0
    assert call(capsys, "fit", "-c", config, "--trainer.default_root_dir=other").code == 0
    assert weights(tmp_path / "other")["global_step"] == 2
    assert weights(tmp_path)["global_step"] == 4


def test_a_list_of_loggers(tmp_path, capsys) -> None:
    """The run folder is that of the first one, TensorBoard is found among them, and `last` as well."""
    own = {"class_path": "lit_llm.training.logger.RunLogger", "init_args": {"save_dir": "logs", "name": "tiny"}}
    csv = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "csv"}}
    config = write(tmp_path, logger=[own, csv])
    assert call(capsys, "fit", "-c", config).code == 0
    assert [*Path("csv").rglob("metrics.csv")]
    assert call(capsys, "fit", "-c", config, "--ckpt_path=last", "--trainer.max_steps=6").code == 0
    assert weights(run_folders(tmp_path)[1])["global_step"] == 6


def test_compare_reads_a_run_of_another_logger(tmp_path, capsys) -> None:
    """The numbers are those of its own file; settings, parameters and samples are there as with TensorBoard."""
    csv = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "csv", "name": "mine"}}
    for rate in (0.01, 0.02):
        fit = ("fit", "-c", write(tmp_path, logger=csv), "--data.test_fraction=0.2", "--test_best=true")
        assert call(capsys, *fit, f"--model.optimizer.lr={rate}").code == 0
    metrics = "val/loss,test/loss,train/loss"
    made = json.loads(call(capsys, "compare", "csv", "--format", "json", "--metrics", metrics).out)
    assert made["settings"] == {"model.optimizer.lr": {"lr=0.01": 0.01, "lr=0.02": 0.02}}
    for number, row in enumerate(sorted(made["groups"], key=lambda row: row["name"])):
        (run,) = Path("csv").rglob(f"version_{number}")
        rows = list(DictReader((run / "metrics.csv").read_text(encoding="utf-8").splitlines()))
        for metric in metrics.split(","):
            last = [float(each[metric]) for each in rows if each[metric]][-1]
            assert row["numbers"][metric]["mean"] == pytest.approx(last)
        network = weights(run)["state_dict"]
        parameters = sum({value.data_ptr(): value.numel() for value in network.values()}.values())
        assert row["numbers"]["parameters"]["mean"] == parameters
        assert row["numbers"]["steps"]["mean"] == 4
        own = yaml.unsafe_load((run / "hparams.yaml").read_text(encoding="utf-8"))
        assert own["model.optimizer.lr"] == (0.01, 0.02)[number]
        assert "config/text_summary" in events(run).Tags()["tensors"]
