"""What the tests of comparisons share: four real runs, two settings with two seeds each."""

import shutil
from pathlib import Path

import pytest
from cli_runs import write_text

from lit_llm.__main__ import main

TINY = [
    "--data.tokenizer",
    "Bytes",
    "--data.block_size",
    "16",
    "--data.batch_size",
    "4",
    "--trainer.max_steps",
    "4",
    "--trainer.log_every_n_steps",
    "1",
    "--trainer.val_check_interval",
    "2",
    "--trainer.accelerator",
    "cpu",
    "--trainer.enable_progress_bar",
    "false",
    "--model.backbone.n_layer",
    "1",
    "--model.backbone.n_head",
    "4",
    "--model.backbone.n_embd",
    "24",
]


def fit(logs: Path, *options: str) -> int:
    """Train for four steps, with all that the config of a task brings along."""
    text = write_text(logs.parent / "text.txt")
    fixed = ["--data.source", str(text), "--data.cache_dir", str(logs.parent / "cache")]
    return main(["fit", "-c", "configs/pretrain.yaml", *TINY, *fixed, f"--trainer.logger.save_dir={logs}", *options])


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`logs/pretrain/version_0` to `version_3`: learning rates 0.001 and 0.01 with the seeds 1 and 2."""
    logs = tmp_path_factory.mktemp("compared") / "logs"
    for rate in ("0.001", "0.01"):
        for seed in ("1", "2"):
            assert fit(logs, "--model.optimizer.lr", rate, "--seed_everything", seed) == 0
    return logs


@pytest.fixture
def logs(trained: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may spoil."""
    return Path(shutil.copytree(trained, tmp_path / "logs"))
