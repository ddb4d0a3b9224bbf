"""Corpora made by processes that are killed, meet, run out of space, or are measured."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_corpora import contents, source

from lit_llm.data import ngrams
from lit_llm.data.bpe import Tiktoken
from lit_llm.data.sources import Reading, Source
from lit_llm.data.tokenizer import Bytes
from lit_llm.data.tokens import prepare

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
