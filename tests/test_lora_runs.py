"""Adapters by the command line: started from a base, resumed, merged where a model is read, and alone in a folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from cli_runs import Result, call, equal_at_the_end, refusal, run_folders, same, weights, write_tiny

from lit_llm import GPT
from lit_llm.backbone.lora import adapter_names, merge
from lit_llm.weights.adapters import load_adapter
from lit_llm.weights.checkpoint import checkpoint_source

CLOSE = 1e-5  # of logits near 1: sums in another order
IDX = torch.arange(14).view(2, 7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lora")


@pytest.fixture
def base(folder: Path, capsys) -> Path:
    """The folder of a run of four steps."""
    if not run_folders(folder):
        assert call(capsys, "fit", "-c", write_tiny(folder)).code == 0
    return run_folders(folder)[0]


def fit(capsys, folder: Path, name: str, *options: object) -> Result:
    run = f"--trainer.logger.name={name}"
    return call(capsys, "fit", "-c", folder / "tiny.yaml", run, "--model.optimizer.lr=0.1", *options)


@pytest.fixture(params=["plain", "dora"])
def adapted(request, folder: Path, base: Path, capsys) -> Path:
    """The folder of a run with adapters, started from the base."""
    name = request.param
    if not run_folders(folder, name):
        lora = ("--model.lora.rank=3", f"--model.lora.dora={name == 'dora'}", "--model.lora.dropout=0.1")
        result = fit(capsys, folder, name, f"--model.init_from={base}", *lora)
        assert result.code == 0, result.err
        assert "; new: backbone.blocks.0.attention.proj.lora_a, " in result.err
    return run_folders(folder, name)[0]


def backbone(run: Path) -> tuple[dict, GPT]:
    checkpoint = weights(run)
    return checkpoint, checkpoint_source(run, checkpoint).backbone()


def test_the_base_stays_and_the_source_is_merged(base: Path, adapted: Path) -> None:
    """Bit-equal weights under their own names; read as a source, the run is a plain GPT that computes the same."""
    before, after = weights(base, "best")["state_dict"], weights(adapted)["state_dict"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    new = after.keys() - before.keys()
    assert {name.rpartition(".")[2].split("_")[0] for name in new} == {"lora"}
    checkpoint, merged = backbone(adapted)
    assert checkpoint["hyper_parameters"]["lora"]["rank"] == 3
    unmerged = backbone(base)[1]
    export_free = GPT.from_pretrained(str(adapted / "checkpoints" / "last.ckpt"))
    assert same(export_free.state_dict(), merged.state_dict())
    assert not adapter_names(merged)
    assert not torch.allclose(merged(IDX), unmerged(IDX), atol=1e-3)


def test_an_adapter_alone(folder: Path, base: Path, adapted: Path, capsys, tmp_path) -> None:
    """It is small, knows its base, is a source like any other, and refuses another base."""
    out = tmp_path / "adapter"
    last = adapted / "checkpoints" / "last.ckpt"
    result = call(capsys, "export", "--checkpoint", last, "--format=adapter", "--out", out)
    assert result.code == 0, result.err
    assert {path.name for path in out.iterdir()} == {"adapter.json", "adapter.safetensors"}
    content = json.loads((out / "adapter.json").read_text())
    assert (content["base"], content["lora"]["rank"]) == (str(base), 3)
    merged = GPT.from_pretrained(str(last))
    assert same(GPT.from_pretrained(str(out)).state_dict(), merged.state_dict())

    apart = GPT.from_pretrained(str(base))
    load_adapter(apart, out)
    assert adapter_names(apart)
    assert torch.allclose(apart(IDX), merged(IDX), atol=CLOSE)
    merge(apart)
    assert torch.allclose(apart(IDX), merged(IDX), atol=CLOSE)
    for source in (last, out):
        text = call(capsys, "generate", "--checkpoint", source, "--prompt=the", "--temperature=0", "--max_new_tokens=4")
        assert text.code == 0, text.err
        assert text.out.startswith("the")

    other = GPT.from_pretrained(str(base))
    with torch.no_grad():
        other.blocks[0].attention.qkv.weight.mul_(1.5)
    with pytest.raises(
        ValueError, match=r"trained on other weights than these \(blocks.0.attention.qkv.weight differs"
    ):
        load_adapter(other, out)
    assert not adapter_names(other)
    (out / "adapter.json").write_text(json.dumps(content | {"lora": content["lora"] | {"rank": 2}}))
    with pytest.raises(ValueError, match=r"does not fit: blocks.0.attention.proj.lora_a.* of another shape"):
        load_adapter(unchanged := GPT.from_pretrained(str(base)), out)
    assert not adapter_names(unchanged)
    content["base"] = str(tmp_path / "gone")
    (out / "adapter.json").write_text(json.dumps(content))
    said = refusal(call(capsys, "generate", "--checkpoint", out, "--prompt=the"))
    assert said.startswith(f"the base of the adapter '{out}' is missing: ")
    (out / "adapter.safetensors").write_bytes(b"x")
    assert "is damaged" in refusal(call(capsys, "generate", "--checkpoint", out, "--prompt=the"))


def test_a_run_with_adapters_goes_on(folder: Path, base: Path, adapted: Path, capsys) -> None:
    """By its config.yaml, equal to one that never stopped, after the source has gone."""
    config = adapted / "config.yaml"
    name = f"again_{adapted.parent.name}"
    hidden = base.rename(base.with_name("hidden"))
    try:
        go_on = ("-c", config, f"--ckpt_path={adapted}", "--trainer.max_steps=6", f"--trainer.logger.name={name}")
        assert call(capsys, "fit", *go_on).code == 0
    finally:
        hidden.rename(base)
    whole = call(capsys, "fit", "-c", config, "--trainer.max_steps=6", f"--trainer.logger.name={name}")
    assert whole.code == 0, whole.err
    resumed, uninterrupted = run_folders(folder, name)
    assert equal_at_the_end(resumed, uninterrupted)


def test_new_adapters_on_a_run_that_has_some(folder: Path, adapted: Path, capsys) -> None:
    """What is started from is the merged model, as for everybody who reads it."""
    name = f"twice_{adapted.parent.name}"
    result = fit(capsys, folder, name, f"--model.init_from={adapted}", "--model.lora.rank=2")
    assert result.code == 0, result.err
    (again,) = run_folders(folder, name)
    start = GPT.from_pretrained(str(adapted)).state_dict()
    end = weights(again)["state_dict"]
    assert all(torch.equal(end[f"backbone.{key}"], value) for key, value in start.items())


def test_a_schedule_survives_its_own_config(folder: Path, base: Path, capsys) -> None:
    """Keys of a schedule are numbers in the run's config.yaml as well, and in the checkpoint."""
    result = fit(capsys, folder, "stages", "--model.trainable={0: head, 2: all}")
    assert result.code == 0, result.err
    (run,) = run_folders(folder, "stages")
    saved = weights(run)["hyper_parameters"]["trainable"]
    assert {int(start): rule for start, rule in saved.items()} == {0: "head", 2: "all"}
    again = call(capsys, "fit", "-c", run / "config.yaml")
    assert again.code == 0, again.err
    first, second = run_folders(folder, "stages")
    assert equal_at_the_end(first, second)
    changed = ("--model.trainable=head", f"--ckpt_path={first}", "--trainer.max_steps=6")
    said = refusal(call(capsys, "fit", "-c", first / "config.yaml", *changed))
    assert "the config says trainable head; leave it as it was" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model.trainable=attn",), "trainable 'attn' matches no parameter that can train"),
        (("--model.trainable=last_2_blocks",), "trainable 'last_2_blocks' cannot be"),
        (("--model.trainable={3: all}",), "the schedule of trainable begins at 3"),
        (
            ("--model.trainable={0: head, 2: all}", "--trainer.devices=2", "--trainer.strategy=ddp"),
            "the schedule of trainable {0: 'head', 2: 'all'} needs a single device",
        ),
        (("--model.lora.targets=[attention.q_proj]",), "lora.targets 'attention.q_proj' matches no linear layer"),
        (("--model.lora.rank=0",), "lora.rank 0 cannot be: it is at least 1"),
        (("--model.layer_decay=0",), "layer_decay 0.0 cannot be: it lies in (0, 1]"),
    ],
)
def test_refusals(folder: Path, base: Path, capsys, options, message) -> None:
    assert message in refusal(fit(capsys, folder, "refused", *options))
    assert not run_folders(folder, "refused")


def test_refused_adapters(folder: Path, base: Path, capsys, tmp_path) -> None:
    """A run without them, and one that has trained more than an adapter holds."""
    export = ("export", "--format=adapter", f"--out={tmp_path / 'out'}", "--checkpoint")
    assert "its run has no adapters" in refusal(call(capsys, *export, base))
    options = (f"--model.init_from={base}", "--model.lora.rank=2", "--model.trainable=all")
    assert fit(capsys, folder, "all", *options).code == 0
    said = refusal(call(capsys, *export, *run_folders(folder, "all")))
    assert "may have trained weights of the base as well (trainable all)" in said
    shutil.rmtree(folder / "logs" / "all")
