"""Token files: made once, by one process, trusted only when whole, in memory that does not know the corpus."""

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_llm.data import ngrams, tokens
from lit_llm.data.bpe import BPE, FASTER, PATTERN, Tiktoken
from lit_llm.data.sources import PIECE, Reading, Source
from lit_llm.data.splits import Plan
from lit_llm.data.tokenizer import Bytes, Characters, Tokenizer
from lit_llm.data.tokens import Corpus, cache_folder, corpus_folder, open_corpus, prepare

TEXTS = ["the cat sat", "on a naïve mat", "and saw 🙂", "big red dogs", "run home", "fast"]
FILES = {"train.bin", "val.bin", "test.bin", "meta.json", "tokenizer.json"}


def source(folder: Path, texts: list[str] = TEXTS) -> Source:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return Source(str(path), Reading())


def contents(corpus: Corpus) -> dict[str, list[int]]:
    return {split: corpus.tokens(split).tolist() for split in ("train", "val", "test")}


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
    corpus = prepare(source(tmp_path, [text, *TEXTS]), BPE(290), tmp_path / "made", 0.1, 0)
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


# Processes of their own.

HEAD = """
import resource, sys
from pathlib import Path
from lit_llm.data import ngrams, tokens
from lit_llm.data.sources import Reading, Source
from lit_llm.data.tokenizer import Bytes
text, folder = sys.argv[1:3]
tokens.PIECE = 1000  # small batches


class Waiting(Bytes):
    calls = 0

    def encode(self, text):
        Waiting.calls += 1
        if Waiting.calls == 5:  # in the middle
            print("under way", flush=True)
            sys.stdin.readline()
        return super().encode(text)


def prepare(tokenizer=None, workers=1):
    return tokens.prepare(Source(text, Reading()), tokenizer or Bytes(), Path(folder), 0.2, 0.1, workers)


"""


def child(code: str, *args: object) -> subprocess.Popen:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", HEAD + code, *map(str, args)], text=True, **pipes)


def documents(folder: Path) -> Source:
    """Each fills a batch, so that the work has a middle."""
    return source(folder, [f"{i} cats and dogs " * 100 for i in range(9)])


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """D18: nothing half-made is trusted, the rests are swept, and the next run makes the right corpus."""
    given = documents(tmp_path)
    folder = tmp_path / "cache" / "made"
    process = child("prepare(Waiting())", tmp_path / "texts.jsonl", folder)
    with process:
        assert process.stdout.readline() == "under way\n"
        process.kill()
    (part,) = folder.parent.glob("made.part-*")
    assert (part / "train.bin").exists()
    assert not folder.exists()
    corpus = prepare(given, Bytes(), folder, 0.2, 0.1)
    assert {path.name for path in folder.parent.iterdir()} == {"made", "made.lock"}
    assert contents(corpus) == contents(prepare(given, Bytes(), tmp_path / "unharmed", 0.2, 0.1))


def test_two_processes_at_once(tmp_path: Path) -> None:
    """D16: one builds, the other waits, both have the same corpus."""
    given, folder = documents(tmp_path), tmp_path / "cache" / "made"
    tell = "print({split: c.tokens(split).tolist() for split in tokens.SPLITS})"
    first = child(f"c = prepare(Waiting())\n{tell}", tmp_path / "texts.jsonl", folder)
    assert first.stdout is not None
    assert first.stdout.readline() == "under way\n"
    second = child(f"print('asks', flush=True)\nc = prepare()\n{tell}", tmp_path / "texts.jsonl", folder)
    assert second.stdout is not None
    assert second.stdout.readline() == "asks\n"
    assert second.poll() is None
    (out, err), (out_2, err_2) = first.communicate("\n", timeout=60), second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0), err + err_2
    assert out == out_2
    assert ("tokenized" in err, "tokenized" in err_2) == (True, False)
    assert out == f"{contents(prepare(given, Bytes(), tmp_path / 'alone', 0.2, 0.1))}\n"
    assert {path.name for path in folder.parent.iterdir()} == {"made", "made.lock"}


def test_a_full_disk(tmp_path: Path) -> None:
    """L6: one sentence, and no half-made folder stays."""
    documents(tmp_path)
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))\ntry:\n    prepare()\n"
    process = child(
        f"{limit}except ValueError as e:\n    print(e)", tmp_path / "texts.jsonl", tmp_path / "cache" / "made"
    )
    out, err = process.communicate(timeout=60)
    assert out.startswith(f"cannot write token files to '{tmp_path / 'cache'}' (File too large)"), err
    assert out.count("\n") == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["made.lock"]


# Not getrusage: its peak is at least that of the process which started this one.
MEASURE = """
prepare(workers=2)
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


def peak(text: Path, folder: Path, setup: str = "") -> int:
    """Bytes resident at most in a process of its own that has made a corpus."""
    out, err = child(setup + MEASURE, text, folder).communicate(timeout=290)
    assert out, err
    return int(out) * 1024


on_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")


def write_text(path: Path, size: int) -> Path:
    block = "".join(f"{i} cats and dogs and a naïve mat\n" for i in range(20_000)).encode()
    with path.open("wb") as file:
        for _ in range(size // len(block)):
            file.write(block)
    return path


@on_linux
def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    """Ten times the text, no more memory; the reference lines, which read a head of fixed length, set aside."""
    short = "ngrams.TRAIN_TOKENS = ngrams.VAL_TOKENS = 1000\n"
    peaks = [peak(write_text(tmp_path / f"{m}.txt", m * 10**6), tmp_path / str(m), short) for m in (8, 80)]
    assert peaks[1] < peaks[0] + 16_000_000  # pieces under way differ by luck; 72 MB more of text


@on_linux
@pytest.mark.slow
def test_a_gigabyte_of_text(tmp_path: Path) -> None:
    """In less than 1.5 GB, reference lines and all."""
    assert peak(write_text(tmp_path / "text.txt", 10**9), tmp_path / "made") < 1.5e9
    assert (tmp_path / "made" / "train.bin").stat().st_size > 1e9


@pytest.mark.slow
def test_preparing_is_nearly_as_fast_as_tiktoken_alone(
    tmp_path: Path, shared: Path, gpt2: Tiktoken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 % of its rate with one worker, the best of several in turn: the rest is done on a second, free core.

    The reference lines are set aside: they read a head of fixed length.
    """
    monkeypatch.setattr(ngrams, "TRAIN_TOKENS", 1000)
    monkeypatch.setattr(ngrams, "VAL_TOKENS", 1000)
    path, text = tmp_path / "text.txt", (shared / "text" / "wikipedia_sample.txt").read_text("utf-8") * 8
    path.write_text(text, "utf-8")

    def seconds(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    ours, alone = [], []
    for turn in range(5):
        given = Source(str(path), Reading())
        folder = tmp_path / str(turn)
        ours.append(seconds(lambda given=given, folder=folder: prepare(given, gpt2, folder, 0.1, 0, workers=1)))
        alone.append(seconds(lambda: gpt2.encoding.encode_to_numpy(text, disallowed_special=())))
    print(f"{min(alone) / min(ours):.0%} of the rate of tiktoken alone, {len(text) / 1e6 / min(ours):.1f} MB/s")
    assert min(alone) > 0.8 * min(ours)


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
