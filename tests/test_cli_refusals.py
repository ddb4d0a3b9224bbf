"""Values that parse and yet cannot be: one sentence and exit code 2, before any text is read (C9-C11, C22, L3)."""

from pathlib import Path

import pytest
from cli_runs import call, refusal, run_folders, tiny_config, write_text, write_tiny, write_yaml


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("run"))


ATTENTION = "--model.backbone.attention=lit_llm.backbone.layers.CausalSelfAttention"
IMPOSSIBLE = {
    ("--model.optimizer.lr=.nan",): "nan",
    ("--model.optimizer.lr=.inf",): "the learning rate inf cannot be",
    ("--model.optimizer.lr=-1",): "-1",
    ("--model.optimizer.lr=0",): "the learning rate 0.0 cannot be",
    ("--model.optimizer.betas=[2,3]",): "2.0",  # torch's refusal
    ("--data.batch_size=0",): "batch_size 0 cannot be",
    ("--data.batch_size=-1",): "batch_size -1 cannot be",
    ("--data.block_size=0",): "block_size 0 cannot be",
    ("--seed_everything=99999999999",): "--seed_everything 99999999999 cannot be: it lies in [0, 4294967295]",
    ("--seed_everything=-1",): "--seed_everything -1 cannot be",
    ("--model.backbone.n_head=5",): "n_embd 24 is not divisible by n_head 5",
    ("--model.backbone.n_layer=0",): "n_layer 0",
    (ATTENTION, "--model.backbone.attention.n_kv_head=3"): "n_head 4 is not divisible by n_kv_head 3",
    ("--model.backbone.vocab_size=97",): "--model.backbone.vocab_size follows from the data",  # never ignored
    ("--model.backbone.block_size=97",): "--model.backbone.block_size follows from the data",
    ("--trainer.log_every_n_steps=0",): "--trainer.log_every_n_steps 0 cannot be",
    ("--trainer.accumulate_grad_batches=0",): "--trainer.accumulate_grad_batches 0 cannot be",
    ("--trainer.accelerator=gpuu",): "accelerator='gpuu'",  # Lightning's refusals
    ("--trainer.strategy=foo",): "strategy='foo'",
    ("--trainer.devices=0",): "devices='0'",
    ("--trainer.devices=[a]",): "`devices`",
    ("--trainer.max_time=abc",): "duration='abc'",
    ("--data.source=/nowhere.txt",): "'/nowhere.txt' does not exist",
    ("--trainer.logger.save_dir=/proc/runs",): "choose another by --trainer.logger.save_dir",
}


@pytest.mark.parametrize("options", IMPOSSIBLE)
def test_impossible_value(config, capsys, options) -> None:
    """C9-C11: what cannot be is refused in one sentence that quotes it, and no run folder is left."""
    assert IMPOSSIBLE[options] in refusal(call(capsys, "fit", "-c", config, *options))
    assert run_folders(config.parent) == []
    assert not (config.parent / "cache").exists()  # nothing was tokenized first


def test_a_log_folder_under_a_file(config, tmp_path, capsys) -> None:
    """An unwritable log folder is found before the corpus is touched."""
    said = refusal(call(capsys, "fit", "-c", config, f"--trainer.logger.save_dir={write_text(tmp_path / 'file')}"))
    assert f"'{tmp_path / 'file'}' is a file" in said
    assert not (config.parent / "cache").exists()


def test_all_wrong_sizes_at_once(config, capsys) -> None:
    """C11: sizes that are impossible by themselves are told together."""
    said = refusal(call(capsys, "fit", "-c", config, "--model.backbone.n_layer=0", "--model.backbone.n_embd=-3"))
    assert "n_layer 0" in said
    assert "n_embd -3" in said


SECRETS = {
    "--trainer.callbacks.init_args.api_key": ["--trainer.callbacks+=cli_parts.Upload", "--trainer.callbacks.api_key=X"],
    "by its value": ["--data.reading.subset=hf_" + "a" * 30],
    "in a URL": ["--data.reading.split=https://user:verysecret@host/x"],
}


@pytest.mark.parametrize("kind", SECRETS)
def test_secret(config, tmp_path, capsys, monkeypatch, kind) -> None:
    """C22: a secret in the configuration is refused without repeating it, and is written nowhere."""
    (tmp_path / "cli_parts.py").write_text(
        "from lightning import Callback\n\n\nclass Upload(Callback):\n"
        "    def __init__(self, api_key: str):\n        self.api_key = api_key\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    secret = SECRETS[kind][-1].partition("=")[2]
    result = call(capsys, "fit", "-c", config, *SECRETS[kind])
    assert "holds a secret" in refusal(result)
    assert secret not in refusal(result)
    files = [path for path in config.parent.rglob("*") if path.is_file()]
    assert not any(secret.encode() in path.read_bytes() for path in files)


def test_no_secret_in_ordinary_words(tmp_path, capsys) -> None:
    """Names such as tokenizer, end_of_text or monitor are no secrets, nor is a prompt that speaks of one."""
    config = tiny_config(tmp_path)
    write_text(tmp_path / "text.txt")
    sample = {"class_path": "lit_llm.training.callbacks.SampleText", "init_args": {"prompts": ["my password is hf_a"]}}
    config["trainer"]["callbacks"].append(sample)
    config["data"]["init_args"]["block_size"] = 31  # in which the prompt fits
    assert call(capsys, "fit", "-c", write_yaml(tmp_path / "c.yaml", config), "--trainer.max_steps=1").code == 0


def test_debug_shows_where(config, capsys, monkeypatch) -> None:
    """L3: the traceback is there for who asks for it; the sentence still comes last."""
    monkeypatch.setenv("LIT_LLM_DEBUG", "1")
    result = call(capsys, "fit", "-c", config, "--data.batch_size=0")
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1].startswith("lit-llm fit: error: batch_size 0 cannot be")


def test_unknown_command(capsys) -> None:
    assert refusal(call(capsys, "fitt")) == "there is no command 'fitt'; did you mean 'fit'?"
    assert refusal(call(capsys, "xyz")).startswith("there is no command 'xyz'; the commands are fit, validate")


def test_corpus_without_a_window(config, tmp_path, capsys) -> None:
    """An empty corpus, and one shorter than a window, are refused by name."""
    for content, word in (("", "empty"), ("abc", "less than one window")):
        (tmp_path / "short.txt").write_text(content)
        said = refusal(call(capsys, "fit", "-c", config, f"--data.source={tmp_path / 'short.txt'}"))
        assert "short.txt" in said, word


def test_predict_validate_and_test_need_a_checkpoint(config, capsys) -> None:
    """Scores of random weights are no result."""
    for command in ("validate", "test", "predict"):
        assert f"{command} needs --ckpt_path" in refusal(call(capsys, command, "-c", config))
