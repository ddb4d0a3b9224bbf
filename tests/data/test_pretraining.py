"""The data module of next-token training: what it serves, what it refuses, and how a run goes on."""

import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cli_runs import write_text
from lightning import Trainer
from recording import Recorder, SaveAtTheEnd

from lit_llm.batch import IGNORE_INDEX, Batch, PackedBatch
from lit_llm.data.base import TextDataModule
from lit_llm.data.bpe import BPE
from lit_llm.data.pretraining import Pretraining
from lit_llm.data.tokenizer import Bytes, Characters, from_state

B, T = 3, 7


def data(folder: Path, **settings: Any) -> Pretraining:
    """Of one text of about 2,300 bytes, unless something else is said."""
    path = folder / "text.txt"
    text = settings.pop("source", None) or str(path if path.exists() else write_text(path))
    return Pretraining(text, **{"tokenizer": Bytes(), "block_size": T, "batch_size": B, **settings})


def several(folder: Path, texts: list[str]) -> str:
    (folder / "texts").mkdir()
    for number, text in enumerate(texts):
        (folder / "texts" / f"{number}.txt").write_text(text)
    return str(folder / "texts")


def split(served: Pretraining, name: str) -> str:
    return served.tokenizer.decode(served.corpus.tokens(name).tolist())


# What is served.


def test_training_batches_are_windows_of_the_text(tmp_path: Path) -> None:
    """Each a stretch of the training text, and its targets one further; an epoch has each once."""
    served = data(tmp_path)
    text, batches = split(served, "train"), list(served.train_dataloader())
    rows = [(x, y) for batch in batches for x, y in zip(batch.idx.tolist(), batch.targets.tolist(), strict=True)]
    assert len(rows) == (len(text) - 1) // T // B * B
    assert {batch.idx.shape for batch in batches} == {(B, T)}
    places = [text[i : i + T + 1] for i in range(0, len(text) - T, T)]
    assert all(x[1:] == y[:-1] for x, y in rows)
    found = [served.tokenizer.decode([*x, y[-1]]) for x, y in rows]
    assert not Counter(found) - Counter(places)  # each once, in that place
    assert found != places[: len(found)]  # shuffled


def test_a_stride_lets_windows_overlap(tmp_path: Path) -> None:
    """In training alone: held-out text is scored once whatever it is."""
    plain, overlapping = data(tmp_path), data(tmp_path, stride=2)
    assert len(overlapping.train_dataloader()) > 3 * len(plain.train_dataloader())
    assert len(overlapping.val_dataloader()) == len(plain.val_dataloader())


@pytest.mark.parametrize("name", ["val", "test", "predict"])
def test_held_out_text_is_covered_once(tmp_path: Path, name: str) -> None:
    served = data(tmp_path, val_fraction=0.2, test_fraction=0.1)
    batches = list(getattr(served, f"{name}_dataloader")())
    scored = torch.cat([batch.targets[batch.targets != IGNORE_INDEX] for batch in batches])
    assert served.tokenizer.decode(scored.tolist()) == split(served, "test" if name == "test" else "val")[1:]


def test_documents_are_told_apart_where_that_is_asked_for(tmp_path: Path) -> None:
    source = several(tmp_path, ["the cat sat on a mat", "big red dogs run home", "and saw the big cat", "run fast"])
    plain, masked = data(tmp_path, source=source), data(tmp_path, source=source, mask_documents=True)
    assert type(next(iter(plain.train_dataloader()))) is Batch
    for loader in (masked.train_dataloader(), masked.val_dataloader()):
        for batch in loader:
            assert isinstance(batch, PackedBatch)
            changes = batch.documents.diff(dim=1) != 0
            assert torch.equal(changes, batch.idx[:, :-1] == Bytes.end_of_text)
    assert torch.equal(next(iter(plain.train_dataloader())).idx, next(iter(masked.train_dataloader())).idx)


def test_the_seed_of_the_run_chooses_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = data(tmp_path)

    def order(seed: int) -> list:
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))  # as seed_everything sets it
        return [batch.idx.tolist() for batch in served.train_dataloader()]

    assert order(1) == order(1) != order(2)


def test_ranks_share_the_windows(tmp_path: Path) -> None:
    """Where the trainer says which one this is."""
    (tmp_path / "text.txt").write_text("".join(f"{i:05}" for i in range(200)))  # no window occurs twice
    rows: list[tuple] = []
    for rank in range(2):
        served = data(tmp_path)
        place = {"rank": rank, "num_replicas": 2}
        served.trainer = SimpleNamespace(distributed_sampler_kwargs=place)  # type: ignore[assignment]
        loaders = [served.train_dataloader(), served.val_dataloader()]
        assert [(loader.rank, loader.world_size) for loader in loaders] == [(rank, 2)] * 2  # type: ignore[union-attr]
        rows += [tuple(row) for batch in loaders[0] for row in batch.idx.tolist()]
    assert len(rows) == len(set(rows)) == (900 - 1) // T // (2 * B) * 2 * B


def test_what_the_model_and_its_checkpoint_need(tmp_path: Path) -> None:
    """Of a tokenizer that learns from the corpus: sizes are known before anything is asked to prepare."""
    served = data(tmp_path, tokenizer=BPE(290))
    assert served.vocab_size == 290
    assert served.block_size == T
    again = from_state(served.tokenizer_state())
    assert again.encode("the cat").tolist() == served.tokenizer.encode("the cat").tolist()
    tokens = sum(len(served.corpus.tokens(name)) for name in ("train", "val", "test"))
    size = sum(served.bytes_per_token(name) * len(served.corpus.tokens(name)) for name in ("train", "val", "test"))
    assert tokens < size == pytest.approx((tmp_path / "text.txt").stat().st_size)
    losses = served.reference_losses()
    assert 0 < losses["bigram_loss"] < losses["unigram_loss"] < np.log(290)
    prompts = served.sample_prompts(count=3, length=5)
    assert len(prompts) == 3
    assert all(prompt and prompt in split(served, "val") for prompt in prompts)


