"""Every command block of the README is run, or parsed by the parser that would run it."""

import io
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
FIT = [line for line in LINES if re.match(r"lit-llm (fit|validate|bench|plan|data show) ", line)]


def test_there_are_commands() -> None:
    assert len(FIT) >= 10
    assert {line.split()[0] for line in LINES} == {"make", "lit-llm", "tensorboard", "python"}


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
    """The tokenizer, generate, export, benchmark and classify commands, on a small text and a run of two steps."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "one.txt").write_text("It was a bright cold day in April. " * 200, encoding="utf-8")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))  # empty: GPT-2's encoding is not there to compare with
    tokenizer, generate, export, classify = (
        next(line for line in LINES if line.startswith(f"lit-llm {name}"))
        for name in ("tokenizer", "generate --checkpoint logs/pretrain", "export", "classify")
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
    shape = ["--rounds=1", "--n_layer=2", "--n_embd=24", "--block_size=8", "--batch_size=2"]
    for name, own, told in (("quality", [], "| `int8` | "), ("freezing", shape, "| `trainable last_1_blocks` | ")):
        script, *args = shlex.split(next(line for line in LINES if line.startswith(f"python benchmarks/{name}")))[1:]
        done = subprocess.run([sys.executable, ROOT / script, *args, *own], check=True, capture_output=True, text=True)
        assert told in done.stdout
    short = (
        "--data.source sample --data.block_size 8 --trainer.max_steps 1 --trainer.val_check_interval 1 "
        "--trainer.accelerator cpu --test_best false"
    )
    assert main(["fit", "--config", "configs/classify_spam.yaml", *short.split()]) == 0
    capsys.readouterr()
    assert main(shlex.split(classify)[1:]) == 0
    assert capsys.readouterr().out.count("\t") == 2


def test_chats_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each as it stands, with a message on stdin, on a run of one step."""
    monkeypatch.chdir(tmp_path)
    tiny = "--data.source sample --data.tokenizer.vocab_size 300 --data.batch_size 1 --trainer.max_steps 1"
    options = [*tiny.split(), "--trainer.accelerator", "cpu", "--trainer.limit_val_batches", "1"]
    assert main(["fit", "--config", "configs/instruct_alpaca.yaml", *options]) == 0
    chats = [line for line in LINES if line.startswith("lit-llm chat ") or "--chat true" in line]
    assert len(chats) >= 3
    for line in chats:
        monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n"))
        capsys.readouterr()
        assert main([*shlex.split(line)[1:], "--max_new_tokens", "5"]) == 0
        assert capsys.readouterr().out.endswith("\n")


def test_sweep_and_compare_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sweep as far as its list of jobs, of which one is run as shown, only shorter; then the comparison."""
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(ROOT)
    sweep, compare = (
        next(line for line in LINES if line.startswith(f"lit-llm {name}")) for name in ("sweep", "compare")
    )
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "one.txt").write_text("It was a bright cold day in April. " * 200, encoding="utf-8")
    assert main([*shlex.split(sweep)[1:], "--print_jobs", "true"]) == 0
    job = capsys.readouterr().out.splitlines()[0]
    monkeypatch.chdir(tmp_path)
    tiny = "--data.tokenizer Bytes --data.block_size 8 --trainer.max_steps 2 --trainer.val_check_interval 2"
    assert main([*shlex.split(job)[1:], *tiny.split(), "--trainer.accelerator", "cpu"]) == 0
    capsys.readouterr()
    assert main(shlex.split(compare)[1:]) == 0
    assert (tmp_path / "parts.png").exists()


def test_data_show_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On samples that need no download, as they stand."""
    monkeypatch.chdir(tmp_path)
    shown = [line for line in LINES if line.startswith("lit-llm data show")]
    for line in shown:
        assert main(shlex.split(line)[1:]) == 0
    out = capsys.readouterr().out
    assert "⟦" in out
    assert "· class " in out
    assert "</html>" in (tmp_path / "data.html").read_text(encoding="utf-8")


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
