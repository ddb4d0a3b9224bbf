"""--data.new_tokens by the command line: a backbone that grows, goes on, is a source again, and goes out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runs import call, refusal, run_folders, tiny_config, weights, write_tiny, write_yaml

from lit_llm import GPT
from lit_llm.data.pretrained import tokenizer_of_source

NEW = '--data.new_tokens=["<|im_start|>","<|im_end|>"]'
IDX = torch.arange(14).view(2, 7)


@pytest.fixture
def base(tmp_path: Path, capsys: Any) -> Path:
    """A run of language modelling on bytes: 257 ids, a padded table of 264 rows."""
    config = tiny_config(tmp_path)
    config["model"]["init_args"]["backbone"]["init_args"]["vocab_multiple"] = 8
    config["data"]["init_args"]["block_size"] = 31
    write_tiny(tmp_path)
    assert call(capsys, "fit", "-c", write_yaml(tmp_path / "tiny.yaml", config)).code == 0
    return run_folders(tmp_path)[0]


def write_instructions(folder: Path) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": f"{i}"}, {"role": "assistant", "content": "y"}]} for i in range(40)
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "short.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role[0] }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>a\n{% endif %}"
    )
    config = tiny_config(folder)
    config["trainer"]["logger"]["init_args"]["name"] = "tuned"
    config["model"]["class_path"] = "lit_llm.modules.InstructionTuning"
    config["data"] = {
        "class_path": "lit_llm.data.instructions.Instructions",
        "init_args": {
            "source": str(folder / "rows.json"),
            "tokenizer": {"class_path": "lit_llm.data.tokenizer.Bytes"},
            "template": str(folder / "short.jinja"),
            "block_size": 31,
            "batch_size": 2,
            "val_fraction": 0.2,
        },
    }
    return write_yaml(folder / "tuned.yaml", config)


def test_a_backbone_grows_goes_on_and_goes_out(tmp_path: Path, base: Path, capsys: Any) -> None:
    """The architecture of the run has the new size; transformers loads its export with equal logits and ids."""
    start = ("fit", "-c", write_instructions(tmp_path), "--model.init_from", base, NEW)
    result = call(capsys, *start, "--model.optimizer.lr=1e-9")
    assert result.code == 0, result.err
    (run,) = run_folders(tmp_path, "tuned")
    grown, old = GPT.from_pretrained(str(run)), GPT.from_pretrained(str(base))
    assert (grown.vocab_size, old.vocab_size) == (259, 257)
    with torch.no_grad():
        before, after = old(IDX), grown(IDX)
    # Four steps of 1e-9 change nothing that fp32 can see.
    torch.testing.assert_close(after[..., :257], before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after[..., 257:], before.mean(-1, keepdim=True).expand(-1, -1, 2), rtol=1e-4, atol=1e-5)
    tokenizer = tokenizer_of_source(str(run))
    assert tokenizer.special_ids == {"<|endoftext|>": 256, "<|im_start|>": 257, "<|im_end|>": 258}
    assert tokenizer.ends == {256, 258}

    for again in (start, ("fit", "-c", run / "config.yaml")):
        steps = f"--trainer.max_steps={5 + len(run_folders(tmp_path, 'tuned'))}"
        result = call(capsys, *again, "--ckpt_path=last", steps, "--model.optimizer.lr=1e-9")
        assert result.code == 0, result.err
    assert weights(run_folders(tmp_path, "tuned")[-1])["global_step"] == 7

    result = call(capsys, *start[:3], "--model.init_from", run, NEW, "--trainer.max_steps=0")
    assert result.code == 0, result.err  # given again, nothing is new

    exported(run, tmp_path / "out", grown, capsys)


def exported(run: Path, out: Path, backbone: GPT, capsys: Any) -> None:
    transformers = pytest.importorskip("transformers")
    assert call(capsys, "export", "--checkpoint", run / "checkpoints" / "best.ckpt", "--out", out).code == 0
    assert json.loads((out / "config.json").read_text())["vocab_size"] == 259
    model = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    with torch.no_grad():
        # Two programs, fp32 sums in another order.
        torch.testing.assert_close(model(IDX).logits, backbone(IDX), rtol=1e-4, atol=1e-5)
    assert theirs.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]) == [257, 258]
    talk = [{"role": "user", "content": "hi"}]
    ids = theirs.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
    assert ids == [257, *b"u\nhi", 258, *b"\n", 257, *b"a\n"]
    assert model.generation_config.eos_token_id == [256, 258]
    assert tokenizer_of_source(str(out)).special_ids["<|im_end|>"] == 258


def test_growing_has_to_be_asked_for(tmp_path: Path, base: Path, capsys: Any) -> None:
    """Data of more ids is refused as before, and so is a token that is there already."""
    config = write_instructions(tmp_path)
    start = ("fit", "-c", config, "--model.init_from", base)
    said = refusal(call(capsys, *start, "--data.new_tokens=[<|endoftext|>]"))
    assert "the tokenizer has a token '<|endoftext|>' already" in said
    file = tmp_path / "more.yaml"
    write_yaml(file, {"model": {"init_args": {"backbone": {"init_args": {"vocab_size": 300}}}}})
    result = call(capsys, "fit", "-c", config, "-c", file, "--model.init_from", base, "--model.backbone.vocab_size=300")
    assert "of another shape" in refusal(result)


def test_an_adapter_alone_has_no_rows_for_new_tokens(tmp_path: Path, base: Path, capsys: Any) -> None:
    """Refused: its folder could not be opened."""
    start = ("fit", "-c", write_instructions(tmp_path), "--model.init_from", base, NEW, "--model.lora.rank=2")
    assert call(capsys, *start).code == 0
    (run,) = run_folders(tmp_path, "tuned")
    said = refusal(call(capsys, "export", "--format=adapter", "--checkpoint", run, "--out", tmp_path / "out"))
    assert "has rows for 2 tokens that its base" in said
    assert not (tmp_path / "out").exists()
