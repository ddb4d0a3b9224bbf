"""Config files, overlays, environment and options: what is read, in which order, what is refused (C1-C8, C12-C19)."""

import time
from pathlib import Path

import pytest
from cli_runs import call, printed, refusal, write_tiny, write_yaml

import lit_llm.cli  # noqa: F401 (so that no test pays for what it imports)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("run"))


WRONG_KEYS = {
    "modle: {x: 3}": "'modle.x'; did you mean 'model.x'?",
    "trainer: {max_step: 3}": "'trainer.max_step'; did you mean 'trainer.max_steps'?",
    "model: {init_args: {bakbone: 3}}": "'model.bakbone'; did you mean 'model.backbone'?",
    "model: {init_args: {backbone: {init_args: {n_heads: 3}}}}": "did you mean 'model.backbone.n_head'?",
    "model: {init_args: {optimizer: {init_args: {weight_dcay: 3}}}}": "did you mean 'model.optimizer.weight_decay'?",
    "data: {init_args: {bacth_size: 3}}": "'data.bacth_size'; did you mean 'data.batch_size'?",
    "data: {init_args: {reading: {encodin: x}}}": "did you mean 'data.reading.encoding'?",
    "trainer: {logger: {init_args: {nam: x}}}": "did you mean 'trainer.logger.name'?",
    "logger: {init_args: {name: x}}": "did you mean 'trainer.logger",
}


@pytest.mark.parametrize("overlay", WRONG_KEYS)
def test_wrong_key_in_a_file(config, tmp_path, capsys, overlay) -> None:
    """C2: a key that nothing has is refused, and the nearest right one is named."""
    said = refusal(call(capsys, "fit", "--config", config, "--config", write_yaml(tmp_path / "o.yaml", overlay)))
    assert said.startswith("there is no option '")
    assert WRONG_KEYS[overlay] in said


WRONG_OPTIONS = {
    "--trainer.max_step=3": "'--trainer.max_step'; did you mean '--trainer.max_steps'?",
    "--trainer.max_ep=3": "'--trainer.max_ep'; did you mean '--trainer.max_epochs'?",  # no abbreviations
    "--max_steps=3": "did you mean '--trainer.max_steps'?",
    "--modle.backbone.n_head=3": "did you mean '--model.backbone.n_head'?",
    "--model.dimm=3": "'model.dimm'; 'model' has backbone, loss, optimizer, lr_scheduler, trainable",
    "--model.backbone.n_heads=3": "did you mean 'model.backbone.n_head'?",
    "--data.reading.encodin=latin-1": "did you mean 'data.reading.encoding'?",  # nor in a dataclass
    "--confg=x.yaml": "did you mean '--config'?",
    "stray": "'stray'",
}


@pytest.mark.parametrize("option", WRONG_OPTIONS)
def test_wrong_option(config, capsys, option) -> None:
    """C1: an option that nothing has is refused, and the nearest right one is named."""
    said = refusal(call(capsys, "fit", "--config", config, option))
    assert said.startswith("there is no option '")
    assert WRONG_OPTIONS[option] in said


WRONG_VALUES = {
    "--model.backbone.n_layer=abc": "'model.backbone.n_layer' must be int, not 'abc'",
    "--data.block_size=64.0": "'data.block_size' must be int, not '64.0'",
    "--trainer.max_steps=1.5": "'trainer.max_steps' must be int, not '1.5'",
    "--model.optimizer.lr=abc": "'model.optimizer.lr' must be float, not 'abc'",
    "--model.optimizer.lr=nan": "'model.optimizer.lr' must be float, not 'nan'",  # YAML spells it .nan
    "--trainer.precision=bf17": "'trainer.precision' must be one of",
    "--model=lit_llm.GPT": "'model' must be a subclass of BaseModule, which 'lit_llm.GPT' is not",
    "--data=lightning.LightningDataModule": "'data' must be a subclass of TextDataModule",  # nothing to link to
    "--model=LanguageModelling": "did you mean 'LanguageModeling'?",
    "--model.optimizer=torch.optim.AdamWW": "no class 'torch.optim.AdamWW'; did you mean 'torch.optim.AdamW'?",
    "--model=nowhere.Model": "'nowhere.Model', which is neither a file nor a class that can be imported",
    "--model.backbone=nope.yaml": "'model.backbone' is 'nope.yaml', which is neither a file nor a class",
    "--trainer=nope.yaml": "'trainer' is 'nope.yaml', which is no config file that can be read",
    "--trainer.max_steps": "--trainer.max_steps: expected one argument",
}


@pytest.mark.parametrize("option", WRONG_VALUES)
def test_wrong_value(config, capsys, option) -> None:
    """C3: the sentence names the option and quotes the value."""
    assert WRONG_VALUES[option] in refusal(call(capsys, "fit", "--config", config, option))


