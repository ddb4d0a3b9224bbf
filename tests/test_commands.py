"""The program as a whole: exit codes, streams, terminals, places to run it from (L1, L2, L4, L5, L8, L9)."""

import inspect
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cli_runs import ROOT, call, printed, refusal, run_folders, spawn, wait_for, weights, write_tiny

from lit_llm.__main__ import COMMANDS, main
from lit_llm.backbone import GPT
from lit_llm.data.pretraining import Pretraining
from lit_llm.modules import LanguageModeling
from lit_llm.terminal import typed

POOR = {"TERM": "dumb", "COLUMNS": "20", "NO_COLOR": "1", "LC_ALL": "C"}
CRASH = "Traceback|BrokenPipe|Exception ignored"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, under a name of 250 characters: spaces, an equals sign, letters beyond ASCII."""
    folder = tmp_path_factory.mktemp("a = b é")
    name = "run = é ".ljust(248, "x")  # é has two bytes: 249 of the 255 that a file system gives a name
    options = ["--trainer.max_steps=2", f"--trainer.logger.name={name}"]
    assert main(["fit", "-c", str(write_tiny(folder)), *options]) == 0
    return run_folders(folder, name)[0]


# Exit codes


@pytest.mark.parametrize(("name", "code"), [pytest.param("SIGINT", 130, marks=pytest.mark.slow), ("SIGTERM", 143)])
def test_a_run_that_is_stopped(tmp_path, name, code) -> None:
    """L1, T1, T2: its code tells how, without a traceback, and the last checkpoint is whole.

    In a terminal of 20 columns that can do nothing, in a locale without letters beyond ASCII, with such a path.
    """
    folder = tmp_path / "a = b é"
    folder.mkdir()
    options = ("--trainer.max_steps=-1", "--trainer.val_check_interval=10", "--trainer.enable_progress_bar=true")
    process = spawn("fit", "-c", write_tiny(folder), *options, env=POOR, cwd=tmp_path)
    wait_for(process, lambda: list(folder.glob("logs/tiny/*/checkpoints/last.ckpt")))
    process.send_signal(signal.Signals[name])
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert not re.search(CRASH, err), err
    assert "deprecated" not in err  # of what a library does, and its user cannot change
    assert "`weights_only`" not in err  # as above
    assert weights(run_folders(folder)[0])["global_step"] >= 10


def test_codes_of_processes(tmp_path) -> None:
    """L1: 0 done, 2 wrong usage with nothing on stdout; of `python -m lit_llm` and of the console script."""
    script = Path(sys.executable).with_name("lit-llm")
    programs = [[sys.executable, "-m", "lit_llm"], *([[str(script)]] if script.exists() else [])]
    for program in programs:
        done = subprocess.run([*program, "--version"], capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert re.fullmatch(r"lit-llm \d+\.\d+\.\d+\S*\n", done.stdout)
        done = subprocess.run([*program, "fti"], capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "lit-llm: error: there is no command 'fti'; did you mean 'fit'?\n"


# Help


@pytest.mark.parametrize("option", ["--help", "--version", "-h"])
def test_help_is_quick(option) -> None:
    """L9: well below a second of work, and without torch."""
    code = f"import sys; from lit_llm.__main__ import main; main(['{option}']); sys.exit('torch' in sys.modules)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1


def test_help_names_every_command(capsys) -> None:
    """Also without any argument; a line each."""
    shown = call(capsys, "--help")
    assert shown == call(capsys)
    assert [line.split()[0] for line in re.findall(r"^  \w+ .+$", shown.out, re.M)] == list(COMMANDS)


def words(text: str) -> str:
    """A text in one line, however it was wrapped."""
    return re.sub(r"\s+", " ", text)


def arguments(cls: Any) -> Iterator[str]:
    """Meanings of the arguments, from the docstring of a class."""
    part = re.search(r"Args:\n(.*?)(\n\n|\Z)", inspect.cleandoc(cls.__doc__), re.S)
    assert part is not None
    for argument in re.split(r"\n    (?=[*\w]+: )", f"\n{part[1]}")[1:]:
        if not argument.startswith("**"):  # those of the base class
            yield words(argument.partition(": ")[2]).strip()


def named_in_the_readme() -> set[str]:
    return set(re.findall(r"^lit-llm (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.M))


def test_the_readme_names_commands() -> None:
    assert {"fit", "validate", "generate", "tokenizer"} <= named_in_the_readme() <= COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command, capsys) -> None:
    """It shows its options, each with its meaning."""
    result = call(capsys, command, "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"usage: lit-llm {command}")
    options = {
        "bench": "optimizer steps to time",
        "data": "what the model is really trained on",
        "plan": "share of the peak that the run will reach",
        "compare": "a row, a run folder, or a baseline beside the runs",
        "sweep": "file of variants (named, with options and overlays) and axes",
        "generate": "0 is greedy, 1 samples as trained",
        "classify": "texts that are read and answered at once",
        "chat": "what the assistant is told before the conversation",
        "export": "whether a model in the folder is replaced",
        "tokenizer": "ids in all, special tokens included",
        "fit": "Path to a configuration file in json or yaml format",
    }
    assert options.get(command, "--ckpt_path") in words(result.out)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (LanguageModeling, ("--model.help=LanguageModeling",)),
        (Pretraining, ("--data.help=Pretraining",)),
        (GPT, ("--model=LanguageModeling", "--model.backbone.help=lit_llm.GPT")),
    ],
)
def test_help_of_a_class_is_its_docstring(cls, options, capsys, monkeypatch) -> None:
    """Each argument's meaning, as it stands in the code."""
    monkeypatch.setenv("COLUMNS", "200")
    shown = words(call(capsys, "fit", *options).out)
    linked = ("Tokens V that the tokenizer knows.", "Longest input in tokens; rows")  # the data says these
    for meaning in arguments(cls):
        assert meaning.rstrip(".") in shown or meaning.startswith(linked), meaning


