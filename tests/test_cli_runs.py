"""A run from the command line: its folder, its repetition, and the traps between Lightning and jsonargparse."""

from pathlib import Path

import pytest
import torch
from cli_runs import (
    ROOT,
    call,
    losses,
    printed,
    refusal,
    run_folders,
    same,
    tiny_config,
    weights,
    write_text,
    write_tiny,
    write_yaml,
)

from lit_llm.backbone import GPT
from lit_llm.modules import LanguageModeling


@pytest.fixture
def config(tmp_path) -> Path:
    return write_tiny(tmp_path)


def test_run_folder(config, tmp_path, capsys) -> None:
    """A run leaves its config, its events and its checkpoints; the config alone repeats it bit for bit (C19, N10)."""
    assert call(capsys, "fit", "-c", config, "--trainer.deterministic=true").code == 0
    (run,) = run_folders(tmp_path)
    assert sorted(p.name for p in run.iterdir() if "tfevents" not in p.name) == ["checkpoints", "config.yaml"]
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]

    assert call(capsys, "fit", "-c", run / "config.yaml").code == 0
    _, again = run_folders(tmp_path)  # C20: in a folder of its own
    assert same(weights(run)["state_dict"], weights(again)["state_dict"])
    assert losses(run) == losses(again)
    assert (again / "config.yaml").read_bytes() == (run / "config.yaml").read_bytes()
    assert call(capsys, "fit", "-c", config, "--trainer.deterministic=true", "--seed_everything=5").code == 0
    assert losses(run) != losses(run_folders(tmp_path)[2])


def test_saved_config_prints_itself(config, tmp_path, capsys) -> None:
    """C19: what lies in the run folder prints the same bytes twice, and what the run was started with."""
    assert call(capsys, "fit", "-c", config, "--trainer.max_steps=1").code == 0
    (run,) = run_folders(tmp_path)
    first = call(capsys, "fit", "-c", run / "config.yaml", "--print_config").out
    assert first == call(capsys, "fit", "-c", config, "--trainer.max_steps=1", "--print_config").out
    again = write_yaml(tmp_path / "again.yaml", first)
    assert call(capsys, "fit", "-c", again, "--print_config").out == first


def test_fast_dev_run_writes_nothing(config, tmp_path, capsys) -> None:
    """C24: no run folder, no checkpoint, no config; only the tokens of the corpus are kept."""
    before = sorted(tmp_path.iterdir())
    assert call(capsys, "fit", "-c", config, "--trainer.fast_dev_run=2").code == 0
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "cache"])


def test_run_without_a_logger(config, tmp_path, capsys, monkeypatch) -> None:
    """C20: two runs without a run folder do not fall over each other's config."""
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        options = ("--trainer.logger=false", "--trainer.enable_checkpointing=false")
        assert call(capsys, "fit", "-c", config, "--trainer.max_steps=1", *options).code == 0
    assert not list(tmp_path.rglob("config.yaml"))


def test_a_run_of_the_real_callbacks_without_what_they_need(tmp_path, capsys, monkeypatch) -> None:
    """A bar, a logger, checkpoints that an option turns off take along the callbacks that would ask for them."""
    monkeypatch.chdir(tmp_path)
    callbacks = ROOT / "configs" / "callbacks.yaml"
    options = ("--trainer.logger=false", "--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false")
    args = ("fit", "-c", write_tiny(tmp_path), f"--trainer.callbacks={callbacks}", "--trainer.max_steps=1", *options)
    result = call(capsys, *args)
    assert result.code == 0
    assert "validation loss  unknown: no validation in so few steps" in result.out


def test_taken_run_folder(config, tmp_path, capsys) -> None:
    """C20: a number asked for is given once."""
    assert call(capsys, "fit", "-c", config, "--trainer.max_steps=1", "--trainer.logger.version=3").code == 0
    said = refusal(call(capsys, "fit", "-c", config, "--trainer.max_steps=1", "--trainer.logger.version=3"))
    assert f"'{run_folders(tmp_path)[0]}' is taken" in said


def test_links_reach_the_checkpoint(config, tmp_path, capsys) -> None:
    """Trap 2: sizes that follow from the data are in the hyper-parameters, and Python loads the checkpoint by them."""
    assert call(capsys, "fit", "-c", config).code == 0
    path = run_folders(tmp_path)[0] / "checkpoints" / "last.ckpt"
    checkpoint = weights(run_folders(tmp_path)[0])  # weights_only: nothing but plain values and tensors
    sizes = checkpoint["hyper_parameters"]["backbone"]["init_args"]
    assert (sizes["vocab_size"], sizes["block_size"]) == (257, 7)
    assert checkpoint["hyper_parameters"]["optimizer"]["init_args"]["lr"] == 0.01

    module = LanguageModeling.load_from_checkpoint(path).eval()
    backbone = GPT(257, 7, n_layer=1, n_head=4, n_embd=24)
    in_python = LanguageModeling.load_from_checkpoint(path, backbone=backbone).eval()  # trap 4
    prefix = "backbone."
    backbone = GPT(257, 7, n_layer=1, n_head=4, n_embd=24).eval()
    backbone.load_state_dict({name.removeprefix(prefix): value for name, value in checkpoint["state_dict"].items()})
    idx = torch.arange(10).view(2, 5)
    with torch.no_grad():
        assert torch.equal(module.backbone(idx), backbone(idx))
        assert torch.equal(in_python.backbone(idx), backbone(idx))


