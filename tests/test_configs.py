"""Every file in configs/: it is found, it parses, and what can be trained on a CPU in a second is (C18)."""

from pathlib import Path

import pytest
import torch
from cli_runs import call, printed, run_folders, write_text

from lit_llm.modules import LanguageModeling
from lit_llm.weights.checkpoint import checkpoint_source, read_checkpoint

CONFIGS = Path(__file__).parents[1] / "configs"
TASKS = sorted(CONFIGS.glob("*.yaml"))
OVERLAYS = sorted((CONFIGS / "overlays").rglob("*.yaml"))
BACKBONES = sorted((CONFIGS / "backbone").rglob("*.yaml"))
SMALL = ("nano", "llama_nano")  # the others are built on the meta device, in tests/backbone
SEVERAL_DEVICES = ("ddp", "fsdp", "tensor_parallel", "multi_node")  # fitted on two, in test_many_devices.py
ON_ONE = [path for path in OVERLAYS if path.stem not in SEVERAL_DEVICES]
CHANGES = [("-c", path) for path in ON_ONE] + [("--model.backbone", path) for path in BACKBONES if path.stem in SMALL]


def test_all_files_are_found() -> None:
    lists = ["callbacks", "callbacks_classification", "callbacks_instruction", "callbacks_preference"]
    names = [*lists, "classify_spam", "instruct_alpaca", "preference_dpo", "pretrain"]
    assert [path.stem for path in TASKS] == names
    assert (len(ON_ONE), len(SEVERAL_DEVICES), len(BACKBONES)) == (5, 4, 8)
    assert len(list(CONFIGS.rglob("*"))) == 8 + 2 + 5 + 4 + 8  # with the two folders


@pytest.mark.parametrize("backbone", BACKBONES, ids=[path.stem for path in BACKBONES])
def test_backbones_parse_within_a_task(backbone: Path, capsys) -> None:
    got = printed(call(capsys, "fit", "-c", CONFIGS / "pretrain.yaml", "--model.backbone", backbone, "--print_config"))
    assert got["model"]["init_args"]["backbone"]["class_path"] == "lit_llm.GPT"


@pytest.mark.parametrize("name", SEVERAL_DEVICES)
def test_overlays_for_several_devices_parse(name: str, capsys) -> None:
    files = [CONFIGS / "pretrain.yaml", CONFIGS / "overlays" / f"{name}.yaml"]
    trainer = printed(call(capsys, "fit", *(f"-c={file}" for file in files), "--print_config"))["trainer"]
    assert trainer["strategy"] != "auto"
    assert trainer["num_nodes"] == (2 if name == "multi_node" else 1)


@pytest.mark.parametrize("change", [(), *CHANGES], ids=["pretrain", *(path.stem for _, path in CHANGES)])
def test_runs_two_steps_and_reloads(change: tuple, tmp_path, capsys) -> None:
    """With all callbacks and clipped gradients; both ways back from the checkpoint give the same logits."""
    own = (
        f"--data.source={write_text(tmp_path / 'text.txt', lines=200)}",
        "--data.tokenizer=Bytes",
        "--data.block_size=19",
        "--data.batch_size=3",
        "--trainer.max_steps=2",
        "--trainer.val_check_interval=2",
        "--trainer.limit_val_batches=3",
        *(["--model.lr_scheduler.decay_steps=1"] if any("stable" in str(part) for part in change) else []),
        "--trainer.accelerator=cpu",
        f"--trainer.logger.save_dir={tmp_path / 'logs'}",
    )
    assert call(capsys, "fit", "-c", CONFIGS / "pretrain.yaml", *change, *own).code == 0
    (run,) = run_folders(tmp_path, "pretrain")
    path = run / "checkpoints" / "last.ckpt"
    backbone = checkpoint_source(path, read_checkpoint(path)).backbone()
    module = LanguageModeling.load_from_checkpoint(path, map_location="cpu").eval()
    idx = torch.arange(14).view(2, 7)
    tolerance = (
        1e-5 if any("lora_" in name for name in module.state_dict()) else 0.0
    )  # adapters are merged by one of the ways
    with torch.no_grad():
        torch.testing.assert_close(module.backbone(idx), backbone(idx), rtol=0, atol=tolerance)
        assert backbone(idx).isfinite().all()


def test_a_classifier_runs_and_reloads(tmp_path, capsys) -> None:
    """Two steps on the sample that comes along, with all callbacks and the test at the end."""
    own = (
        "--data.source=sample",
        "--data.block_size=19",
        "--data.batch_size=3",
        "--trainer.max_steps=2",
        "--trainer.val_check_interval=2",
        "--trainer.accelerator=cpu",
        f"--trainer.logger.save_dir={tmp_path / 'logs'}",
    )
    result = call(capsys, "fit", "-c", CONFIGS / "classify_spam.yaml", *own)
    assert result.code == 0, result.err
    (run,) = run_folders(tmp_path, "classify_spam")
    assert {path.name for path in run.glob("*.csv")} >= {"test_items.csv", "test_items.majority.csv"}
    said = call(capsys, "classify", "--checkpoint", run, "win a prize now", "home at six")
    assert [line.split("\t")[0] in ("ham", "spam") for line in said.out.splitlines()] == [True, True]