# Streams and terminals


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["tokenizer", "train", "--help"], ["generate"]])
def test_a_reader_that_has_left(run, arguments) -> None:
    """L4: as in `| head -1`: no traceback, and no failure."""
    reader, writer = os.pipe()
    os.close(reader)
    if arguments == ["generate"]:
        arguments = ["generate", "--checkpoint", str(run), "--prompt=the", "--num_samples=9"]
    process = spawn(*arguments, stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")


def test_narrow_terminal(capsys, monkeypatch) -> None:
    """L4: 20 columns are wrapped, not refused."""
    for name, value in POOR.items():
        monkeypatch.setenv(name, value)
    shown = call(capsys, "generate", "--help")
    assert shown.code == 0
    assert "Draw among the k best tokens".lower() in words(shown.out).lower()
    assert "\x1b" not in shown.out


@pytest.mark.slow
def test_poor_locale(run) -> None:
    """L5: a prompt beyond ASCII, where Python itself is kept from using UTF-8; what cannot be shown is replaced."""
    env = {**POOR, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    options = ("--checkpoint", run.name, "--prompt=café", "--seed=1", "--max_new_tokens=3")
    process = spawn("generate", *options, env=env, cwd=run.parent)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("caf?")


def test_a_text_that_was_taken_for_ascii() -> None:
    """L5: its bytes are read as UTF-8; those that are none stay, and so does a text that was whole."""
    for text, meant in (
        ("caf\udcc3\udca9", "café"),
        ("caf\udce9", "caf\udce9"),
        ("café", "café"),
        ("\ud83d", "\ud83d"),
    ):
        assert typed(text) == meant


# Places


def test_odd_paths(run, capsys) -> None:
    """L5: the folder of a run is found again by what the options say, and as a path with an equals sign."""
    last = run / "checkpoints" / "last.ckpt"
    result = call(capsys, "validate", "-c", run / "config.yaml", "--ckpt_path=last")
    assert result.code == 0
    assert result.err.startswith(f"validate with the checkpoint {last}\n")
    for path in (run, last):
        assert call(capsys, "generate", f"--checkpoint={path}", "--prompt=the", "--seed=1").out.startswith("the")


def test_configs_are_found_from_everywhere(tmp_path, capsys) -> None:
    """L8: those of the package, also behind an equals sign; a file of that name where one works comes first."""
    args = ("--model.backbone=configs/backbone/llama_nano.yaml", "-c", "configs/overlays/muon.yaml", "--print_config")
    shown = printed(call(capsys, "fit", "--config=configs/pretrain.yaml", *args))
    assert shown["model"]["init_args"]["backbone"]["init_args"]["norm"]["class_path"] == "torch.nn.RMSNorm"
    assert shown["model"]["init_args"]["optimizer"]["class_path"] == "lit_llm.training.optim.MuonAdamW"
    assert "'configs/nowhere.yaml'" in refusal(call(capsys, "fit", "-c", "configs/nowhere.yaml"))
    (tmp_path / "configs").mkdir()
    shutil.copy(write_tiny(tmp_path), tmp_path / "configs" / "pretrain.yaml")
    shown = printed(call(capsys, "fit", "-c", "configs/pretrain.yaml", "--print_config"))
    assert shown["trainer"]["logger"]["init_args"]["name"] == "tiny"


@pytest.mark.slow
def test_wheel(tmp_path) -> None:
    """L8: what is installed holds the configs, and trains with them from a folder in which there is nothing."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling, which builds the wheel, is not installed")
    build = ["wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(tmp_path), str(ROOT)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (wheel,) = tmp_path.glob("lit_llm-*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    names = {path.name for path in (tmp_path / "site").iterdir() if path.suffix != ".dist-info"}
    assert names == {"lit_llm"}
    here = tmp_path / "here"
    shutil.copytree(write_tiny(tmp_path).parent, here, ignore=lambda *_: ["site", "here", wheel.name, "tiny.yaml"])
    options = ("--data.source=text.txt", "--data.tokenizer=Bytes", "--data.block_size=16", "--trainer.max_steps=1")
    own = {"PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}
    process = spawn("fit", "-c", "configs/pretrain.yaml", *options, "--trainer.accelerator=cpu", cwd=here, env=own)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert (here / "logs/pretrain/version_0/checkpoints/last.ckpt").exists()
    where = "import lit_llm; print(lit_llm.__file__)"
    env = os.environ | own
    found = subprocess.run([sys.executable, "-c", where], env=env, capture_output=True, text=True, cwd=here).stdout
    assert found.startswith(str(tmp_path / "site"))
