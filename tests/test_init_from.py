"""--model.init_from: where architecture and tokenizer come from, what is loaded, and that the source may go then."""

import base64
import json
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
from cli_runs import call, losses, printed, refusal, run_folders, same, weights, write_tiny, write_yaml

from lit_llm import GPT


@pytest.fixture
def pretrained(tmp_path: Path, shared: Path) -> Path:
    """A copy of stories260K that may be deleted."""
    return Path(
        shutil.copytree(shared / "weights" / "stories260K" / "hf", tmp_path / "stories", copy_function=shutil.copyfile)
    )


def test_a_run_that_outlives_its_source(tmp_path, capsys, pretrained) -> None:
    """The first loss is the pretrained one; resumed by either config, validated and used after the source is gone."""
    text = pretrained.parents[0] / "text.txt"
    config = write_tiny(tmp_path)
    text.write_text("Once upon a time, there was a little girl named Lily. She loved to play in the park.\n" * 40)
    args = (
        "-c",
        config,
        "--model.init_from",
        pretrained,
        "--data.block_size=31",
        "--model.backbone.block.dropout=0.01",
    )
    result = call(capsys, "fit", *args)
    assert result.code == 0, result.err
    assert (
        f"started from '{pretrained}': 32 tensors with 260,032 parameters loaded; none new, none dropped" in result.err
    )
    (run,) = run_folders(tmp_path)
    assert losses(run)[0] < 2.5  # ln 512 is 6.2
    settings = weights(run)["hyper_parameters"]["backbone"]["init_args"]
    assert (settings["block_size"], settings["attention"]["init_args"]["n_kv_head"]) == (512, 4)
    assert settings["block"]["init_args"]["dropout"] == 0.01
    shutil.rmtree(pretrained)
    for again in (("-c", run / "config.yaml"), args):
        result = call(
            capsys, "fit", *again, "--ckpt_path=last", f"--trainer.max_steps={4 + len(run_folders(tmp_path))}"
        )
        assert result.code == 0, result.err
        assert "started from" not in result.err
    assert weights(run_folders(tmp_path)[-1])["global_step"] == 6
    assert call(capsys, "validate", "-c", run / "config.yaml", "--ckpt_path=best").code == 0
    assert call(capsys, "generate", "--checkpoint", run, "--prompt", "Once", "--max_new_tokens=5").out.startswith(
        "Once"
    )


def test_what_stands_later_wins(tmp_path, capsys, pretrained) -> None:
    """An option beats the source, which beats the files; a file keeps what it says beside init_from."""
    config = write_tiny(tmp_path)
    shown = printed(
        call(capsys, "fit", "-c", config, "--model.init_from", pretrained, "--data.tokenizer=Bytes", "--print_config")
    )
    assert shown["model"]["init_args"]["backbone"]["init_args"]["n_layer"] == 5
    assert shown["data"]["init_args"]["tokenizer"]["class_path"] == "lit_llm.data.tokenizer.Bytes"
    own = write_yaml(tmp_path / "own.yaml", {"model": {"init_args": {"init_from": str(pretrained)}}})
    shown = printed(call(capsys, "fit", "-c", config, "-c", own, "--print_config"))
    assert shown["model"]["init_args"]["backbone"]["init_args"]["vocab_size"] == 512
    assert shown["data"]["init_args"]["tokenizer"]["init_args"] == {"source": str(pretrained)}


def test_from_a_checkpoint_of_ours(tmp_path, capsys) -> None:
    """All of it, since the same class has written it; the first weights are the last of the other run."""
    config = write_tiny(tmp_path)
    assert call(capsys, "fit", "-c", config).code == 0
    (run,) = run_folders(tmp_path)
    result = call(
        capsys, "fit", "-c", config, "--model.init_from", run / "checkpoints" / "last.ckpt", "--trainer.max_steps=0"
    )
    assert result.code == 0, result.err
    assert same(
        GPT.from_pretrained(str(run)).state_dict(),
        GPT.from_pretrained(str(run / "checkpoints" / "best.ckpt")).state_dict(),
    )
    assert "none new, none dropped" in result.err


def test_the_published_text(capsys, shared) -> None:
    """The 464 characters that llama2.c publishes, by the plain command."""
    folder = shared / "weights" / "stories260K"
    wanted = json.loads((folder / "expected.json").read_text())["published"]["greedy_200_tokens_from_bos"]
    result = call(capsys, "generate", "--checkpoint", folder / "hf", "--temperature=0", "--max_new_tokens=200")
    assert len(wanted) == 464
    assert result.out.strip().startswith(wanted)
    assert len(result.out.strip()) <= len(wanted) + 4  # one token more than the published 199