def test_seed_comes_before_the_weights(config, tmp_path, capsys) -> None:
    """Trap 6: nothing random is built before the seed; another run in the same process has drawn in between."""
    first = write_yaml(tmp_path / "first.yaml", "model: {init_args: {optimizer: {init_args: {lr: 1e-9}}}}")
    for _ in range(2):
        assert call(capsys, "fit", "-c", config, "-c", first, "--trainer.max_steps=1").code == 0
        torch.rand(3)
    one, two = (weights(run)["state_dict"] for run in run_folders(tmp_path))
    assert same(one, two)


PARTS = """
import torch
from torch import nn
from lit_llm.modules import LanguageModeling


class Norm(nn.Module):
    def __init__(self, n_embd: int, eps: float = 1e-5):
        super().__init__()
        self.eps, self.scale = eps, nn.Parameter(torch.ones(n_embd))

    def forward(self, x):
        return x * self.scale * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


class Mine(LanguageModeling):
    pass
"""


def test_parts_from_the_working_directory(tmp_path, capsys, monkeypatch) -> None:
    """Trap 5: a class beside the user is named, given its own options, saved, and found again by validate."""
    folder = tmp_path / "experiments_swap"
    folder.mkdir()
    (folder / "parts.py").write_text(PARTS)
    monkeypatch.chdir(tmp_path)
    config = write_tiny(tmp_path)
    own = ("--model.backbone.norm=experiments_swap.parts.Norm", "--model.backbone.norm.eps=0.5")
    assert call(capsys, "fit", "-c", config, *own).code == 0
    (run,) = run_folders(tmp_path)
    norm = printed(call(capsys, "fit", "-c", run / "config.yaml", "--print_config"))["model"]["init_args"]["backbone"]
    assert norm["init_args"]["norm"] == {"class_path": "experiments_swap.parts.Norm", "init_args": {"eps": 0.5}}
    module = LanguageModeling.load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    assert type(module.backbone.norm).__name__ == "Norm"
    assert module.backbone.norm.eps == 0.5

    # Trap 1: a checkpoint of another class does not silently swap the module.
    other = ("--model=experiments_swap.parts.Mine", f"--ckpt_path={run}")
    said = refusal(call(capsys, "fit", "-c", run / "config.yaml", *other))
    assert "is a checkpoint of LanguageModeling, and the config names Mine" in said


def test_a_failure_of_the_run_keeps_its_traceback(config, tmp_path, monkeypatch, capsys) -> None:
    """L1: what no user did wrong is not hidden; the process ends with code 1."""
    (tmp_path / "cli_failing.py").write_text(
        "from lightning import Callback\n\n\nclass Fail(Callback):\n"
        "    def on_train_batch_end(self, *args):\n        raise RuntimeError('boom')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="boom"):
        call(capsys, "fit", "-c", config, "--trainer.callbacks+=cli_failing.Fail")


@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function _MultiProcessingDataLoaderIter"
)  # of the killed one
def test_dead_worker(tmp_path, capsys, monkeypatch) -> None:
    """D19: a killed loader process ends the run with an error, and leaves the last checkpoint whole."""
    (tmp_path / "cli_killing.py").write_text(
        "import multiprocessing, os, signal\nfrom lightning import Callback\n\n\nclass Kill(Callback):\n"
        "    def on_train_batch_end(self, trainer, *args):\n"
        "        if trainer.global_step == 3:\n"
        "            for worker in multiprocessing.active_children():\n"
        "                os.kill(worker.pid, signal.SIGKILL)\n"
        "                worker.join()\n"  # so that torch hears of it here, and not in what the test does later
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = tiny_config(tmp_path)
    write_text(tmp_path / "text.txt", lines=300)
    config["trainer"]["max_steps"] = 100
    path = write_yaml(tmp_path / "c.yaml", config)
    # The second is what torch says where the kill falls into the handing over of a batch.
    with pytest.raises((RuntimeError, ConnectionResetError), match=r"killed by|reset by peer|exited unexpectedly"):
        call(capsys, "fit", "-c", path, "--data.num_workers=1", "--trainer.callbacks+=cli_killing.Kill")
    assert weights(run_folders(tmp_path)[0])["global_step"] == 2


def test_predictions_are_written(config, tmp_path, capsys) -> None:
    """predict leaves a tensor a batch in the run folder: log-probabilities of the validation text."""
    assert call(capsys, "fit", "-c", config).code == 0
    assert call(capsys, "predict", "-c", config, "--ckpt_path=best").code == 0
    predictions = torch.load(run_folders(tmp_path)[1] / "predictions.pt", weights_only=True)
    assert predictions[0].shape == (5, 7)
    assert all((batch <= 0).all() for batch in predictions)
