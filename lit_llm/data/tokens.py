"""Token files: a corpus tokenized once into memory-mapped files that every later run and every rank reads.

A folder holds `train.bin`, `val.bin` and `test.bin` (bare uint16 or uint32 ids), `tokenizer.json` (its state) and
`meta.json`. It is written under another name and renamed when complete, so a killed run leaves nothing that is trusted.
"""

import hashlib
import json
import os
import shutil
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

from lit_llm.data.corpora import Sizes, labelled_pieces, refuse_empty, repeated_stretches
from lit_llm.data.corpus_notes import counted, left_out, notes
from lit_llm.data.ngrams import ngram_losses
from lit_llm.data.sources import PIECE, Source
from lit_llm.data.splits import Piece, Plan
from lit_llm.data.tokenizer import Tokenizer, from_state, to_state
from lit_llm.terminal import visible

VERSION = 3  # of what a folder holds: part of the key, so that an older folder is never read
SPLITS = ("train", "val", "test")


@dataclass
class Corpus:
    """A tokenized corpus on disk.

    Args:
        folder: Where it lies.
        meta: Sizes of its splits, and its n-gram losses.
        tokenizer: The tokenizer that made it.
    """

    folder: Path
    meta: dict[str, Any]
    tokenizer: Tokenizer

    def tokens(self, split: str) -> np.ndarray:
        """(N,) ids of a split, mapped from disk."""
        dtype = np.dtype(self.meta["dtype"])
        if not self.meta["splits"][split]["tokens"]:
            return np.empty(0, dtype)  # no file of no bytes can be mapped
        return np.memmap(self.folder / f"{split}.bin", dtype, "r").view(np.ndarray)

    def bytes_per_token(self, split: str) -> float:
        """UTF-8 bytes of text for each token of a split."""
        sizes = self.meta["splits"][split]
        return sizes["bytes"] / max(sizes["tokens"], 1)


def cache_folder() -> Path:
    """Where token files are kept: LIT_LLM_CACHE, or `lit_llm` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lit_llm"
    return Path(os.environ.get("LIT_LLM_CACHE") or default).expanduser()


def corpus_folder(source: Source, tokenizer: Tokenizer, val_fraction: float, test_fraction: float, cache: Path) -> Path:
    """The folder for a corpus: its name is a fingerprint of sources, tokenizer and settings."""
    kind = type(tokenizer)
    to_be_fitted = [kind.__module__, kind.__qualname__, tokenizer.settings()]
    identity = tokenizer.fingerprint() if tokenizer.is_fitted else to_be_fitted
    parts = [VERSION, source.fingerprint(), identity, val_fraction, test_fraction]
    parts += [] if tokenizer.begin_of_text is None else ["documents begin with its id"]
    return cache / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


def open_corpus(folder: Path, tokenizer: Tokenizer | None = None) -> Corpus:
    """Open a folder that `prepare` has written.

    Args:
        folder: Where it lies.
        tokenizer: The tokenizer that made it, where it is at hand. None: it is rebuilt from the folder.

    Raises:
        ValueError: If a file is missing, damaged, or not as long as it was written.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        tokenizer = tokenizer or from_state(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")))
        for split in SPLITS:
            found = (folder / f"{split}.bin").stat().st_size
            wanted = meta["splits"][split]["tokens"] * np.dtype(meta["dtype"]).itemsize
            if found != wanted:
                raise ValueError(f"{split}.bin has {found} bytes where {wanted} were written")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"the token folder '{folder}' is damaged ({error}); delete it and it is made again") from error
    return Corpus(folder, meta, tokenizer)


def prepare(
    source: Source,
    tokenizer: Tokenizer,
    folder: Path,
    val_fraction: float,
    test_fraction: float,
    workers: int | None = None,
) -> Corpus:
    """Tokenize a corpus into `folder`, unless that is done; of several processes one works and the others wait.

    Args:
        source: The documents.
        tokenizer: The tokenizer; fitted here if it learns from the corpus.
        folder: Where the result goes.
        val_fraction: Share of the text held out for validation, in [0, 1).
        test_fraction: Share of the text held out for testing, in [0, 1).
        workers: Threads that tokenize (tiktoken works outside Python's lock). None: one a core.

    Raises:
        ValueError: If the corpus is empty, or the cache cannot be written.
    """
    try:
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not folder.exists():
                    _build(source, tokenizer, folder, val_fraction, test_fraction, workers or os.cpu_count() or 1)
                    source.has_told = True
                    return open_corpus(folder, tokenizer)
    except OSError as error:  # of writing: what cannot be read is a ValueError already
        raise ValueError(
            f"cannot write token files to '{folder.parent}' ({error.strerror or error}); set LIT_LLM_CACHE, or "
            "--data.cache_dir, to a folder that can be written and has room"
        ) from error
    corpus = open_corpus(folder)
    if not source.has_told:
        _tell([f"{source}: {note}" for note in (left_out(source), *corpus.meta["notes"]) if note])
        source.has_told = True
    return corpus


