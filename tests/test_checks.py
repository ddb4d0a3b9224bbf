"""Settings of which a run would fail at its end, or at its first validation: refused before the first step."""

from pathlib import Path

import pytest
from cli_runs import call, refusal, tiny_config, weights, write_text, write_yaml
from lightning import Callback

from lit_llm.training.checkpoint_io import free_bytes


class Steps(Callback):
    """Prints each step that is begun."""

    logs = ()

    def on_train_batch_start(self, *args: object) -> None:
        print("a step")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    content = tiny_config(folder)
    content["trainer"]["callbacks"].append({"class_path": "test_checks.Steps"})
    write_text(folder / "text.txt")
    return write_yaml(folder / "tiny.yaml", content)


STOP = "--trainer.callbacks+=EarlyStopping"
KEEP = "--trainer.callbacks+=ModelCheckpoint"
PLATEAU = "--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau"
COSINE = "--model.lr_scheduler=lit_llm.training.optim.WarmupCosine"
STABLE = "--model.lr_scheduler=lit_llm.training.optim.WarmupStableDecay"
EPOCH = [
    f"--trainer.{name}"
    for name in ("max_steps=-1", "max_epochs=1", "val_check_interval=1.0", "check_val_every_n_epoch=1")
]
HELD_OUT = "--data.test_fraction=0.1"
# Options, words of the sentence, and whether it comes before the text is tokenized.
LATE = {
    "early stopping on an unknown name": ([STOP, "--trainer.callbacks.monitor=val/lss"], "did you mean 'val/loss'?"),
    "checkpoint of an unknown name": (
        [KEEP, "--trainer.callbacks.monitor=val/f1"],
        "ModelCheckpoint monitors 'val/f1'",
    ),
    "best checkpoint of an unknown name": (
        ["--trainer.callbacks+=BestCheckpoint", "--trainer.callbacks.monitor=loss"],
        "monitors 'loss'",
    ),
    "a name that only a test logs": ([STOP, "--trainer.callbacks.monitor=test/loss"], "only a test logs"),
    "a name of a callback that is not there": (
        [STOP, "--trainer.callbacks.monitor=val/answers/rouge_l"],
        "monitors 'val/answers/rouge_l', which nothing in this run logs",
    ),
    "plateau of an unknown name": ([PLATEAU, "--model.lr_scheduler.monitor=val/los"], "did you mean 'val/loss'?"),
    "validation without texts": (
        [STOP, "--trainer.callbacks.monitor=val/loss", "--data.val_fraction=0"],
        "the run has no validation: the data holds nothing out for it (--data.val_fraction)",
    ),
    "plateau without texts": (
        [PLATEAU, "--model.lr_scheduler.monitor=val/loss", "--data.val_fraction=0"],
        "ReduceLROnPlateau monitors 'val/loss', and the run has no validation",
    ),
    "validation of no batch": (
        [STOP, "--trainer.callbacks.monitor=val/loss", "--trainer.limit_val_batches=0"],
        "--trainer.limit_val_batches is 0",
    ),
    "validation after the end": (
        [STOP, "--trainer.callbacks.monitor=val/loss", "--trainer.val_check_interval=100"],
        "--trainer.val_check_interval 100 is more than the 4 batches of the run",
    ),
    "test without texts": (["--test_best=true"], "set --data.test_fraction"),
    "test of no batch": (["--test_best=true", HELD_OUT, "--trainer.limit_test_batches=0"], "limit_test_batches is 0"),
    "no folder to run in": (
        ["--trainer.logger=false", "--trainer.default_root_dir=/proc/x"],
        "--trainer.default_root_dir",
    ),
    "no folder of a logger": (["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=/proc/x"], "logger.save_dir"),
    "no folder of checkpoints": ([KEEP, "--trainer.callbacks.dirpath=/proc/x"], "ModelCheckpoint: dirpath"),
    "no such duration": (["--trainer.max_time=1:2"], "duration='1:2'"),
}
AFTER_TEXT = {
    "one cycle shorter than the run": (
        ["--model.lr_scheduler=OneCycleLR", "--model.lr_scheduler.max_lr=0.1", "--model.lr_scheduler.total_steps=3"],
        "OneCycleLR fails after its total_steps 3",
    ),
    "a value of the steps before it is logged": (
        [STOP, "--trainer.callbacks.monitor=train/loss", "--trainer.log_every_n_steps=3"],
        "asks for it after 2 steps, and it is logged every 3; set --trainer.log_every_n_steps to 2 or less",
    ),
    "prompts without a position to write to": (
        [
            "--trainer.callbacks+=lit_llm.training.callbacks.SampleText",
            "--trainer.callbacks.prompts=[longer than seven]",
        ],
        "leaves the model no position to write to",
    ),
    "validation beyond the epoch": (
        ["--trainer.check_val_every_n_epoch=1", "--trainer.val_check_interval=5000"],
        "`val_check_interval` (5000) must be less than or equal",
    ),
    "part of a validation that is no batch": (["--trainer.limit_val_batches=0.001"], "limit_val_batches"),
    "a cache that cannot be written to": (["--data.cache_dir=/proc/x"], "/proc/x"),
}


