"""Every command block of the README is run, or parsed by the parser that would run it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_gpt2 import write_gpt2

from lit_llm.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", README, re.S)
LINES = [line for kind, block in BLOCKS if kind == "bash" for line in block.strip().splitlines()]
FIT = [line for line in LINES if re.match(r"lit-llm (fit|validate|bench|plan) ", line)]


def test_there_are_commands() -> None:
    assert len(FIT) >= 10
    assert {line.split()[0] for line in LINES} == {"make", "lit-llm", "tensorboard"}


@pytest.mark.parametrize("line", FIT)
def test_fit_commands_parse(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is accepted as it stands: files exist, options are real, classes can be imported; weights are tiny ones."""
    monkeypatch.chdir(ROOT)
    if "--model.init_from" in line:
        line = re.sub(r"(?<=--model.init_from )\S+", str(write_gpt2(tmp_path / "gpt2")), line)
    with pytest.raises(SystemExit) as stop:
        main([*shlex.split(line)[1:], "--print_config"])
    assert stop.value.code == 0, capsys.readouterr().err


def test_targets_exist() -> None:
    targets = re.findall(r"^([a-z.]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert {line.split()[1] for line in LINES if line.startswith("make ")} <= set(targets)


def test_other_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tokenizer, generate and export commands, on a small text and a run of two steps."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "one.txt").write_text("It was a bright cold day in April. " * 200, encoding="utf-8")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))  # empty: GPT-2's encoding is not there to compare with
    tokenizer, generate, export = (
        next(line for line in LINES if line.startswith(f"lit-llm {name}"))
        for name in ("tokenizer", "generate", "export")
    )
    assert main(shlex.split(tokenizer)[1:]) == 0
    assert "bytes per token" in capsys.readouterr().out
    tiny = (
        "--data.source books --data.tokenizer Bytes --data.block_size 8 --trainer.max_steps 2 "
        "--trainer.val_check_interval 2 --trainer.accelerator cpu"
    )
    assert main(["fit", "--config", "configs/pretrain.yaml", *tiny.split()]) == 0
    capsys.readouterr()
    assert main(shlex.split(generate)[1:]) == 0
    assert capsys.readouterr().out.startswith("def ")
    assert main(shlex.split(export)[1:]) == 0
    assert (tmp_path / "exported" / "model.safetensors").exists()


def test_python_block_runs() -> None:
    code = next(block for kind, block in BLOCKS if kind == "python")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)


def test_named_things_exist() -> None:
    """Every path that the README names is there, and every command that the program has is shown by its help."""
    tree = README.partition("```\nlit_llm/\n")[2].partition("```")[0]
    for name in re.findall(r"(?<=  )[\w/]+(?:\.py|/)|^\w+/", tree, re.M):
        assert list(ROOT.glob(f"**/{name}")), name
    missing = [path.name for path in (ROOT / "lit_llm").rglob("[a-z]*.py") if path.parent.name in ("data", "backbone")]
    assert not [name for name in missing if name not in (*re.findall(r"\w+\.py", tree), "base.py", "command.py")]
    for path in re.findall(r"`((?:configs|experiments)/[\w./]+)`", README):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`(\w+\.yaml)`", README):
        assert list(ROOT.rglob(f"configs/**/{name}")) or name == "config.yaml", name
    assert {line.split()[1] for line in LINES if line.startswith("lit-llm")} <= COMMANDS.keys()
