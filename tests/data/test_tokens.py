"""Token files: made once, by one process, trusted only when whole, in memory that does not know the corpus."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_corpora import FILES, TEXTS, contents, source

from lit_llm.data import tokens
from lit_llm.data.bpe import BPE, FASTER, PATTERN
from lit_llm.data.sources import PIECE, Reading, Source
from lit_llm.data.splits import Plan
from lit_llm.data.tokenizer import Bytes, Characters, Tokenizer
from lit_llm.data.tokens import cache_folder, corpus_folder, open_corpus, prepare


class Wide(Bytes):
    """Bytes, of a vocabulary that 16 bits do not hold."""

    vocab_size = 70_000

    def encode(self, text: str) -> np.ndarray:
        return super().encode(text).astype(np.int64) * 273  # up to 69,615


class Stray(Bytes):
    """A tokenizer that is wrong about its vocabulary."""

    def encode(self, text: str) -> np.ndarray:
        return super().encode(text).astype(np.int64) + (self.by if "dogs" in text else 0)

    by = 200


class Broken(Bytes):
    """Fails at one text."""

    def encode(self, text: str) -> np.ndarray:
        if "dogs" in text:
            raise RuntimeError(f"cannot encode {text!r}")
        return super().encode(text)


# What a folder holds.


@pytest.mark.parametrize("kind", [Bytes, Wide, lambda: Characters(True), lambda: BPE(280)])
def test_the_corpus_is_its_documents_joined_by_the_end_of_text(tmp_path: Path, kind: Callable[[], Tokenizer]) -> None:
    given = source(tmp_path)
    corpus = prepare(given, kind(), tmp_path / "made", 0.2, 0.2)
    expected: dict[str, list[int]] = {split: [] for split in ("train", "val", "test")}
    sizes = {split: {"tokens": 0, "bytes": 0, "documents": 0} for split in expected}
    for split, text, ends in Plan(given, 0.2, 0.2).pieces():
        ids = [*corpus.tokenizer.encode(text).tolist(), *([corpus.tokenizer.end_of_text] if ends else [])]
        expected[split] += ids
        for name, more in {"tokens": len(ids), "bytes": len(text.encode()), "documents": int(ends)}.items():
            sizes[split][name] += more
    assert contents(corpus) == expected
    assert all(expected.values())
    assert corpus.meta["splits"] == sizes
    assert corpus.bytes_per_token("val") == sizes["val"]["bytes"] / sizes["val"]["tokens"]
    assert corpus.meta["dtype"] == ("uint32" if corpus.tokenizer.vocab_size > 1 << 16 else "uint16")
    assert {path.name for path in (tmp_path / "made").iterdir()} == FILES
    assert contents(open_corpus(tmp_path / "made")) == expected


def test_a_single_text_has_no_border(tmp_path: Path) -> None:
    """It is split by position, and nothing ends where a split does."""
    corpus = prepare(source(tmp_path, ["the cat sat on a mat"]), Bytes(), tmp_path / "made", 0.25, 0.25)
    assert b"".join(bytes(ids) for ids in contents(corpus).values()) == b"the cat sat on a mat"


def test_a_corpus_with_nothing_held_out(tmp_path: Path) -> None:
    """Empty splits, and no reference lines."""
    corpus = prepare(source(tmp_path), Bytes(), tmp_path / "made", 0, 0)
    assert [len(ids) for ids in contents(corpus).values()][1:] == [0, 0]
    assert corpus.meta["unigram_loss"] is corpus.meta["bigram_loss"] is None
    assert corpus.bytes_per_token("val") == 0


def test_threads_keep_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many work, and however the text is batched."""
    texts = ["x" * random.Random(i).randint(1, 90) + str(i) for i in range(200)]
    given = source(tmp_path, texts)
    expected = contents(prepare(given, Bytes(), tmp_path / "alone", 0.3, 0.2, workers=1))
    monkeypatch.setattr(tokens, "PIECE", 64)
    assert contents(prepare(given, Bytes(), tmp_path / "seven", 0.3, 0.2, workers=7)) == expected


def test_equal_texts_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """D21."""
    corpus = prepare(source(tmp_path, [*TEXTS, *TEXTS[:2]]), Bytes(), tmp_path / "made", 0.3, 0)
    assert corpus.meta["duplicates"] == 2
    assert "2 texts occur again, on the same side" in capsys.readouterr().err


