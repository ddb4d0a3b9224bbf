"""lit-llm generate."""

import shutil
from pathlib import Path

import pytest
from cli_runs import call, refusal, run_folders, spawn, write_tiny

from lit_llm.__main__ import main
from lit_llm.inference.text import TextModel

CHARACTERS = "--data.tokenizer=lit_llm.data.tokenizer.Characters"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints without anything else: corpus, cache, config and events of their runs are gone."""
    kept = {}
    for kind, options in (("bytes", ()), ("characters", (CHARACTERS,))):
        folder = tmp_path_factory.mktemp(kind)
        assert main(["fit", "-c", str(write_tiny(folder)), "--trainer.max_steps=2", *options]) == 0
        last = run_folders(folder)[0] / "checkpoints" / "last.ckpt"
        kept[kind] = Path(shutil.move(last, tmp_path_factory.mktemp("elsewhere") / "it's.ckpt"))
        shutil.rmtree(folder)
    return kept


def test_a_checkpoint_alone_is_enough(checkpoints, tmp_path) -> None:
    """In a process of its own, in another folder; stdout is the text, and stderr says nothing."""
    options = ("--prompt", "the cat\nsat", "--seed=3", "--max_new_tokens=30", "--top_k=40", "--top_p=0.9")
    process = spawn("generate", "--checkpoint", checkpoints["bytes"], *options, cwd=tmp_path)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    model = TextModel.from_checkpoint(checkpoints["bytes"])
    assert out == "the cat\nsat" + model.complete("the cat\nsat", 30, 0.8, 40, 0.9, seed=3) + "\n"


def test_samples(checkpoints, capsys) -> None:
    """A line of dashes between them; each has a seed of its own, so that one can be repeated alone."""
    args = ("generate", "--checkpoint", checkpoints["characters"], "--prompt=the cat", "--max_new_tokens=15")
    three = call(capsys, *args, "--num_samples=3", "--seed=7")
    single = [call(capsys, *args, f"--seed={seed}").out for seed in (7, 8, 9)]
    assert three.out == ("-" * 20 + "\n").join(single)
    assert len(set(single)) == 3
    assert all(len(text) == len("the cat") + 15 + 1 for text in single)  # one id, one character


WRONG = {
    "--max_new_tokens=0": "--max_new_tokens 0 cannot be: it is at least 1",
    "--max_new_tokens=-1": "--max_new_tokens -1 cannot be",
    "--max_new_tokens=many": "'max_new_tokens' must be int, not 'many'",
    "--num_samples=0": "--num_samples 0 cannot be",
    "--top_p=0": "top_p 0.0 is no probability in (0, 1]",
    "--top_p=1.5": "top_p 1.5 is no probability",
    "--top_k=0": "top_k 0 leaves no id to draw",
    "--temperature=-1": "temperature -1.0 cannot be",
    "--temperature=.nan": "temperature nan cannot be",
    "--seed=-1": "--seed -1 cannot be",
    "--seed=99999999999": "--seed 99999999999 cannot be",
    "--prompt=": "the prompt is empty",
    "--prompt=café": "the character 'é' is not among",
    "--promt=x": "there is no option '--promt'; did you mean '--prompt'?",
    "--checkpoint=nowhere": "there is no checkpoint or run folder 'nowhere'",
}


@pytest.mark.parametrize("option", WRONG)
def test_what_cannot_be_is_refused(checkpoints, capsys, option) -> None:
    """One sentence that quotes it, and no text."""
    result = call(capsys, "generate", "--checkpoint", checkpoints["characters"], "--prompt=the", option)
    assert WRONG[option] in refusal(result)
    assert result.out == ""


def test_a_checkpoint_must_be_named(capsys) -> None:
    assert refusal(call(capsys, "generate")) == "--checkpoint must be given"


def test_a_file_that_is_no_checkpoint(tmp_path, capsys) -> None:
    """K7: the sentence of what reads it, without a traceback."""
    (tmp_path / "page.ckpt").write_text("<html>")
    said = refusal(call(capsys, "generate", "--checkpoint", tmp_path / "page.ckpt"))
    assert said == f"'{tmp_path / 'page.ckpt'}' (6 bytes) is no checkpoint, or one that was cut short"
