"""`lit-llm plan`: its sums, what it does not do, and how near it comes to a run."""

import json
import re
from pathlib import Path

import pytest
from cli_runs import call, refusal, spawn, write_text, write_tiny
from python_runs import B, T, tiny_backbone

LLAMA = ("-c", "configs/pretrain.yaml", "--model.backbone=configs/backbone/llama3_8b.yaml", "--vocab_size=128256")


def rows(table: str) -> dict[str, str]:
    """A table by the names of its rows."""
    return dict(re.split(r" {2,}", line.strip(), maxsplit=1) for line in table.splitlines() if line)


def number(text: str) -> float:
    """The first one in a text."""
    found = re.search(r"[\d,]+(\.\d+)?", text)
    assert found is not None, text
    return float(found[0].replace(",", ""))


def plan(capsys: pytest.CaptureFixture[str], *options: object) -> dict[str, str]:
    result = call(capsys, "plan", *options)
    assert result.code == 0, result.err
    return rows(result.out)


def test_a_tiny_run(tmp_path, capsys) -> None:
    """Parameters, operations and tokens, each counted by hand."""
    options = ("--devices=2", "--nodes=3", "--trainer.accumulate_grad_batches=5", "--trainer.max_steps=11")
    shown = plan(capsys, "-c", write_tiny(tmp_path), *options)
    backbone = tiny_backbone()
    assert number(shown["parameters"]) == backbone.num_parameters()
    assert number(shown["operations"]) == backbone.flops_per_token()
    tokens = B * T * 2 * 3 * 5
    assert number(shown["tokens of a step"]) == tokens
    assert number(shown["tokens of the run"]) == 11 * tokens
    assert number(shown["compute-optimal"]) == 20 * backbone.num_parameters()
    assert "the process itself" in shown
    assert shown["hours"].startswith("say ")


def test_it_reads_no_text_and_writes_nothing(tmp_path, capsys) -> None:
    """Neither a cache nor a run folder is made; a vocabulary that is to be learned counts as asked for.

    How long a run is that has no last step, it does not say.
    """
    config = write_tiny(tmp_path)
    options = ("--data.tokenizer=BPE", "--data.tokenizer.vocab_size=901", "--trainer.max_steps=-1", "--utilization=0.5")
    shown = plan(capsys, "-c", config, *options)
    assert number(shown["parameters"]) == tiny_backbone(vocab_size=901).num_parameters()
    assert shown["tokens of the run"] == "unknown: trainer.max_steps is -1"
    assert "hours" not in shown
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "tiny.yaml"}


def gigabytes_by_hand(parameters: float) -> dict[str, float]:
    """Weights of 16 bits, and AdamW's two averages of the same."""
    return {"weights": 2 * parameters / 1e9, "gradients": 2 * parameters / 1e9, "optimizer": 4 * parameters / 1e9}


@pytest.mark.parametrize("n_layer", [3, pytest.param(32, marks=pytest.mark.slow)])
def test_a_model_of_billions_on_devices_that_are_not_here(tmp_path, capsys, monkeypatch, n_layer) -> None:
    """Llama 3.1 8B, or a few of its layers, over 8 GPUs: an eighth of everything that FSDP divides."""
    monkeypatch.chdir(write_text(tmp_path / "text.txt").parent)
    sizes = ("--data.source=text.txt", "--data.block_size=512", "--data.batch_size=4", "--trainer.max_steps=1000")
    options = ("--device=h100", "--devices=8", "--strategy=fsdp", "--utilization=0.5", "--trainer.precision=bf16-true")
    shown = plan(capsys, *LLAMA, f"--model.backbone.n_layer={n_layer}", *sizes, *options)
    parameters = 2 * 128256 * 4096 + 4096 + n_layer * (4096 * (6144 + 4096 + 3 * 14336) + 2 * 4096)
    assert shown["parameters"] == f"{parameters / 1e9:.3g}B"
    unit = 1e3 if shown["weights"].endswith("MB") else 1
    for name, size in gigabytes_by_hand(parameters / 8).items():
        assert number(shown[name]) / unit == pytest.approx(size, abs=0.05)  # shown to 0.1
    assert "fits into 80 GB" in shown["memory of a device"]
    assert "the process itself" not in shown
    flops = number(shown["operations"]) * 1e9  # a token, shown to three digits
    hours = 1000 * 8 * 4 * 512 * flops / (8 * 989e12 * 0.5) / 3600
    assert number(shown["hours"]) == pytest.approx(hours, abs=0.01)


def test_hours_at_a_measured_rate(tmp_path, capsys) -> None:
    """What a bench has measured, on more devices and for more steps; of a vocabulary that only the option tells."""
    measured = tmp_path / "figures.json"
    measured.write_text(json.dumps({"model_flops_utilization": 0.25, "measured_peak_flops": 2e6}), encoding="utf-8")
    options = ("--devices=4", "--trainer.max_steps=90", "--data.tokenizer=Characters", "--vocab_size=65")
    shown = plan(capsys, "-c", write_tiny(tmp_path), f"--bench={measured}", *options)
    operations = 90 * 4 * B * T * tiny_backbone(vocab_size=65).flops_per_token()
    assert number(shown["hours"]) == pytest.approx(operations / (4 * 0.25 * 2e6) / 3600, abs=0.01)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--device=h101",), "--device h101 is not known; it is one of h100, h200, a100, cpu"),
        (("--devices=0",), "--devices 0 cannot be"),
        (("--nodes=-1",), "--nodes -1 cannot be"),
        (("--strategy=zero",), "--strategy zero is not known"),
        (("--utilization=40",), "--utilization 40.0 cannot be"),
        (("--utilization=0.4", "--bench=x.json"), "give one"),
        (("--bench=x.json",), "cannot read --bench 'x.json'"),
        (("--bench=text.txt",), "no file that lit-llm bench --json has written"),
        (("--data.tokenizer=Characters",), "say --vocab_size"),
        (("--ckpt_path=best",), "no use for --ckpt_path best"),
    ],
)
def test_refusals(tmp_path, capsys, monkeypatch, options, words) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in refusal(call(capsys, "plan", "-c", write_tiny(tmp_path), *options))


@pytest.mark.slow
def test_memory_and_time_come_true(tmp_path: Path) -> None:
    """An 11M GPT on this CPU: within 15 % of the peak that a process of its own reaches, its time within 25 %."""
    write_text(tmp_path / "text.txt", lines=2000)
    backbone = ("--model.backbone.n_layer=6", "--model.backbone.n_head=6", "--model.backbone.n_embd=384")
    data = ("--data.source=text.txt", "--data.tokenizer=Bytes", "--data.block_size=256", "--data.batch_size=8")
    options = ("-c", "configs/pretrain.yaml", *backbone, *data, "--trainer.accelerator=cpu", "--trainer.max_steps=1000")

    def output(*args: str) -> dict[str, str]:
        process = spawn(*args, cwd=tmp_path)
        out, err = process.communicate(timeout=280)
        assert process.returncode == 0, err
        return rows(out)

    output("bench", *options, "--steps=1", "--warmup_steps=0")  # tokenizes
    measured = output("bench", *options, "--steps=6", "--warmup_steps=2", "--json=figures.json")
    shown = output("plan", *options, "--bench=figures.json")
    assert number(shown["memory of a device"]) == pytest.approx(number(measured["peak memory"]), rel=0.15)
    hours = 1000 * number(measured["step"]) / 1e3 / 3600
    assert number(shown["hours"]) == pytest.approx(hours, rel=0.25)