def test_long_documents_are_tokenized_as_wholes(tmp_path: Path) -> None:
    """In pieces that give the ids of the whole."""
    text = "the cat's mats fit, 12 cats saw 1,000 dogs " * (PIECE // 30)
    corpus = prepare(source(tmp_path, [text, *TEXTS]), BPE(290), tmp_path / "made", 0, 0)
    assert corpus.tokenizer.state()["pattern"] == FASTER[PATTERN]
    whole = [*corpus.tokenizer.encode(text).tolist(), corpus.tokenizer.end_of_text]
    assert contents(corpus)["train"][: len(whole)] == whole


# Made once.


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    """Not even the texts are read."""
    given = source(tmp_path)
    expected = contents(prepare(given, Bytes(), tmp_path / "made", 0.2, 0))
    (tmp_path / "texts.jsonl").unlink()
    assert contents(prepare(given, Broken(), tmp_path / "made", 0.2, 0)) == expected


def test_the_folder_is_named_after_all_that_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D17: another text, tokenizer, setting or version never meets the token files of this one."""
    given, fitted = source(tmp_path), Characters()
    fitted.fit(["abc"])

    def folder(given: Source = given, tokenizer: Tokenizer | None = None, val: float = 0.1, test: float = 0.0) -> Path:
        return corpus_folder(given, tokenizer or Bytes(), val, test, tmp_path)

    first = folder()
    folders = [first, folder(val=0.2), folder(test=0.1), folder(source(tmp_path / "other"))]
    folders += [folder(tokenizer=kind) for kind in (Wide(), BPE(300), BPE(301), Characters(), Characters(True), fitted)]
    folders += [folder(Source(given.names, Reading(max_documents=3)))]
    assert folder() == first
    monkeypatch.setattr(tokens, "VERSION", tokens.VERSION + 1)
    folders += [folder()]
    folders += [folder(source(tmp_path, TEXTS[:3]))]
    assert len(set(folders)) == len(folders)


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LIT_LLM_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("LIT_LLM_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "lit_llm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache" / "lit_llm"


# What goes wrong.


@pytest.mark.parametrize(("by", "told"), [(200, "ids from 300 to 315"), (-120, "ids from -20 to -5")])
def test_ids_outside_of_the_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: int, told: str) -> None:
    """D3: refused where they are made, negative ones too (they would wrap around); nothing is left behind."""
    monkeypatch.setattr(Stray, "by", by)
    with pytest.raises(ValueError, match=f"the tokenizer Stray gave {told}, outside of its vocab_size 257"):
        prepare(source(tmp_path, ["on a mat", "dogsdogs"]), Stray(), tmp_path / "cache" / "made", 0, 0)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["made.lock"]


def test_a_failing_tokenizer_fails_as_itself(tmp_path: Path) -> None:
    """D20: its own error, which names the text; nothing is left behind."""
    with pytest.raises(RuntimeError, match="cannot encode 'big red dogs'"):
        prepare(source(tmp_path), Broken(), tmp_path / "cache" / "made", 0.2, 0)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["made.lock"]


def test_bad_input_leaves_nothing_behind(tmp_path: Path) -> None:
    """D1, D5: the refusal of the source comes through, in the middle of the work too."""
    given = source(tmp_path, [*TEXTS, "x"])
    (tmp_path / "texts.jsonl").write_text((tmp_path / "texts.jsonl").read_text() + "no JSON\n")
    with pytest.raises(ValueError, match="line 8 is no JSON"):
        prepare(given, Bytes(), tmp_path / "cache" / "made", 0.2, 0)
    (tmp_path / "texts.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"the corpus '.*texts\.jsonl' holds no text"):
        prepare(given, Bytes(), tmp_path / "cache" / "made", 0.2, 0)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["made.lock"]


DAMAGE: dict[str, Callable[[Path], Any]] = {
    **{f"no {name}": lambda folder, name=name: (folder / name).unlink() for name in sorted(FILES)},
    **{f"half of {name}": lambda folder, name=name: halve(folder / name) for name in sorted(FILES)},
    "a longer file": lambda folder: (folder / "val.bin").write_bytes(b"\0" * 1000),
    "other JSON": lambda folder: (folder / "meta.json").write_text("[]"),
    "no size": lambda folder: (folder / "meta.json").write_text('{"splits": {}, "dtype": "uint16"}'),
    "no type": lambda folder: edit(folder / "meta.json", dtype="uint17"),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").write_text('{"class_path": "os.system"}'),
    "an empty folder": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    "a file": lambda folder: (shutil.rmtree(folder), folder.touch()),
}


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_folder_is_refused(tmp_path: Path, kind: str) -> None:
    """D18: with its name and what to do; done so, it is made again."""
    given, folder = source(tmp_path), tmp_path / "made"
    expected = contents(prepare(given, Bytes(), folder, 0.2, 0.2))
    DAMAGE[kind](folder)
    for act in (lambda: open_corpus(folder), lambda: prepare(given, Bytes(), folder, 0.2, 0.2)):
        with pytest.raises(
            ValueError, match=f"the token folder '{folder}' is damaged .*delete it and it is made again"
        ):
            act()
    shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    assert contents(prepare(given, Bytes(), folder, 0.2, 0.2)) == expected


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """L6: the variable and the option are named."""
    given = source(tmp_path)
    for folder in (tmp_path / "texts.jsonl" / "cache", Path("/proc/nobody/cache")):
        with pytest.raises(ValueError, match=f"cannot write token files to '{folder}'") as caught:
            prepare(given, Bytes(), folder / "made", 0.2, 0)
        assert "set LIT_LLM_CACHE, or --data.cache_dir, to a folder that can be written" in str(caught.value)


# What begins a text.
class Begun(Bytes):
    """Bytes with an id before every text, as sentencepiece models of Llama have one."""

    vocab_size = 258
    begin_of_text = 257


@pytest.mark.parametrize("texts", [["the cat", "sat", "on a mat", "and saw"], ["x" * (2 * PIECE + 9)] + ["y"] * 9])
def test_a_document_begins_with_its_id(tmp_path: Path, texts: list[str]) -> None:
    """Each one once, however it is cut into pieces; in a folder of its own, and without such an id all is as before."""
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text)
    source = Source([str(tmp_path / "*.txt")], Reading())
    folders = [corpus_folder(source, tokenizer, 0.0, 0.0, tmp_path / "cache") for tokenizer in (Begun(), Bytes())]
    assert folders[0] != folders[1]
    begun, plain = (
        prepare(source, tokenizer, folder, 0.0, 0.0).tokens("train").tolist()
        for tokenizer, folder in zip((Begun(), Bytes()), folders, strict=True)
    )
    documents = [[257, *text.encode(), 256] for text in texts]
    assert begun == [i for document in documents for i in document]
    assert plain == [i for i in begun if i != 257]
