"""The experiments' configs and parts work as their READMEs say."""

import shlex
from pathlib import Path

import pytest
import torch
import yaml
from tiny_gpt2 import write_gpt2

from lit_llm.__main__ import main
from lit_llm.modules import LanguageModeling

ROOT = Path(__file__).parents[1]
TINY = [
    "--data.tokenizer",
    "Bytes",
    "--data.block_size",
    "16",
    "--data.batch_size",
    "2",
    "--trainer.max_steps",
    "2",
    "--trainer.val_check_interval",
    "2",
    "--trainer.accelerator",
    "cpu",
    "--model.backbone.n_layer",
    "1",
    "--model.backbone.n_embd",
    "24",
    "--trainer.enable_progress_bar",
    "false",
]
PARTS = "experiments.e0003_swap.parts"
SWAPS = {
    "norm": ["--model.backbone.norm", f"{PARTS}.PNorm", "--model.backbone.norm.p", "3.0"],
    "attention": [
        "--model.backbone.attention",
        f"{PARTS}.DecayingAttention",
        "--model.backbone.attention.steepest",
        "0.25",
    ],
}
GRIDS = {"e0004_which_layers": "classify_spam", "e0005_instruct": "instruct_alpaca"}
E0001 = sorted(
    path.stem for path in (ROOT / "experiments/e0001_tiny_shakespeare").glob("*.yaml") if path.stem != "grid"
)


@pytest.mark.parametrize("part", SWAPS)
def test_own_parts_run_are_saved_and_reload(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part with its own option trains from the command line, stands in config.yaml, and reloads."""
    monkeypatch.chdir(ROOT)
    text = tmp_path / "text.txt"
    text.write_text("It was a bright cold day in April, and the clocks were striking thirteen. " * 20, encoding="utf-8")
    args = ["fit", "-c", "configs/pretrain.yaml", *TINY, "--data.source", str(text), *SWAPS[part]]
    assert main([*args, "--trainer.logger.save_dir", str(tmp_path / "logs")]) == 0
    run = tmp_path / "logs/pretrain/version_0"
    saved = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["backbone"]["init_args"][part]
    assert saved["class_path"] == SWAPS[part][1]
    assert str(saved["init_args"][SWAPS[part][2].rpartition(".")[2]]) == SWAPS[part][3]

    module = LanguageModeling.load_from_checkpoint(run / "checkpoints/last.ckpt", map_location="cpu").eval()
    names = {f"{type(m).__module__}.{type(m).__qualname__}" for m in module.modules()}
    assert SWAPS[part][1] in names
    weights = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    assert module.backbone(torch.zeros(2, 16, dtype=torch.long)).isfinite().all()


def test_own_attention_is_causal() -> None:
    from experiments.e0003_swap.parts import DecayingAttention

    torch.manual_seed(0)
    attention, x = DecayingAttention(24, 4), torch.randn(2, 7, 24)
    changed = x.clone()
    changed[:, 5] += 1
    before, after = attention(x), attention(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("overlay", E0001)
def test_overlays_keep_the_size(overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each idea of e0001 trains, and its parameter count is within 5 % of the baseline's 0.8M."""
    monkeypatch.chdir(ROOT)
    text = tmp_path / "text.txt"
    text.write_text("".join(chr(32 + i % 65) for i in range(2000)), encoding="utf-8")  # 65 characters, as there
    args = [
        "fit",
        "-c",
        "experiments/e0001_tiny_shakespeare/config.yaml",
        "--data.source",
        str(text),
        "--trainer.max_steps",
        "1",
        "--trainer.enable_progress_bar",
        "false",
        "--trainer.logger.save_dir",
        str(tmp_path),
    ]
    extra = [] if overlay == "config" else ["-c", f"experiments/e0001_tiny_shakespeare/{overlay}.yaml"]
    assert main([args[0], *args[1:3], *extra, *args[3:]]) == 0
    path = tmp_path / "tiny_shakespeare/version_0/checkpoints/last.ckpt"
    size = sum(w.numel() for w in torch.load(path, weights_only=True)["state_dict"].values())
    assert size == pytest.approx(810_000, rel=0.05)


@pytest.mark.parametrize("name", GRIDS)
def test_every_variant_of_a_grid_can_be_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the README of the experiment starts it, from a model of somebody else: each option is one of the task."""
    monkeypatch.chdir(ROOT)
    folder = f"experiments/{name}"
    config = ["-c", f"configs/{GRIDS[name]}.yaml", "-c", f"{folder}/config.yaml"]
    start = ["--model.init_from", str(write_gpt2(tmp_path / "gpt2"))]
    assert main(["sweep", *config, "--grid", f"{folder}/grid.yaml", *start, "--print_jobs", "true"]) == 0
    jobs = capsys.readouterr().out.splitlines()
    assert len(jobs) == len(yaml.safe_load((ROOT / folder / "grid.yaml").read_text())["variants"])
    for job in jobs:
        with pytest.raises(SystemExit) as stop:
            main([*shlex.split(job)[1:], "--print_config"])
        assert stop.value.code == 0, capsys.readouterr().err
