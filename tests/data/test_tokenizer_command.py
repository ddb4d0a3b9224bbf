"""`lit-llm tokenizer train`: the file it writes, what it says of it, and what it refuses."""

import json
import re
from pathlib import Path

import pytest
from cli_runs import call, refusal, write_text

from lit_llm.data.bpe import END_OF_TEXT, Tiktoken, TokenizerFile


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_text(tmp_path / "text.txt")


def ratio(out: str, name: str) -> float:
    found = re.search(rf"^{name} +([\d.]+) bytes per token", out, re.MULTILINE)
    assert found, out
    return float(found[1])


def test_it_writes_a_tokenizer_and_says_how_well_it_compresses(text: Path, gpt2: Tiktoken, capsys) -> None:
    """With GPT-2's tokenizer beside it; the file serves TokenizerFile, in a folder that was not there."""
    out = text.parent / "a folder" / "mine.json"
    result = call(capsys, "tokenizer", "train", "--source", text, "--vocab_size", 290, "--out", out)
    assert result.code == 0, result.err
    tokenizer, content = TokenizerFile(str(out)), text.read_text()
    assert f"{out}: 290 ids" in result.out
    assert tokenizer.vocab_size == 290
    for name, used in {"this tokenizer": tokenizer, "gpt2": gpt2}.items():
        assert ratio(result.out, name) == pytest.approx(len(content) / len(used.encode(content)), abs=5e-4)


def test_without_a_network_it_does_without_gpt2(text: Path, unreachable: Path, capsys) -> None:
    """L7: it says so, and is done."""
    result = call(capsys, "tokenizer", "train", "--source", text, "--vocab_size", 300)
    assert result.code == 0, result.err
    assert Path("tokenizer.json").exists()
    assert ratio(result.out, "this tokenizer") > 1
    assert "gpt2             not compared: the encoding 'gpt2' is not cached" in result.out


def test_special_tokens_and_other_readings(tmp_path: Path, unreachable: Path, capsys) -> None:
    """Each once, and the end of a text among them; the corpus may be several sources, of another field."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"body": f"the {name} text"}) + "\n")
    options = ["--special_tokens", f'["<|user|>", "<|bot|>", "{END_OF_TEXT}"]', "--reading.text_field", "body"]
    sources = json.dumps([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    result = call(capsys, "tokenizer", "train", "--source", sources, "--vocab_size", 262, *options)
    assert result.code == 0, result.err
    tokenizer = TokenizerFile("tokenizer.json")
    assert tokenizer.encoding._special_tokens == {END_OF_TEXT: 259, "<|user|>": 260, "<|bot|>": 261}


def test_a_text_that_gives_no_more(tmp_path: Path, unreachable: Path, capsys) -> None:
    (tmp_path / "small.txt").write_text("abab")
    result = call(capsys, "tokenizer", "train", "--source", tmp_path / "small.txt", "--vocab_size", 5000)
    assert re.search(r"^the text gives no more than 2\d\d ids$", result.out, re.MULTILINE)


def test_its_help_needs_no_text(capsys) -> None:
    for args in (["--help"], ["train", "--help"], ["-h"]):
        result = call(capsys, "tokenizer", *args)
        assert (result.code, result.err) == (0, "")
        assert "--vocab_size" in result.out


REFUSED = {
    ("tokenizer",): "tokenizer has one action, 'train', not ''",
    ("tokenizer", "learn"): "tokenizer has one action, 'train', not 'learn'",
    ("tokenizer", "train"): "--source must be given",
    ("tokenizer", "train", "--source", "text.txt", "--vocab_sise", "300"): "did you mean '--vocab_size'?",
    ("tokenizer", "train", "--source", "missing.txt"): "'missing.txt' does not exist",
    (
        "tokenizer",
        "train",
        "--source",
        "text.txt",
        "--vocab_size",
        "256",
    ): "vocab_size 256 has no room for the 256 bytes",
    ("tokenizer", "train", "--source", "text.txt", "--vocab_size", "258", "--special_tokens", '["<|a|>", "<|b|>"]'): (
        "vocab_size 258 has no room for the 256 bytes and 3 special tokens"
    ),
    (
        "tokenizer",
        "train",
        "--source",
        "text.txt",
        "--special_tokens",
        '["the"]',
    ): "the special token 'the' is an ordin",
    ("tokenizer", "train", "--source", "empty.txt"): "the corpus 'empty.txt' holds no text",
    ("tokenizer", "train", "--source", "bad.jsonl"): "'bad.jsonl' line 1 is no JSON",
    ("tokenizer", "train", "--source", "text.txt", "--out", "text.txt/x.json"): "cannot write 'text.txt/x.json'",
    ("tokenizer", "train", "--source", "text.txt", "--reading.encoding", "utf-16"): "'text.txt' is not utf-16",
    ("tokenizer", "train", "--source", "text.txt", "--reading.max_documents", "0"): "max_documents 0 cannot be",
}


@pytest.mark.parametrize("args", REFUSED, ids=lambda args: " ".join(args[2:]) or args[-1])
def test_what_it_refuses(text: Path, capsys, args: tuple[str, ...]) -> None:
    """L3, D5: one sentence, exit code 2, and no file."""
    Path("empty.txt").touch()
    Path("bad.jsonl").write_text('{"text": "cut sh')
    assert REFUSED[args] in refusal(call(capsys, *args))
    assert not Path("tokenizer.json").exists()
