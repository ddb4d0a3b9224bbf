"""Lightning's callbacks, each in a real run: what it leaves, or the sentence that names what to use instead."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning_parts
import pytest
import torch
from cli_runs import (
    Result,
    call,
    equal_at_the_end,
    events,
    losses,
    refusal,
    run_folders,
    same,
    tiny_config,
    weights,
    write_text,
    write_yaml,
)

from lit_llm.modules import LanguageModeling

OURS = "lightning.pytorch.callbacks"
ELSEWHERE = ("EMAWeightAveraging", "WeightAveraging", "StochasticWeightAveraging")  # in the tests of averaging


def add(name: str, **settings: object) -> dict:
    """A callback as a config names it."""
    return {"class_path": name if "." in name else f"{OURS}.{name}", "init_args": settings}


def write(folder: Path, *callbacks: dict, **trainer: object) -> Path:
    """The config of a tiny run with more callbacks and other settings of the Trainer."""
    config = tiny_config(folder)
    config["trainer"] |= trainer
    config["trainer"]["callbacks"] += [*callbacks, add("lightning_parts.Spy")]
    write_text(folder / "text.txt")
    return write_yaml(folder / "tiny.yaml", config)


# Which callbacks share a run, with the settings of its Trainer.
RUNS: dict[str, tuple[list[dict], dict]] = {
    "shown": (
        [
            add("DeviceStatsMonitor", cpu_stats=True),
            add("LearningRateMonitor"),
            add("ThroughputMonitor", batch_size_fn="lightning_parts.rows_of", window_size=2),
            add("ModelSummary", max_depth=1),
            add("LambdaCallback", on_train_start="lightning_parts.says"),
            add("ModelCheckpoint", monitor="val/loss", filename="{step}-{val/loss:.2f}"),
            add("TQDMProgressBar"),
        ],
        {"enable_progress_bar": True},
    ),
    "rich": ([add("RichProgressBar"), add("RichModelSummary")], {"enable_progress_bar": True, "max_steps": 2}),
    "early": ([add("EarlyStopping", monitor="val/loss", min_delta=100.0, patience=1)], {"max_steps": 20}),
    "timed": ([add("Timer", duration="00:00:00:00")], {"max_steps": 20}),
}


def only_one_bar(run: Path, result: Result) -> bool:
    return "Epoch 0" in result.out + result.err


# Where a callback is seen, and how.
WORKS: dict[str, tuple[str, Callable[[Path, Result], Any]]] = {
    "DeviceStatsMonitor": ("shown", lambda run, _: any("cpu" in tag for tag in events(run).Tags()["scalars"])),
    "LearningRateMonitor": ("shown", lambda run, _: losses(run, "lr-AdamW/matrices")[3] == pytest.approx(0.01)),
    "ThroughputMonitor": ("shown", lambda run, _: losses(run, "train/samples")[3] == 4 * 5),
    "ModelSummary": ("shown", lambda run, said: "Trainable params" in said.err + said.out),
    "LambdaCallback": ("shown", lambda run, said: "a function of one's own was called" in said.out),
    "ModelCheckpoint": ("shown", lambda run, _: [*(run / "checkpoints").glob("step=*-val_loss=*.??.ckpt")]),
    "TQDMProgressBar": ("shown", only_one_bar),
    "RichProgressBar": ("rich", only_one_bar),
    "RichModelSummary": ("rich", lambda run, said: "Trainable params" in said.err + said.out),
    "EarlyStopping": ("early", lambda run, _: weights(run)["global_step"] == 4),  # the second validation
    "Timer": ("timed", lambda run, _: not [*run.rglob("last.ckpt")]),  # no step in no time
}
REFUSED: dict[str, tuple[dict, str]] = {
    "BackboneFinetuning": (add("BackboneFinetuning"), "--model.trainable"),
    "BaseFinetuning": (add("lightning_parts.Freezes"), "Freezes cannot freeze anything"),
    "BatchSizeFinder": (add("BatchSizeFinder"), "lit-llm plan"),
    "ModelPruning": (add("ModelPruning", pruning_fn="l1_unstructured"), "lit-llm export"),
    "OnExceptionCheckpoint": (add("OnExceptionCheckpoint", dirpath="x"), "LastCheckpoint with every_n_train_steps"),
    "SpikeDetection": (add("SpikeDetection"), "lit_llm.training.spikes.LossSpikes"),
    **{name: (add(name), f"{name} is a base class") for name in ("Callback", "Checkpoint", "ProgressBar")},
}
SEARCHED, SCHEDULED, WRITTEN = "LearningRateFinder", "GradientAccumulationScheduler", "BasePredictionWriter"  # below


@pytest.fixture(scope="module")
def runs() -> dict[str, tuple[Path, Result]]:
    return {}


@pytest.mark.filterwarnings("ignore:When using the `ThroughputMonitor`")  # of a rate that it then leaves out
@pytest.mark.parametrize("name", WORKS)
def test_it_works(name, runs, tmp_path_factory, capsys, caplog) -> None:
    """What each leaves, in a run that several share."""
    kind, is_seen = WORKS[name]
    if kind not in runs:
        folder = tmp_path_factory.mktemp(kind)
        callbacks, trainer = RUNS[kind]
        result = call(capsys, "fit", "-c", write(folder, *callbacks, **trainer))
        assert result.code == 0, result.err
        runs[kind] = (run_folders(folder)[0], result._replace(err=result.err + caplog.text))
    assert is_seen(*runs[kind])


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name, tmp_path, capsys) -> None:
    """One sentence that names what to use instead, before any text is read."""
    callback, instead = REFUSED[name]
    assert instead in refusal(call(capsys, "fit", "-c", write(tmp_path, callback)))
    assert not (tmp_path / "cache").exists()


@pytest.mark.filterwarnings("ignore:Couldn't infer the batch indices")  # Lightning reads them off its own samplers
def test_predictions_reach_a_writer(tmp_path, capsys) -> None:
    """The base class writes nothing; one made from it gets each prediction."""
    assert call(capsys, "fit", "-c", write(tmp_path)).code == 0
    lightning_parts.Writes.shapes.clear()
    predict = ("predict", "--ckpt_path=best", "--trainer.limit_predict_batches=2", "-c")
    assert call(capsys, *predict, write(tmp_path, add("lightning_parts.Writes"))).code == 0
    assert lightning_parts.Writes.shapes == [(5, 7)] * 2
    said = refusal(call(capsys, *predict, write(tmp_path, add("BasePredictionWriter"))))
    assert "BasePredictionWriter is a base class" in said


FINDER = add("LearningRateFinder", num_training_steps=20, min_lr=1e-4, max_lr=0.1)
COSINE = {"class_path": "lit_llm.training.optim.WarmupCosine", "init_args": {"warmup_steps": 2}}


@pytest.mark.parametrize("schedule", [None, COSINE])
def test_the_rate_that_was_found_is_the_rate_of_the_run(schedule, tmp_path, capsys) -> None:
    """A run with LearningRateFinder is, bit for bit, one that was given the rate that it finds."""
    config = ["fit", "-c", write(tmp_path, FINDER)]
    if schedule is not None:
        part = write_yaml(tmp_path / "schedule.yaml", {"model": {"init_args": {"lr_scheduler": schedule}}})
        config += ["-c", part]
    assert call(capsys, *config).code == 0
    (searched,) = run_folders(tmp_path)
    rate = weights(searched)["hyper_parameters"]["optimizer"]["init_args"]["lr"]
    assert rate != 0.01
    write(tmp_path)
    assert call(capsys, *config, f"--model.optimizer.lr={rate}").code == 0
    assert equal_at_the_end(searched, run_folders(tmp_path)[1])
    assert losses(searched) == losses(run_folders(tmp_path)[1])
    # It goes on with that rate, and without another search.
    go_on = ("--ckpt_path=last", "--trainer.max_steps=6", f"--model.optimizer.lr={rate}")
    assert call(capsys, *config, *go_on).code == 0
    write(tmp_path, FINDER)
    assert "cannot go on from a checkpoint" in refusal(call(capsys, *config, *go_on))


@pytest.mark.parametrize(
    ("options", "said"),
    {
        ("--model.layer_decay=0.5",): "leave --model.layer_decay out",
        ("--trainer.accumulate_grad_batches=2",): "--trainer.accumulate_grad_batches 1",
        ("--trainer.callbacks.update_attr=false",): "leave attr_name and update_attr out",
        ("--model.lr_scheduler=StepLR", "--model.lr_scheduler.step_size=2"): "cannot set the rate of StepLR",
    }.items(),
)
def test_a_search_that_would_measure_something_else(options, said, tmp_path, capsys) -> None:
    finder = "--trainer.callbacks+=LearningRateFinder"
    assert said in refusal(call(capsys, "fit", "-c", write(tmp_path), finder, *options))


SGD = ("--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1", "--model.optimizer.weight_decay=0")
BY_EPOCHS: dict[str, Any] = {"max_epochs": 3, "max_steps": -1, "limit_train_batches": 5, "check_val_every_n_epoch": 1}
BY_EPOCHS |= {"val_check_interval": 1.0}
GROWING = add("GradientAccumulationScheduler", scheduling={0: 1, 1: 2, 2: 3})


def test_a_schedule_of_accumulation_gives_the_gradients_of_a_plain_loop(tmp_path, capsys) -> None:
    """5 batches an epoch, by 1, 2 and 3, each step the mean over its targets; cut in the middle of an epoch as well."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir(), cut.mkdir()
    assert call(capsys, "fit", "-c", write(whole, GROWING, **BY_EPOCHS), *SGD).code == 0
    seen = lightning_parts.Spy.seen
    assert seen["accumulated"] == [1] * 5 + [2] * 5 + [3] * 5
    end = weights(run_folders(whole)[0])
    module = LanguageModeling.load_from_checkpoint(run_folders(whole)[0] / "checkpoints" / "last.ckpt")
    module.load_state_dict(seen["start"])
    optimizer, place = torch.optim.SGD(module.backbone.parameters(), lr=0.1), 0
    for count in [1] * 5 + [2, 2, 1] + [3, 2]:
        idx, targets = (torch.cat(parts) for parts in zip(*seen["rows"][place : place + count], strict=True))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module.backbone(idx).flatten(0, 1), targets.flatten()).backward()
        optimizer.step()
        place += count
    for name, value in module.state_dict().items():
        torch.testing.assert_close(end["state_dict"][name], value, rtol=1e-4, atol=1e-6)

    # Cut after the first step of the second epoch.
    assert call(capsys, "fit", "-c", write(cut, GROWING, **BY_EPOCHS), *SGD, "--trainer.max_steps=6").code == 0
    assert call(capsys, "fit", "-c", write(cut, GROWING, **BY_EPOCHS), *SGD, "--ckpt_path=last").code == 0
    assert lightning_parts.Spy.seen["accumulated"] == [2] * 3 + [3] * 5
    assert same(end["state_dict"], weights(run_folders(cut)[1])["state_dict"])


def test_a_schedule_of_accumulation_that_others_contradict(tmp_path, capsys) -> None:
    """What Lightning would count by the first number of batches, or refuse after the text is read."""
    config = write(tmp_path, GROWING, **BY_EPOCHS)
    cosine = ("--model.lr_scheduler=lit_llm.training.optim.WarmupCosine", "--model.lr_scheduler.warmup_steps=1")
    assert "set --model.lr_scheduler.max_steps" in refusal(call(capsys, "fit", "-c", config, *cosine))
    said = refusal(call(capsys, "fit", "-c", config, "--trainer.accumulate_grad_batches=2"))
    assert "both say how many batches make a step" in said
    assert call(capsys, "fit", "-c", config, *cosine, "--model.lr_scheduler.max_steps=10").code == 0