@pytest.mark.parametrize("kind", [*LATE, *AFTER_TEXT])
def test_what_would_fail_late_is_refused_before_the_first_step(config, capsys, kind) -> None:
    """In one sentence; where nothing has to be known of the text, before it is tokenized."""
    options, words = (LATE | AFTER_TEXT)[kind]
    result = call(capsys, "fit", "-c", config, *options)
    assert words in refusal(result)
    assert "a step" not in result.out
    if kind in LATE:
        assert not (config.parent / "cache").exists()


@pytest.mark.parametrize(("command", "split"), [("validate", "val"), ("test", "test"), ("predict", "val")])
def test_a_command_without_texts(config, tmp_path, capsys, command, split) -> None:
    """Refused, whatever its checkpoint is."""
    assert call(capsys, "fit", "-c", config, "--trainer.max_steps=1", f"--trainer.logger.save_dir={tmp_path}").code == 0
    (run,) = tmp_path.glob("tiny/*")
    options = (f"--ckpt_path={run}", f"--trainer.logger.save_dir={tmp_path / 'more'}", "--data.val_fraction=0")
    said = refusal(call(capsys, command, "-c", config, *options))
    assert said.startswith(f"{command} has nothing to read: the data holds nothing out for it; set --data.{split}_frac")


def test_a_disk_without_room(config, tmp_path, capsys, monkeypatch) -> None:
    """The checkpoints of the run are weighed before its first step; with room enough it runs."""
    assert free_bytes(tmp_path / "not" / "there") == free_bytes(tmp_path)
    own = (f"--trainer.logger.save_dir={tmp_path}",)
    # 13,608 parameters of fp32, with two moments: 163 kB a checkpoint, and there are two of them.
    monkeypatch.setattr("lit_llm.checks.free_bytes", lambda folder: 300_000)
    result = call(capsys, "fit", "-c", config, *own)
    assert "the checkpoints need 0.3 MB" in refusal(result)
    assert "a step" not in result.out
    monkeypatch.setattr("lit_llm.checks.free_bytes", lambda folder: 400_000)
    assert call(capsys, "fit", "-c", config, *own).code == 0


def test_no_validation_is_told_where_only_the_best_checkpoint_is_missed(config, tmp_path, capsys) -> None:
    """A run on all of the text is a run; so is one of a few steps."""
    result = call(capsys, "fit", "-c", config, "--data.val_fraction=0", f"--trainer.logger.save_dir={tmp_path}")
    assert result.code == 0
    assert result.err.count("warning: the run has no validation, and so no best.ckpt") == 1
    (run,) = tmp_path.glob("tiny/*")
    assert weights(run)["global_step"] == 4
    assert not (run / "checkpoints" / "best.ckpt").exists()


def test_a_stage_that_is_never_reached_is_told(config, tmp_path, capsys) -> None:
    own = ("--model.trainable={0: head, 9: all}", f"--trainer.logger.save_dir={tmp_path}")
    result = call(capsys, "fit", "-c", config, *own)
    assert result.code == 0
    assert "the schedule of trainable goes on at step 9, and the run ends after 4 steps" in result.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([COSINE, "--model.lr_scheduler.warmup_steps=4"], "warmup_steps 4 do not fit into the 4 steps of the run"),
        (
            [STABLE, "--model.lr_scheduler.warmup_steps=2", "--model.lr_scheduler.decay_steps=3"],
            "warmup_steps 2 and decay_steps 3 do not fit into the 4 steps of the run",
        ),
    ],
)
def test_a_warmup_that_does_not_fit_is_told(config, tmp_path, capsys, options, said) -> None:
    """A first try of a few steps is a run."""
    result = call(capsys, "fit", "-c", config, *options, f"--trainer.logger.save_dir={tmp_path}")
    assert result.code == 0
    assert result.err.count(said) == 1


def test_a_callback_of_ones_own_may_log_what_it_does_not_declare(config, tmp_path, capsys, monkeypatch) -> None:
    """What it says is believed, and where it says nothing, nothing is refused."""
    (tmp_path / "my_parts.py").write_text(
        "from lightning import Callback\n\n\nclass Mine(Callback):\n"
        "    def on_validation_epoch_end(self, trainer, pl_module):\n        pl_module.log('mine', 1.0)\n\n\n"
        "class Declared(Mine):\n    logs = ('mine',)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    content = tiny_config(config.parent)
    for name, monitor, code in (("Mine", "mine", 0), ("Declared", "mine", 0), ("Declared", "mien", 2)):
        stop = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": monitor}}
        content["trainer"]["callbacks"] = [{"class_path": f"my_parts.{name}"}, stop]
        content["trainer"]["logger"]["init_args"]["save_dir"] = str(tmp_path)
        assert call(capsys, "fit", "-c", write_yaml(tmp_path / "c.yaml", content)).code == code