def test_a_model_without_a_tokenizer(tmp_path, capsys, shared) -> None:
    """It reads and writes ids, and trains with a tokenizer that the user names; one to be learned is refused."""
    folder = shared / "weights" / "gpt-nano-sort" / "hf"
    for prompt, reason in (
        ("", "the prompt is empty"),
        ("sort", "'sort' is no id"),
        ("0 3", "numbers from 0 to 2 with"),
    ):
        assert reason in refusal(call(capsys, "generate", "--checkpoint", folder, f"--prompt={prompt}"))
    config, start = write_tiny(tmp_path), ("--model.init_from", folder)
    said = refusal(call(capsys, "fit", "-c", config, *start, "--data.tokenizer=Characters"))
    assert "would be learned from the text: name the one by --data.tokenizer" in said
    assert "the tokenizer has 257 ids and the backbone embeds 3" in refusal(call(capsys, "fit", "-c", config, *start))


def test_gpt_nano_sorts(tmp_path, capsys, shared) -> None:
    """The published logits, and all 729 inputs sorted by the plain command."""
    folder = shared / "weights" / "gpt-nano-sort"
    published = json.loads((folder / "gpt-nano-sort-t0-partials.json").read_text())

    def tensor(name: str) -> torch.Tensor:
        flat = torch.frombuffer(bytearray(base64.b64decode(published[name]["data"])), dtype=torch.float32)
        return flat.view(published[name]["shape"])

    idx, wanted = tensor("idx").long(), tensor("lm_head").double()
    with torch.no_grad():
        # In fp64: fp32 differs by up to 2e-6 between CPUs.
        logits = GPT.from_pretrained(str(folder / "hf"), torch.float64)(idx)
    torch.testing.assert_close(logits, wanted, rtol=0, atol=2e-6)

    # The last of 12 numbers is drawn and not read: the model has 11 positions.
    inputs = [*product(range(3), repeat=6)]
    (tmp_path / "inputs.txt").write_text("".join(" ".join(map(str, row)) + "\n" for row in inputs))
    options = ("--prompts", tmp_path / "inputs.txt", "--batch_size=128", "--logprobs=true")
    result = call(capsys, "generate", "--checkpoint", folder / "hf", "--temperature=0", "--max_new_tokens=6", *options)
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line["ids"] for line in lines] == [sorted(row) for row in inputs]
    assert lines[1]["text"] == " 0 0 0 0 0 1"
    logprobs = {tuple(map(int, line["prompt"].split())): line["logprobs"] for line in lines}
    for row, likely in zip(idx.tolist(), wanted.log_softmax(-1).max(-1).values, strict=True):
        # What was published goes on with the numbers that follow, as long as they are those that the model draws.
        same = 1 + next(n for n, (a, b) in enumerate(zip([*row[6:], None], sorted(row[:6]), strict=True)) if a != b)
        assert logprobs[tuple(row[:6])][:same] == pytest.approx(likely[5 : 5 + same].tolist(), rel=0, abs=2e-6)


def test_refusals(tmp_path, capsys, pretrained) -> None:
    """One sentence each, before any text is read."""
    config = write_tiny(tmp_path)
    start = ("fit", "-c", config, "--model.init_from")
    assert "there is no checkpoint, run folder or folder of a model" in refusal(call(capsys, *start, tmp_path / "no"))
    said = refusal(call(capsys, *start, pretrained, "--model.backbone.n_layer=6"))
    assert "do not fit the model; missing is model.layers.5." in said
    long = call(capsys, *start, pretrained, "--data.block_size=513")
    assert "--data.block_size 513 is beyond the backbone's block_size 512" in refusal(long)
    (pretrained / "model.safetensors").write_bytes((pretrained / "model.safetensors").read_bytes()[:-10])
    assert "is damaged or was cut short" in refusal(call(capsys, *start, pretrained))
    config_json = json.loads((pretrained / "config.json").read_text())
    (pretrained / "config.json").write_text(json.dumps(config_json | {"model_type": "mamba"}))
    assert "the config's model_type is 'mamba'; known are" in refusal(call(capsys, *start, pretrained))
