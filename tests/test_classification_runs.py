"""A classification from the command line: fit, reload, test, predict; and what does not belong together (K14)."""

import csv
from pathlib import Path

import pytest
import torch
from cli_runs import call, events, losses, printed, refusal, run_folders, same, weights, write_tiny
from python_runs import tiny_data, tiny_module, trainer
from text_runs import TinyTexts, write_classification

from lit_llm.modules import Classification
from lit_llm.weights.checkpoint import checkpoint_source, read_checkpoint

ROOT = Path(__file__).parents[1]

STEPS = ("--trainer.max_steps=5", "--trainer.val_check_interval=5")  # an epoch of the tiny texts


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def config(folder) -> Path:
    return write_classification(folder)


@pytest.fixture(scope="module")
def run(folder, config) -> Path:
    """The folder of a run of five steps, tested at its end."""
    from lit_llm.__main__ import main

    assert main(["fit", "-c", str(config), *STEPS, "--test_best=true", "--model.class_weights=balanced"]) == 0
    return run_folders(folder)[0]


@pytest.fixture(scope="module")
def language_run(folder) -> Path:
    """The folder of a run of language modelling, longer in its texts."""
    from lit_llm.__main__ import main

    assert main(["fit", "-c", str(write_tiny(folder)), *STEPS, "--data.block_size=21", "--trainer.logger.name=lm"]) == 0
    return run_folders(folder, "lm")[0]


def test_reloaded_it_gives_equal_logits(run) -> None:
    """Class names follow from the data and are in the checkpoint; Python and `init_from` read it back alike."""
    path = run / "checkpoints" / "last.ckpt"
    checkpoint = weights(run)
    assert checkpoint["hyper_parameters"]["class_names"] == ["ham", "spam"]
    assert {name.partition(".")[0] for name in checkpoint["state_dict"]} == {
        "backbone",
        "head",
        "class_weights",
        "threshold",
    }
    one, two = (Classification.load_from_checkpoint(path).eval() for _ in range(2))
    backbone = checkpoint_source(path, read_checkpoint(path)).backbone()
    batch = next(iter(TinyTexts().test_dataloader()))
    with torch.no_grad():
        assert torch.equal(one(batch), two(batch))
        hidden = one.pooling(backbone.hidden_states(batch.idx), batch.lengths)
        assert torch.equal(one(batch), one.head(hidden))


def test_what_a_run_leaves(run) -> None:
    """Scalars, pictures, lines to compare with, and a table of the test texts, by the names of their classes."""
    tags = events(run).Tags()
    names = ("loss", "accuracy", "balanced_accuracy", "f1", "auroc", "average_precision", "calibration_error")
    assert {f"{split}/{name}" for split in ("val", "test") for name in names} <= set(tags["scalars"])
    assert set(tags["images"]) == {"val/confusion", "val/roc", "val/reliability"}
    assert {"val/threshold", "baseline/majority/f1", "baseline/tfidf/balanced_accuracy"} <= set(tags["scalars"])
    items = table(run / "test_items.csv")
    rows, _, targets = TinyTexts().texts("test")
    assert list(items[0]) == ["id", "target", "prediction", "p_ham", "p_spam"]
    assert [int(item["id"]) for item in items] == rows
    assert [item["target"] for item in items] == [["ham", "spam"][target] for target in targets]
    right = sum(item["target"] == item["prediction"] for item in items) / len(items)
    (logged,) = losses(run, "test/accuracy").values()
    assert logged == pytest.approx(right)
    threshold = float(weights(run, "best")["state_dict"]["threshold"])
    assert all((float(item["p_spam"]) >= threshold) == (item["prediction"] == "spam") for item in items)


def test_test_best_tells(config, folder, capsys) -> None:
    result = call(capsys, "fit", "-c", config, *STEPS, "--test_best=true", "--trainer.logger.name=told")
    assert result.code == 0, result.err
    (run,) = run_folders(folder, "told")
    assert f"test of {run / 'checkpoints' / 'best.ckpt'}" in result.out
    (logged,) = losses(run, "test/f1").values()
    assert f"test/f1{logged:.4f}" in result.out.replace(" ", "")
    assert "test/baseline/tfidf/f1" in result.out
    config = printed(call(capsys, "test", "-c", run / "config.yaml", "--ckpt_path=best", "--print_config"))
    assert config["test_best"] is True  # the file of a fit serves the other commands


def test_without_a_checkpoint_the_last_weights_are_tested(config, folder, capsys) -> None:
    options = ("--trainer.enable_checkpointing=false", "--trainer.logger.name=bare", "--test_best=true")
    result = call(capsys, "fit", "-c", config, *STEPS, *options)
    assert result.code == 0, result.err
    assert "test of the last weights" in result.out


def test_predictions(config, folder, run, capsys) -> None:
    """A line for each text, with the text as it was."""
    result = call(capsys, "predict", "-c", config, f"--ckpt_path={run}", "--trainer.logger.name=predicted")
    assert result.code == 0, result.err
    (made,) = run_folders(folder, "predicted")
    lines = table(made / "predictions.csv")
    rows, texts, _ = TinyTexts().texts("predict")
    assert list(lines[0]) == ["id", "text", "label", "p_ham", "p_spam"]
    assert [(int(line["id"]), line["text"]) for line in lines] == list(zip(rows, texts, strict=True))
    assert all(abs(float(line["p_ham"]) + float(line["p_spam"]) - 1) < 1e-6 for line in lines)


def test_it_goes_on(config, folder, run, capsys) -> None:
    own = ("--trainer.max_steps=6", "--trainer.logger.name=on")
    result = call(capsys, "fit", "-c", config, f"--ckpt_path={run}", *own)
    assert result.code == 0, result.err
    (on,) = run_folders(folder, "on")
    assert weights(on)["global_step"] == 6


