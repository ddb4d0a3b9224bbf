"""The data module of instruction tuning: records of all forms, what is refused, splits, and what a run is given."""

import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_runs import call, run_folders
from instruction_rows import CONFIG, alpaca, data, learnt
from lightning import Trainer
from torch import nn

from lit_llm.backbone import GPT
from lit_llm.batch import IGNORE_INDEX, Batch, PackedBatch
from lit_llm.data.bpe import BPE, Tiktoken
from lit_llm.data.duplicates import count_near_duplicates, normalized, split_groups
from lit_llm.data.instructions import Instructions
from lit_llm.data.loader import Loader
from lit_llm.data.packing import Examples, PackedWindows, PaddedExamples
from lit_llm.data.records import SAMPLE
from lit_llm.data.sources import Reading
from lit_llm.data.tokenizer import Bytes, Characters, from_state
from lit_llm.modules import LanguageModeling
from lit_llm.weights.checkpoint import read_checkpoint

# Forms.


FORMS: dict[str, Any] = {
    "alpaca": {"instruction": "a", "input": "b", "output": "c"},
    "messages": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "c"}]},
    "conversations of roles": {
        "conversations": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]
    },
    "several turns": {
        "system": "s",
        "conversations": [{"from": who, "value": text} for who, text in zip(["human", "gpt"] * 2, "acde", strict=True)],
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_record(tmp_path: Path, form: str) -> None:
    served = data(tmp_path, [FORMS[form]], val_fraction=0.0)
    texts = {"alpaca": "a\nb\nc$", "several turns": "s\na\nc$\nd\ne$"}
    wanted = texts.get(form, "a\nc$")
    tokens = served.prepared.tokens("train", 0)
    assert "".join(text for text, _ in tokens) == wanted.replace("$", "")
    assert len(tokens) == len(wanted)
    assert learnt(served) == ["c$e$" if form == "several turns" else "c$"]


@pytest.mark.parametrize("name", ["rows.json", "rows.json.gz", "rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_each_kind_of_file(tmp_path: Path, name: str) -> None:
    rows, path = alpaca(5), tmp_path / name
    if name.endswith(".parquet"):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        text = json.dumps(rows) if ".jsonl" not in name else "\n".join(map(json.dumps, rows))
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert sorted(learnt(data(tmp_path, source=str(path), val_fraction=0.0))) == [f"{i}{i}$" for i in range(5)]
    few = data(tmp_path, source=str(path), val_fraction=0.0, reading=Reading(max_documents=2))
    assert sorted(learnt(few)) == ["00$", "11$"]


def test_the_sample_comes_along() -> None:
    """200 different pairs, with and without input, all of them of use."""
    rows = [json.loads(line) for line in SAMPLE.read_text("utf-8").splitlines()]
    assert len(rows) == len({(row["instruction"], row["input"]) for row in rows}) == 200
    assert 60 < sum(bool(row["input"]) for row in rows) < 140
    served = Instructions("sample", Bytes(), val_fraction=0.1)
    assert sum(len(examples) for examples in served.prepared.examples.values()) == 200
    assert not served.prepared.dropped
    assert (served.prepared.equal, served.prepared.truncated) == (0, 0)


# The config.
def test_the_config_runs_on_the_sample(tmp_path: Path, capsys: Any) -> None:
    """Two steps, with all callbacks; the checkpoint holds the template, and alone is enough to write."""
    own = ("--data.source=sample", "--data.tokenizer=Bytes", "--data.batch_size=2", "--trainer.max_steps=2")
    less = ("--trainer.val_check_interval=2", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu")
    logs = f"--trainer.logger.save_dir={tmp_path / 'logs'}"
    small = ("--model.backbone.n_layer=1", "--model.backbone.n_embd=16")
    done = call(capsys, "fit", "-c", CONFIG, *own, *less, *small, logs)
    assert done.code == 0, done.err
    assert "200 records: 190 for train, 10 for val, 0 for test" in done.err
    (run,) = run_folders(tmp_path, "instruct_alpaca")
    state = read_checkpoint(run / "checkpoints" / "last.ckpt")["tokenizer"]
    assert "### Response:" in from_state(state).chat_template  # type: ignore[operator]
    written = call(capsys, "generate", "--checkpoint", run, "--prompt", "### Response:", "--max_new_tokens", "3")
    assert written.code == 0, written.err


# Splits and duplicates.


def test_one_instruction_is_on_one_side(tmp_path: Path) -> None:
    """Whatever its case and spaces, and whatever its input; shares are met nearly; another seed holds out others."""
    rows = [
        {"instruction": ("Name {}!" if i % 2 else "name  {}").format(i // 6), "input": str(i), "output": str(i)}
        for i in range(600)
    ]
    sides = []
    for seed in (0, 0, 1):
        served = data(tmp_path, rows, val_fraction=0.2, test_fraction=0.1, split_seed=seed)
        groups = {
            split: {normalized(talk.messages[0]["content"]) for talk in talks}
            for split, talks in served.prepared.talks.items()
        }
        assert sum(map(len, groups.values())) == len(set().union(*groups.values())) == 100
        sizes = {split: len(examples) for split, examples in served.prepared.examples.items()}
        assert sizes == {"train": 420, "val": 120, "test": 60}
        sides.append(groups["val"])
    assert sides[0] == sides[1] != sides[2]


def test_there_is_something_in_each_split(tmp_path: Path) -> None:
    assert sorted(split_groups(["a", "b", "c"], {"test": 0.01, "val": 0.01}, 0)) == ["test", "train", "val"]
    assert split_groups(["a", "a"], {"test": 0.0, "val": 0.5}, 0).tolist() == ["train", "train"]
    with pytest.raises(ValueError, match=r"none of the records of .* is left for val: all of one instruction"):
        data(tmp_path, alpaca(3, instruction="same")).val_dataloader()


def test_duplicates_are_counted(tmp_path: Path) -> None:
    """Equal ones, and by MinHash those of which most is equal; a template that all share makes nobody alike."""
    long = "The quick brown fox jumps over the lazy dog near the old stone bridge by the river at dawn"
    rows = alpaca(30) + [{"instruction": "Repeat.", "output": f"{long} {long[:40]} {i}"} for i in range(3)]
    rows += [{"instruction": "SAY 1", "output": "11."}]
    served = data(tmp_path, rows, template="alpaca", block_size=512, val_fraction=0.0)
    assert served.prepared.equal == 1
    assert served.prepared.near == 2
    assert "said before: 1 equal, 2 nearly equal" in served.prepared.report(None)


def test_near_duplicates_of_tokens() -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 900, 60) for _ in range(50)]
    near = texts[7].copy()
    near[30] = 950  # five of 56 shingles are others
    ids = [*texts, near, texts[9]]
    marks = [np.ones(len(one), bool) for one in ids]
    assert count_near_duplicates(Examples.join(ids, marks)) == 2
    assert count_near_duplicates(Examples.join([ids[0][:3]], [marks[0][:3]])) == 0


# What a run is given.


def test_batches_with_and_without_packing(tmp_path: Path) -> None:
    """The same targets, in fewer rows."""
    packed, padded = data(tmp_path), data(tmp_path, packing=False)
    counts = []
    for served, kind in ((packed, PackedBatch), (padded, Batch)):
        batches = list(served.val_dataloader())
        assert all(type(batch) is kind for batch in batches)
        counts.append(sum(int((batch.targets != IGNORE_INDEX).sum()) for batch in batches))
    assert counts[0] == counts[1] == len(packed.prepared.examples["val"].learnt())
    assert 2 * len(packed._rows("train")) < len(padded._rows("train"))


def test_without_a_mask_all_is_learnt(tmp_path: Path) -> None:
    served = data(tmp_path, [{"instruction": "ab", "output": "c"}], mask_prompt=False, val_fraction=0.0)
    assert learnt(served) == ["b\nc$"]  # nothing predicts the first token


def test_what_the_model_and_its_checkpoint_need(tmp_path: Path) -> None:
    """Of a tokenizer that learns from the records; its state holds the template of the training."""
    served = data(tmp_path, tokenizer=BPE(270), template="alpaca", block_size=512)
    assert served.vocab_size == served.tokenizer.vocab_size <= 270
    again = from_state(json.loads(json.dumps(served.tokenizer_state())))
    assert again.chat_template is not None
    assert "### Instruction:" in again.chat_template
    losses = served.reference_losses()
    assert 0 < losses["bigram_loss"] <= losses["unigram_loss"] < np.log(270)
    prompts = served.sample_prompts()
    assert len(prompts) == 3
    assert all(prompt.startswith("Below is") and prompt.endswith("### Response:\n") for prompt in prompts)


def test_bytes_of_a_token_are_those_of_the_answers(tmp_path: Path) -> None:
    """The end of a text is a token of no bytes; nothing is known of an empty split."""
    served = data(tmp_path, [{"instruction": "question", "output": "abc"}], val_fraction=0.0)
    assert served.bytes_per_token("train") == 3 / 4
    assert served.bytes_per_token("val") is None


def test_characters_are_learnt_from_the_rendered_text(tmp_path: Path) -> None:
    served = data(tmp_path, tokenizer=Characters(end_of_text=True), template="chatml")
    assert served.vocab_size == len(set(served.tokenizer.characters)) + 1  # type: ignore[attr-defined]
    assert set("<|im_start|>") < set(served.tokenizer.characters)  # type: ignore[attr-defined]
    assert "<|im_start|>, <|im_end|>: no token of the tokenizer" in served.prepared.report(0.9)


def test_the_report(tmp_path: Path, capsys: Any) -> None:
    served = data(tmp_path, [*alpaca(40), {"instruction": "a", "output": ""}], on_bad="skip")
    served.prepare_data()
    told = capsys.readouterr().err
    assert "41 records: 32 for train, 8 for val, 0 for test" in told
    assert "left out: 1 (1 empty response)" in told
    assert "carry loss; an example has" in told
    assert "of the windows is full" in told


@pytest.mark.parametrize("packing", [True, False])
def test_a_module_learns_from_it(tmp_path: Path, packing: bool) -> None:
    """The answers, through Lightning, in both forms of batches."""
    torch.manual_seed(0)
    rows = [{"instruction": f"Say {i}.", "output": "yes"} for i in range(60)]
    served = data(tmp_path, rows, packing=packing, block_size=24)
    module = LanguageModeling(
        GPT(257, 24, n_layer=1, n_head=2, n_embd=16), optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.02)
    )
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=8, enable_checkpointing=False, **options)
    trainer.fit(module, served)
    assert float(trainer.callback_metrics["val/loss"]) < 0.1
    assert float(trainer.callback_metrics["val/bits_per_byte"]) > 0


# Alpaca itself.


@pytest.mark.slow
def test_alpaca_is_prepared_in_a_minute(gpt2: Tiktoken, shared: Path) -> None:
    """50,918 rows, in seconds of a processor; and packed to more than 97 places in 100."""
    start = time.process_time()
    source = str(shared / "instruct" / "alpaca_data.json.gz")
    served = Instructions(source, gpt2, on_bad="skip")
    served.prepare_data()
    seconds = time.process_time() - start
    windows = served._rows("train")
    assert isinstance(windows, PackedWindows)
    print(f"{seconds:.1f} s of a processor, {windows.efficiency:.2%} full")
    assert served.prepared.records == 50_918
    assert seconds < 60
    assert windows.efficiency > 0.97


@pytest.mark.slow
def test_packing_is_worth_it(gpt2: Tiktoken, shared: Path) -> None:
    """Real tokens a second of training: twice those of batches padded to their longest, 3.5 times those of 512."""
    torch.manual_seed(0)
    source = str(shared / "instruct" / "alpaca_data.json.gz")
    served = Instructions(source, gpt2, on_bad="skip", reading=Reading(max_documents=1500))
    examples = served.prepared.examples["train"]
    module = LanguageModeling(GPT(gpt2.vocab_size, 512, n_layer=2, n_head=4, n_embd=64))
    kinds: dict[str, Any] = {
        "packed": (PackedWindows(examples, 512, 0), 2),
        "longest": (PaddedExamples(examples), 16),
        "block": (PaddedExamples(examples, 512), 2),
    }
    speed = {name: tokens_per_second(module, *kind) for name, kind in kinds.items()}
    print({name: round(rate) for name, rate in speed.items()})
    assert speed["packed"] > 2 * speed["longest"]
    assert speed["packed"] > 3.5 * speed["block"]


def tokens_per_second(module: nn.Module, rows: Any, batch_size: int, steps: int = 4) -> float:
    """Tokens of examples, padding left out, by the processor's time of forward and backward passes."""
    tokens, start = 0, 0.0
    for number, batch in enumerate(Loader(rows, batch_size)):
        if number == 1:  # the first is slower
            start = time.process_time()
        module.zero_grad()
        module.total_loss(batch).backward()  # type: ignore[operator]
        if number >= 1:
            lengths = rows.examples.lengths
            first = number * batch_size
            held = (
                rows.windows[first : first + batch_size]
                if isinstance(rows, PackedWindows)
                else [range(first, first + batch_size)]
            )
            tokens += sum(int(lengths[i]) for window in held for i in window)
        if number == steps:
            break
    return tokens / (time.process_time() - start)