@rank_zero_only
def _tell(lines: list[str]) -> None:
    for line in lines:
        print(visible(line), file=sys.stderr)


def _build(
    source: Source, tokenizer: Tokenizer, folder: Path, val_fraction: float, test_fraction: float, workers: int
) -> None:
    for leftover in folder.parent.glob(f"{folder.name}.part-*"):  # of a killed run: the lock is ours
        shutil.rmtree(leftover, ignore_errors=True)
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    part.mkdir()
    try:
        _write(source, tokenizer, part, val_fraction, test_fraction, workers)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(
    source: Source, tokenizer: Tokenizer, part: Path, val_fraction: float, test_fraction: float, workers: int
) -> None:
    refuse_empty(source)
    plan = Plan(source, val_fraction, test_fraction)
    if not tokenizer.is_fitted:
        tokenizer.fit(piece for document in source for piece in document.pieces())
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    sizes = Sizes(source, SPLITS)
    marks: Counter[str] = Counter()
    border = None if plan.is_single else tokenizer.end_of_text  # it stands between documents
    with ExitStack() as stack:
        files = {split: stack.enter_context(open(part / f"{split}.bin", "wb")) for split in SPLITS}
        bar = stack.enter_context(tqdm(desc=f"tokenizing {source}", unit="B", unit_scale=True, mininterval=0.5))
        pieces = counted(labelled_pieces(source, plan), marks)
        for label, ids, length, ends in _tokenize(pieces, tokenizer, border, dtype, workers):
            files[sizes.add(label, len(ids), length, ends)].write(ids.data)
            bar.update(length)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    meta: dict[str, Any] = {"source": str(source), "dtype": dtype.name, "vocab_size": tokenizer.vocab_size}
    meta |= {"splits": sizes.of, "trained": sizes.trained, "duplicates": plan.duplicates}
    meta["notes"] = notes(plan, sizes.of, tokenizer, marks)
    corpus = Corpus(part, meta, tokenizer)
    own = getattr(source, "own", ())
    meta["repeated"] = {split: repeated_stretches(corpus.tokens("train"), corpus.tokens(split)) for split in own}
    meta |= ngram_losses(corpus.tokens("train"), corpus.tokens("val"), tokenizer.vocab_size)
    _save(part / "meta.json", meta)
    _save(part / "tokenizer.json", to_state(tokenizer))
    counts = ", ".join(f"{sizes.of[split]['tokens']:,} for {split}" for split in SPLITS)
    again = f"; {plan.duplicates} texts occur again, on the same side" if plan.duplicates else ""
    skipped = f"; {told}" if (told := left_out(source)) else ""
    _tell([f"tokenized {source}: {counts}{again}{skipped}", *(f"{source}: {note}" for note in meta["notes"])])


def _save(path: Path, content: dict[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _tokenize(
    pieces: Iterable[Piece], tokenizer: Tokenizer, border: int | None, dtype: np.dtype, workers: int
) -> Iterator[tuple[str, np.ndarray, int, int]]:
    """(split, ids, bytes, documents ended) of batches of pieces, in order; a bounded number is under way at once.

    A document begins with the begin-of-text id if the tokenizer has one, as Llama and Gemma have read theirs.
    """
    begin = tokenizer.begin_of_text

    def encode(batch: list[Piece], begins: bool) -> list[tuple[str, np.ndarray, int, int]]:
        results = []
        for split in dict.fromkeys(split for split, _, _ in batch):
            arrays, length, ends = [], 0, 0
            for (name, text, end), is_first in zip(batch, (begins, *(end for _, _, end in batch)), strict=False):
                if name != split:
                    continue
                if is_first and begin is not None:
                    arrays.append(np.array([begin], dtype))
                arrays.append(_checked(tokenizer.encode(text), tokenizer).astype(dtype))
                length += len(text) if text.isascii() else len(text.encode())
                ends += end
                if end and border is not None:
                    arrays.append(np.array([border], dtype))
            results.append((split, np.concatenate(arrays), length, ends))
        return results

    with ThreadPoolExecutor(workers) as pool:
        under_way: deque[Future] = deque()
        begins = True
        for batch in _batches(pieces):
            under_way.append(pool.submit(encode, batch, begins))
            begins = bool(batch[-1][2])
            if len(under_way) > 2 * workers:
                yield from under_way.popleft().result()
        while under_way:
            yield from under_way.popleft().result()


def _checked(ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    if len(ids) and not 0 <= ids.min() <= ids.max() < tokenizer.vocab_size:
        raise ValueError(
            f"the tokenizer {type(tokenizer).__qualname__} gave ids from {ids.min()} to {ids.max()}, "
            f"outside of its vocab_size {tokenizer.vocab_size}"
        )
    return ids


def _batches(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Pieces in batches of about PIECE characters, so that short documents do not each cost a task."""
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece[1])
        if size >= PIECE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