def test_other_classes_are_refused(folder, run, capsys) -> None:
    """Another name, another order, another number: both lists are told."""
    for names in (["ham", "ads"], ["spam", "ham"]):
        (folder / "other").mkdir(exist_ok=True)
        other = write_classification(folder / "other", names=names)
        said = refusal(call(capsys, "fit", "-c", other, f"--ckpt_path={run}"))
        assert f"tells the classes ham, spam apart, and those of the data are {', '.join(names)}" in said
    three = write_classification(folder / "other", names=["ham", "spam", "ads"])
    said = refusal(call(capsys, "test", "-c", three, f"--ckpt_path={run}"))
    assert "tells the classes ham, spam apart, and those of the data are ham, spam, ads" in said
    said = refusal(call(capsys, "fit", "-c", three, f"--model.init_from={run}"))
    assert "tells the classes ham, spam apart, and the data has ham, spam, ads" in said


def test_another_split_is_refused(folder, monkeypatch, capsys) -> None:
    """Texts that are held out with another seed were trained on: a test of them would flatter."""
    monkeypatch.chdir(ROOT)
    own = [
        "-c",
        "configs/classify_spam.yaml",
        "--data.source=sample",
        "--data.block_size=8",
        "--trainer.accelerator=cpu",
    ]
    own.append(f"--trainer.logger.save_dir={folder / 'split'}")
    short = ["--trainer.max_steps=1", "--trainer.val_check_interval=1", "--test_best=false"]
    assert call(capsys, "fit", *own, *short).code == 0
    said = refusal(call(capsys, "test", *own, "--data.split_seed=1", "--ckpt_path=best"))
    assert "trained on another split of 'sample' (split_seed was 0 and is 1)" in said


def test_names_are_said_once(config, capsys) -> None:
    said = refusal(call(capsys, "fit", "-c", config, "--model.class_names=[a, b]"))
    assert "class_names" in said


def test_a_checkpoint_of_another_task(folder, config, run, language_run, capsys) -> None:
    """K14: both classes are named, and the way that is open."""
    language = write_tiny(folder)
    said = refusal(call(capsys, "fit", "-c", language, f"--ckpt_path={run}", "--data.block_size=21"))
    assert "is a checkpoint of Classification, and the config names LanguageModeling" in said
    assert "--model.init_from takes the backbone of any" in said
    said = refusal(call(capsys, "test", "-c", config, f"--ckpt_path={language_run}"))
    assert "is a checkpoint of LanguageModeling, and the config names Classification" in said


def test_the_backbone_of_another_task(folder, config, run, language_run, capsys) -> None:
    """K14: a start in either direction takes it alone, and says what is new; of the same task all is taken."""
    no_step = ("--trainer.max_steps=0", "--trainer.limit_val_batches=0")
    result = call(capsys, "fit", "-c", config, f"--model.init_from={language_run}", *no_step)
    assert result.code == 0, result.err
    assert "; new: head.weight" in result.err
    result = call(
        capsys, "fit", "-c", config, f"--model.init_from={language_run}", *STEPS, "--trainer.logger.name=from"
    )
    assert result.code == 0, result.err
    result = call(capsys, "fit", "-c", write_tiny(folder), f"--model.init_from={run}", "--data.block_size=21", *no_step)
    assert result.code == 0, result.err
    assert "dropped: " in result.err
    assert "head.weight" in result.err.partition("dropped: ")[2]
    result = call(capsys, "fit", "-c", config, f"--model.init_from={run}", *no_step)
    assert "none new, none dropped" in result.err


def test_data_and_model_belong_together(folder, config, capsys) -> None:
    """One sentence names both, in either direction."""
    said = refusal(call(capsys, "fit", "-c", config, "--model=lit_llm.modules.LanguageModeling"))
    assert "LanguageModeling and TinyTexts do not belong together" in said
    assert "change --model" in said
    said = refusal(call(capsys, "fit", "-c", write_tiny(folder), "--model=lit_llm.modules.Classification"))
    assert "Classification and Pretraining do not belong together" in said
    assert "change --data" in said


def test_callbacks_of_classes_refuse_other_tasks(tmp_path) -> None:
    from lit_llm.evaluation.baselines import ClassifierBaselines
    from lit_llm.training.figures import ClassifierFigures

    for callback, words in (
        (ClassifierFigures(), "LanguageModeling has none"),
        (ClassifierBaselines(), "Pretraining has"),
    ):
        with pytest.raises(ValueError, match=words):
            trainer(callbacks=[callback]).fit(tiny_module(), tiny_data(tmp_path))


def test_the_config_alone_repeats_it(run, folder, capsys) -> None:
    assert call(capsys, "fit", "-c", run / "config.yaml", "--trainer.logger.name=again").code == 0
    (again,) = run_folders(folder, "again")
    assert same(weights(run)["state_dict"], weights(again)["state_dict"])
    assert (again / "test_items.csv").read_bytes() == (run / "test_items.csv").read_bytes()


def test_a_run_that_has_taken_its_epochs_is_refused(folder, config, capsys) -> None:
    """Going on with nothing left to do would be a run folder without a training."""
    options = ("--trainer.max_steps=-1", "--trainer.max_epochs=1", "--trainer.logger.name=epochs")
    assert call(capsys, "fit", "-c", config, *options).code == 0
    path = run_folders(folder, "epochs")[0] / "checkpoints" / "last.ckpt"
    said = refusal(call(capsys, "fit", "-c", config, *options, f"--ckpt_path={path}"))
    assert "has taken its 1 epochs; raise --trainer.max_epochs" in said