def test_what_is_missing_is_named(capsys) -> None:
    assert "--data and --model must be given" in refusal(call(capsys, "fit"))
    assert "--model.backbone must be given" in refusal(call(capsys, "fit", "--model=LanguageModeling"))


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)
)
BAD_FILES = {
    "empty": (b"", "is empty"),
    "only a comment": (b"# nothing\n", "is empty"),
    "list": (b"- a\n- b\n", "no mapping of keys to values"),
    "scalar": (b"hello", "no mapping of keys to values"),
    "binary": (bytes(range(256)), "no text in UTF-8"),
    "latin-1": ("a: é".encode("latin-1"), "no text in UTF-8"),
    "control character": (b"a: \x00", "is no YAML"),
    "tab": (b"trainer:\n\tmax_steps: 3\n", "line 2 column 1"),
    "key twice": (b"data:\n  block_size: 3\n  stride: 2\n  block_size: 4\n", "line 4 has the key 'block_size' a"),
    "template": (b"{{name}}: 3\n", "line 1 has a list or mapping as a key"),
    "too deep": (b"a: " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
    "a little too deep": (b"a: " + b"[" * 99 + b"1" + b"]" * 99, "nested too deeply"),
    "almost too deep": (b"- " + b"[" * 98 + b"1" + b"]" * 98, "no mapping of keys to values"),
    "bomb": (BOMB.encode(), "grows beyond 100,000 values"),
    "own ancestor": (b"a: &a [*a]\n", "grows beyond 100,000 values"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_file(tmp_path, capsys, kind) -> None:
    """C4-C7, C13: a file that would be misread is refused with its name, at once."""
    path = tmp_path / "bad.yaml"
    path.write_bytes(BAD_FILES[kind][0])
    begin = time.process_time()
    said = refusal(call(capsys, "fit", "--config", path))
    assert time.process_time() - begin < 2  # the bomb would take hours; reading takes milliseconds
    assert f"'{path}'" in said
    assert BAD_FILES[kind][1] in said


def test_missing_file_and_folder(tmp_path, capsys) -> None:
    """C4: the path and the reason are shown."""
    said = refusal(call(capsys, "fit", "-c", tmp_path / "no.yaml"))
    assert said == f"cannot read the config file '{tmp_path / 'no.yaml'}': No such file or directory"
    assert f"'{tmp_path}': Is a directory" in refusal(call(capsys, "fit", f"--config={tmp_path}"))


def test_files_that_a_file_or_an_option_names_are_checked_too(config, tmp_path, capsys) -> None:
    """A bomb may lie one reference further, a file may name itself."""
    bomb = write_yaml(tmp_path / "bomb.yaml", BOMB)
    task = write_yaml(tmp_path / "task.yaml", "trainer: bomb.yaml\n")
    for args in (["--config", task], ["--config", config, "--trainer", bomb], ["--config", config, f"--model={bomb}"]):
        assert f"'{bomb}' grows beyond" in refusal(call(capsys, "fit", *args))
    circle = write_yaml(tmp_path / "circle.yaml", "trainer: circle.yaml\n")
    assert "refers to itself" in refusal(call(capsys, "fit", "--config", circle))


def test_a_tokenizer_file_is_no_config(config, tmp_path, capsys) -> None:
    """However large: JSON that an option names is not looked into."""
    path = tmp_path / "tokenizer.json"
    path.write_text(f"[{'0, ' * 100_000}0]")
    said = refusal(call(capsys, "fit", "-c", config, "--data.tokenizer=TokenizerFile", f"--data.tokenizer.path={path}"))
    assert f"'{path}' is no byte-level BPE" in said


def test_python_tags_run_nothing(config, tmp_path, capsys) -> None:
    """C12: refused in a file with its line; on the command line a plain string."""
    marker = tmp_path / "executed"
    tag = f"!!python/object/apply:pathlib.Path.touch ['{marker}']"
    said = refusal(call(capsys, "fit", "-c", write_yaml(tmp_path / "t.yaml", f"trainer:\n  max_steps: {tag}\n")))
    assert "line 2 has the tag 'tag:yaml.org,2002:python/object/apply:pathlib.Path.touch'" in said
    assert "must be int" in refusal(call(capsys, "fit", "-c", config, f"--trainer.max_steps={tag}"))
    assert not marker.exists()


def test_number_without_a_point_is_a_float(config, tmp_path, capsys) -> None:
    """C8: YAML 1.1 reads 1e-4 as a string; here it is a number."""
    overlay = write_yaml(tmp_path / "o.yaml", "model: {init_args: {optimizer: {init_args: {lr: 1e-4, eps: 1e-9}}}}")
    optimizer = printed(call(capsys, "fit", "-c", config, "-c", overlay, "--print_config"))["model"]["init_args"]
    assert optimizer["optimizer"]["init_args"]["lr"] == 1e-4


def test_what_stands_later_wins(config, tmp_path, capsys, monkeypatch) -> None:
    """C14, C23: code < files from left to right < environment < options; an option before a file is weaker than it."""
    first = write_yaml(tmp_path / "1.yaml", "trainer: {max_steps: 11, min_steps: 11, max_epochs: 11, min_epochs: 11}")
    second = write_yaml(tmp_path / "2.yaml", "trainer: {max_steps: 12, min_steps: 12, max_epochs: 12}")
    monkeypatch.setenv("PL_FIT__TRAINER__MAX_STEPS", "13")
    monkeypatch.setenv("PL_FIT__TRAINER__MIN_STEPS", "13")
    monkeypatch.setenv("PL_FIT__MODEL__BACKBONE__N_LAYER", "3")  # also inside a class
    monkeypatch.setenv("PL_VALIDATE__TRAINER__MIN_STEPS", "99")  # of another command
    args = ("-c", config, "--trainer.min_steps=1", "-c", first, f"--config={second}", "--trainer.max_steps=14")
    got = printed(call(capsys, "fit", *args, "--print_config"))
    assert [got["trainer"][k] for k in ("max_steps", "min_steps", "max_epochs", "min_epochs")] == [14, 13, 12, 11]
    assert got["trainer"]["max_time"] is None
    assert got["model"]["init_args"]["backbone"]["init_args"]["n_layer"] == 3


def test_environment_names_a_file_and_is_checked(config, capsys, monkeypatch) -> None:
    """C23: PL_FIT__CONFIG is the first file; a misspelt variable is no less a mistake than a misspelt option."""
    monkeypatch.setenv("PL_FIT__CONFIG", str(config))
    assert printed(call(capsys, "fit", "--print_config"))["data"]["init_args"]["block_size"] == 7
    monkeypatch.setenv("PL_FIT__TRAINER__MAX_STEP", "3")
    assert "did you mean '--trainer.max_steps'?" in refusal(call(capsys, "fit"))


def test_overlay_replaces_or_extends_a_list(config, tmp_path, capsys) -> None:
    """C15: `callbacks:` replaces the list, `callbacks+:` appends to it; the same on the command line."""

    def callbacks(*args: object) -> list[str]:
        got = printed(call(capsys, "fit", "-c", config, *args, "--print_config"))["trainer"]["callbacks"]
        return [callback["class_path"].rpartition(".")[2] for callback in got]

    more = "  - class_path: lightning.pytorch.callbacks.ModelSummary"
    replacing = write_yaml(tmp_path / "replace.yaml", f"trainer:\n  callbacks:\n{more}\n")
    appending = write_yaml(tmp_path / "append.yaml", f"trainer:\n  callbacks+:\n{more}\n")
    kept = ["BestCheckpoint", "LastCheckpoint"]
    assert callbacks() == kept
    assert callbacks("-c", replacing) == ["ModelSummary"]
    assert callbacks("-c", appending) == [*kept, "ModelSummary"]
    assert callbacks("--trainer.callbacks+=ModelSummary") == [*kept, "ModelSummary"]


def test_another_class_keeps_the_arguments_that_it_also_has(config, capsys) -> None:
    """C16: swapping AdamW for SGD keeps lr and weight_decay; what SGD lacks goes, what it adds has its default."""
    got = printed(call(capsys, "fit", "-c", config, "--model.optimizer=torch.optim.SGD", "--print_config"))
    arguments = got["model"]["init_args"]["optimizer"]["init_args"]
    assert (arguments["lr"], arguments["weight_decay"], arguments["momentum"]) == (0.01, 0.1, 0.0)
    assert "betas" not in arguments


def test_printed_config_prints_itself(config, tmp_path, capsys) -> None:
    """C19, L2: stdout is YAML alone, complete, and gives the same bytes when it is read again."""
    first = call(capsys, "fit", "-c", config, "--trainer.max_steps=3", "--print_config").out
    again = call(capsys, "fit", "-c", write_yaml(tmp_path / "printed.yaml", first), "--print_config").out
    assert again == first


def test_any_typed_argument_takes_a_float(tmp_path, capsys, monkeypatch) -> None:
    """C8, trap 5: also where the class does not say the type; the class lies in the working directory."""
    (tmp_path / "experiments_any").mkdir()
    (tmp_path / "experiments_any" / "parts.py").write_text(
        "from typing import Any\nfrom lightning import Callback\n\n\nclass Watch(Callback):\n"
        "    def __init__(self, value: Any):\n        self.value = value\n"
    )
    monkeypatch.chdir(tmp_path)
    overlay = "trainer: {callbacks: [{class_path: experiments_any.parts.Watch, init_args: {value: 1e-4}}]}"
    args = ("-c", write_tiny(tmp_path), "-c", write_yaml(tmp_path / "o.yaml", overlay), "--print_config")
    callbacks = printed(call(capsys, "fit", *args))["trainer"]["callbacks"]
    assert callbacks[0]["init_args"]["value"] == 1e-4
