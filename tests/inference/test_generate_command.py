"""lit-llm generate."""

import json
import re
import shutil
from pathlib import Path

import pytest
from cli_runs import call, refusal, run_folders, spawn, write_tiny

from lit_llm.__main__ import main
from lit_llm.inference.command import read_prompts
from lit_llm.inference.sampling import Sampling
from lit_llm.inference.text import Asked, TextModel

CHARACTERS = "--data.tokenizer=lit_llm.data.tokenizer.Characters"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints without anything else: corpus, cache, config and events of their runs are gone."""
    kept = {}
    for kind, options in (("bytes", ()), ("characters", (CHARACTERS,))):
        folder = tmp_path_factory.mktemp(kind)
        assert (
            main(["fit", "-c", str(write_tiny(folder)), "--trainer.max_steps=2", "--data.block_size=64", *options]) == 0
        )
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
    model = TextModel.from_source(checkpoints["bytes"])
    assert out == "the cat\nsat" + model.complete("the cat\nsat", Asked(30, Sampling(0.8, 40, 0.9)), seed=3) + "\n"


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
    "--max_new_tokens=63": "a prompt of 3 tokens and 63 new ones do not fit the model's 64 positions",
    "--min_p=2": "min_p 2.0 is no share",
    "--repetition_penalty=0": "repetition_penalty 0.0 cannot be",
    "--stop=['']": "the stop string '' is empty",
    "--device=cuda:99": "there is no --device 'cuda:99' here; choose cpu",
    "--dtype=int4": "the dtype 'int4' is none of fp32, bf16, int8",
    "--batch_size=0": "--batch_size 0 cannot be",
    "--prompts=no.txt": "--prompt 'the' and --prompts no.txt were both given; choose one",
    "--draft=nowhere": "there is no checkpoint, run folder or folder of a model 'nowhere'",
    "--promt=x": "there is no option '--promt'; did you mean '--prompt'?",
    "--checkpoint=nowhere": "there is no checkpoint, run folder or folder of a model 'nowhere'",
}


@pytest.mark.parametrize("option", WRONG)
def test_what_cannot_be_is_refused(checkpoints, capsys, option) -> None:
    """One sentence that quotes it, and no text."""
    result = call(capsys, "generate", "--checkpoint", checkpoints["characters"], "--prompt=the", option)
    assert WRONG[option] in refusal(result)
    assert result.out == ""


def test_a_file_of_prompts(checkpoints, tmp_path, capsys) -> None:
    """A JSON object for each line, in their order, whatever the batch; plain lines, strings and objects."""
    (tmp_path / "prompts.jsonl").write_text('the cat\n\n{"prompt": "a\\nmat"}\n"on"\n', encoding="utf-8")
    args = ("generate", "--checkpoint", checkpoints["bytes"], "--prompts", tmp_path / "prompts.jsonl", "--seed=7")
    results = [call(capsys, *args, "--logprobs=true", f"--batch_size={size}").out for size in (1, 3)]
    lines = [[json.loads(line) for line in result.splitlines()] for result in results]
    assert [line["prompt"] for line in lines[0]] == ["the cat", "a\nmat", "on"]
    for one, other in zip(*lines, strict=True):
        assert one.pop("logprobs") == pytest.approx(other.pop("logprobs"), abs=1e-4)
        assert one == other
        assert one["tokens"] == len(one["ids"]) <= 65 - len(one["prompt"])
        assert one["finish_reason"] in ("stop", "length")
    plain = call(capsys, "generate", "--checkpoint", checkpoints["bytes"], "--prompt=on", "--seed=9")
    assert plain.out == "on" + lines[0][2]["text"] + "\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b'the\n{"prompt": 3}', "line 2 of"),
        (b'the\n\n{"prompt": 3}', "line 3 of"),
        (b'{"prompt": ' + b"[" * 100_000, "nested without end"),
        (b'{"text": "x"}', 'has no text as its "prompt"'),
        (b'{"prompt": "x"', "is no JSON"),
        (b"\xff\xfe", "is no text in UTF-8"),
    ],
)
def test_files_of_prompts_that_cannot_be(checkpoints, tmp_path, capsys, content, message) -> None:
    (tmp_path / "prompts").write_bytes(content)
    result = call(capsys, "generate", "--checkpoint", checkpoints["bytes"], "--prompts", tmp_path / "prompts")
    assert message in refusal(result)
    assert "there is no file of prompts 'no'" in refusal(
        call(capsys, "generate", "--checkpoint", checkpoints["bytes"], "--prompts=no")
    )


def test_a_line_of_prompts_ends_where_a_file_of_json_lines_says(tmp_path) -> None:
    (tmp_path / "prompts").write_text('{"prompt": "a\u2028b"}\nc\x0cd\n', encoding="utf-8")
    assert list(read_prompts(str(tmp_path / "prompts")).values()) == ["a\u2028b", "c\x0cd"]


@pytest.mark.parametrize("options", [(), ("--num_samples=3", "--batch_size=2"), ("--chat=true", "--template=plain")])
def test_the_line_of_a_prompt_that_cannot_be_continued(checkpoints, tmp_path, capsys, options) -> None:
    """Before anything is written: one that is too long, one that the tokenizer does not know, one in no UTF-8."""
    path = tmp_path / "prompts"
    for kind, lines, told in (
        (
            "bytes",
            ["the", "", "a cat " * 30, "on"],
            r"a prompt of \d+ tokens and \d+ new ones do not fit the model's 64",
        ),
        ("characters", ["the", "a cat", "on a café", "é"], "the character 'é' is not among the"),
    ):
        if kind == "characters" and "--chat=true" in options:  # that knows no template either
            continue
        path.write_text("\n".join(lines), encoding="utf-8")
        result = call(capsys, "generate", "--checkpoint", checkpoints[kind], "--prompts", path, *options)
        assert re.match(rf"line 3 of '{path}': {told}", refusal(result))
        assert result.out == ""
    path.write_bytes(b"the\na\n\xff\n")
    said = refusal(call(capsys, "generate", "--checkpoint", checkpoints["bytes"], "--prompts", path, *options))
    assert said == f"line 3 of '{path}' is no text in UTF-8 (invalid start byte at byte 6)"


def test_a_draft(checkpoints, capsys) -> None:
    """The same greedy text; one of another tokenizer is refused."""
    args = ("generate", "--checkpoint", checkpoints["bytes"], "--prompt=the", "--temperature=0")
    drafted = call(capsys, *args, "--draft", checkpoints["bytes"])
    assert drafted.out == call(capsys, *args).out
    assert "draft: 100.0% of its tokens were kept" in drafted.err
    said = refusal(call(capsys, *args, "--draft", checkpoints["characters"]))
    assert said == "the draft model has another tokenizer than the model; take one trained with the same"


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_fewer_bits(checkpoints, capsys, dtype) -> None:
    args = ("generate", "--checkpoint", checkpoints["bytes"], "--prompt=the", "--temperature=0", f"--dtype={dtype}")
    assert call(capsys, *args).out.startswith("the")


def test_a_checkpoint_must_be_named(capsys) -> None:
    assert refusal(call(capsys, "generate")) == "--checkpoint must be given"


def test_a_file_that_is_no_checkpoint(tmp_path, capsys) -> None:
    """K7: the sentence of what reads it, without a traceback."""
    (tmp_path / "page.ckpt").write_text("<html>")
    said = refusal(call(capsys, "generate", "--checkpoint", tmp_path / "page.ckpt"))
    assert said == f"'{tmp_path / 'page.ckpt'}' (6 bytes) is no checkpoint, or one that was cut short"