def test_preparing_and_setting_up_are_separate(tmp_path: Path) -> None:
    """As on many ranks: one has prepared, another opens; and the cache may be given."""
    data(tmp_path, cache_dir=str(tmp_path / "mine"), tokenizer=Characters()).prepare_data()
    other = data(tmp_path, cache_dir=str(tmp_path / "mine"), tokenizer=Characters())
    assert other.folder.parent == tmp_path / "mine"
    other.setup("fit")
    assert other.vocab_size == len(set((tmp_path / "text.txt").read_text()))
    with pytest.raises(ValueError, match="is damaged"):
        data(tmp_path, cache_dir=str(tmp_path / "another")).setup("fit")


def test_nothing_held_out(tmp_path: Path) -> None:
    served = data(tmp_path, val_fraction=0)
    assert served.val_dataloader() == []
    assert served.reference_losses() == {}
    assert served.sample_prompts() == []
    with pytest.raises(ValueError, match=r"no text is held out for testing; set --data\.test_fraction"):
        served.test_dataloader()


def test_a_plain_data_module_of_text_has_defaults() -> None:
    plain = TextDataModule(Bytes(), T, B)
    assert (plain.vocab_size, plain.bytes_per_token("val"), plain.sample_prompts()) == (257, None, [])
    assert plain.reference_losses() == {}
    assert isinstance(from_state(plain.tokenizer_state()), Bytes)


# What is refused.


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"block_size": 0}, "block_size 0 cannot be"),
        ({"batch_size": -1}, "batch_size -1 cannot be"),
        ({"stride": 0}, "stride 0 cannot be"),
        ({"val_fraction": -0.1}, "val_fraction -0.1 and test_fraction 0.0 cannot be"),
        ({"test_fraction": 0.9}, "val_fraction 0.1 and test_fraction 0.9 cannot be"),
        ({"val_fraction": float("nan")}, "val_fraction nan"),
    ],
)
def test_sizes_that_cannot_be(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        data(tmp_path, **settings)


def test_masking_needs_an_end_of_text(tmp_path: Path) -> None:
    """Known at once for a complete tokenizer, and as soon as it is asked for otherwise."""
    fitted = Characters()
    fitted.fit(["abc"])
    with pytest.raises(ValueError, match="mask_documents needs a tokenizer with an end-of-text token"):
        data(tmp_path, tokenizer=fitted, mask_documents=True)
    with pytest.raises(ValueError, match="mask_documents needs a tokenizer with an end-of-text token"):
        data(tmp_path, tokenizer=Characters(), mask_documents=True).train_dataloader()


@pytest.mark.parametrize(
    ("text", "split", "told"),
    [
        ("", "train", "holds no text"),
        ("abcdefg", "train", "train split of '.*text.txt': the text has 6 tokens, too few for one window of 7"),
        ("abcdefghi", "val", "val split of '.*text.txt': the text has 1 tokens, too few for a token and its next one"),
        ("abcdefgh" * 2, "train", "gives 1 windows, not one batch of 3 on each of 1 devices; lower --data.batch_size"),
    ],
)
def test_a_corpus_that_is_too_short(tmp_path: Path, text: str, split: str, told: str) -> None:
    """D1, D2, D13: refused by name, before a run of endless empty epochs could begin."""
    (tmp_path / "short.text.txt").write_text(text)
    served = data(tmp_path, source=str(tmp_path / "short.text.txt"))
    with pytest.raises(ValueError, match=told):
        getattr(served, f"{split}_dataloader")()


def test_a_token_file_that_was_tampered_with(tmp_path: Path) -> None:
    """D3: an id beyond the vocabulary, of the right length on disk, is named where it is read."""
    served = data(tmp_path)
    served.prepare_data()
    ids = np.fromfile(served.folder / "val.bin", np.uint16)
    ids[10] = 300
    ids.tofile(served.folder / "val.bin")
    with pytest.raises(ValueError, match="holds the id 300 at position 10, beyond the vocabulary of 257"):
        list(served.val_dataloader())


# Going on.


def fit(folder: Path, max_steps: int, ckpt_path: str | None = None, workers: int = 0) -> list[list]:
    """What a run is fed; it leaves a checkpoint of its last step."""
    served = data(folder, val_fraction=0.0, num_workers=workers)
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options |= {"enable_checkpointing": False, "limit_val_batches": 0}
    trainer = Trainer(max_steps=max_steps, max_epochs=-1, callbacks=SaveAtTheEnd(), **options)
    recorder = Recorder("idx")
    trainer.fit(recorder, served, ckpt_path=ckpt_path, weights_only=True)
    return recorder.fed


@pytest.mark.parametrize(("stop", "workers"), [(4, 0), (5, 0), (7, 0), (4, 2)])
def test_a_run_goes_on_exactly(tmp_path: Path, stop: int, workers: int) -> None:
    """K17: through Lightning's checkpoint, in the middle of an epoch of five steps, at its border and in the second."""
    text = "".join(random.Random(0).choices("abcdefgh", k=5 * B * T + 1))
    (tmp_path / "text.txt").write_text(text)
    whole, before = fit(tmp_path, 12), fit(tmp_path, stop, workers=workers)
    rest = fit(tmp_path, 12, "last.ckpt", workers)
    assert len(whole) == 12
    assert before + rest == whole
