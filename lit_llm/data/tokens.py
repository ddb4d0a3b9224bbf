"""Token files: a corpus tokenized once into memory-mapped files that every later run and every rank reads.

A folder holds `train.bin`, `val.bin` and `test.bin` (bare uint16 or uint32 ids), `tokenizer.json` (its state) and
`meta.json`. It is written under another name and renamed when complete, so a killed run leaves nothing that is trusted.
"""

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from lit_llm.data.ngrams import ngram_losses
from lit_llm.data.sources import PIECE, Source
from lit_llm.data.tokenizer import Tokenizer, from_state, to_state

VERSION = 1  # of the folder's layout: part of the key, so that an older folder is never read
SPLITS = ("train", "val", "test")
FEW = 1000  # documents up to which a corpus is split by exact shares of characters


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
        """(N,) ids of a split, mapped from disk.

        Raises:
            ValueError: If the file is not as long as it was written.
        """
        path, size = self.folder / f"{split}.bin", self.meta["splits"][split]["tokens"]
        dtype = np.dtype(self.meta["dtype"])
        found = path.stat().st_size if path.exists() else 0
        if found != size * dtype.itemsize:
            raise ValueError(
                f"the token file '{path}' has {found} bytes where {size * dtype.itemsize} were written; "
                f"delete the folder '{self.folder}' and it is made again"
            )
        return np.memmap(path, dtype, "r").view(np.ndarray) if size else np.empty(0, dtype)

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
    identity = tokenizer.fingerprint() if tokenizer.is_fitted else f"{type(tokenizer).__qualname__} to be fitted"
    parts = [VERSION, source.fingerprint(), identity, tokenizer.settings(), val_fraction, test_fraction]
    return cache / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


def open_corpus(folder: Path) -> Corpus:
    """Open a folder that `prepare` has written.

    Raises:
        ValueError: If its description is missing or damaged.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        state = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"the token folder '{folder}' is damaged ({error}); delete it and it is made again") from error
    return Corpus(folder, meta, from_state(state))


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
    if folder.exists():
        return open_corpus(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{folder}.lock")
        lock.acquire()
    except OSError as error:
        raise ValueError(
            f"cannot write token files to '{folder.parent}' ({error.strerror}); set LIT_LLM_CACHE, or "
            "--data.cache_dir, to a folder that can be written"
        ) from error
    with lock:
        if not folder.exists():
            for leftover in folder.parent.glob(f"{folder.name}.part-*"):  # of a killed run: the lock is ours
                shutil.rmtree(leftover, ignore_errors=True)
            part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
            part.mkdir()
            try:
                _write(source, tokenizer, part, val_fraction, test_fraction, workers or os.cpu_count() or 1)
                os.replace(part, folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    return open_corpus(folder)


def _write(
    source: Source, tokenizer: Tokenizer, part: Path, val_fraction: float, test_fraction: float, workers: int
) -> None:
    plan = Plan(source, val_fraction, test_fraction)
    if not tokenizer.is_fitted:
        tokenizer.fit(piece for document in source for piece in document.pieces())
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    sizes = {split: {"tokens": 0, "bytes": 0, "documents": 0} for split in SPLITS}
    border = None if plan.is_single else tokenizer.end_of_text  # it stands between documents
    with ExitStack() as stack:
        files = {split: stack.enter_context(open(part / f"{split}.bin", "wb")) for split in SPLITS}
        bar = stack.enter_context(tqdm(desc=f"tokenizing {source}", unit="B", unit_scale=True, mininterval=0.5))
        for split, ids, length, ends in _tokenize(plan.pieces(), tokenizer, border, dtype, workers):
            ids.tofile(files[split])
            sizes[split]["tokens"] += len(ids)
            sizes[split]["bytes"] += length
            sizes[split]["documents"] += ends
            bar.update(length)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    meta: dict[str, Any] = {"source": str(source), "dtype": dtype.name, "vocab_size": tokenizer.vocab_size}
    meta |= {"splits": sizes, "duplicates": plan.duplicates}
    corpus = Corpus(part, meta, tokenizer)
    meta |= ngram_losses(corpus.tokens("train"), corpus.tokens("val"), tokenizer.vocab_size)
    _save(part / "meta.json", meta)
    _save(part / "tokenizer.json", to_state(tokenizer))


def _save(path: Path, content: dict[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


Piece = tuple[str, str, bool]  # split, text, whether a document ends here


class Plan:
    """Which text goes to which split.

    Many documents: each by a hash of its text, so equal texts land on one side whatever their number. Up to 1,000:
    whole documents in the order of that hash until the share is filled. One: by position, the head for training.
    """

    def __init__(self, source: Source, val_fraction: float, test_fraction: float) -> None:
        self.source = source
        self.shares = {"test": test_fraction, "val": val_fraction}
        few = [_measure(document.pieces()) for document in islice(source, FEW + 1)]
        self.total = sum(length for _, length in few)
        if not self.total:
            raise ValueError(f"the corpus '{source}' holds no text")
        self.is_single, self.is_small = len(few) == 1, len(few) <= FEW
        lengths = dict(few)
        self.duplicates = len(few) - len(lengths) if self.is_small else None
        held_out = self._held_out(lengths) if self.is_small else {}
        self.assigned = [held_out.get(digest, "train") for digest, _ in few]

    def _held_out(self, lengths: dict[str, int]) -> dict[str, str]:
        order = iter(sorted(lengths))
        assigned: dict[str, str] = {}
        for split, share in self.shares.items():
            filled = 0
            # At least one document for each split asked for, and at least one left for training.
            while filled < share * self.total and len(assigned) < len(lengths) - 1:
                digest = next(order)
                assigned[digest] = split
                filled += lengths[digest]
        return assigned

    def pieces(self) -> Iterator[Piece]:
        """The corpus in order, each piece with its split."""
        for number, document in enumerate(self.source):
            if self.is_single:
                yield from self._by_position(document.pieces())
                continue
            split = self.assigned[number] if self.is_small else self._by_hash(_measure(document.pieces())[0])
            yield from ((split, piece, False) for piece in document.pieces())
            yield split, "", True

    def _by_hash(self, digest: str) -> str:
        draw, edge = int(digest[:12], 16) / 16**12, 0.0
        for split, share in self.shares.items():
            edge += share
            if draw < edge:
                return split
        return "train"

    def _by_position(self, pieces: Iterable[str]) -> Iterator[Piece]:
        train = int(self.total * (1 - sum(self.shares.values())))
        ends = {"train": train, "val": train + round(self.total * self.shares["val"]), "test": self.total}
        if not self.shares["test"]:
            ends["val"] = self.total
        position, splits = 0, list(ends)
        for piece in pieces:
            while piece:
                while position >= ends[splits[0]]:
                    yield splits.pop(0), "", True
                room = ends[splits[0]] - position
                yield splits[0], piece[:room], False
                position += min(room, len(piece))
                piece = piece[room:]
        yield splits[0], "", True


def _measure(pieces: Iterable[str]) -> tuple[str, int]:
    """A hash of a document's text, and its length in characters."""
    digest, length = hashlib.blake2b(digest_size=16), 0
    for piece in pieces:
        digest.update(piece.encode("utf-8", errors="surrogatepass"))
        length += len(piece)
    return digest.hexdigest(), length


def _tokenize(
    pieces: Iterable[Piece], tokenizer: Tokenizer, border: int | None, dtype: np.dtype, workers: int
) -> Iterator[tuple[str, np.ndarray, int, int]]:
    """(split, ids, bytes, documents ended) of batches of pieces, in order; a bounded number is under way at once."""

    def encode(batch: list[Piece]) -> list[tuple[str, np.ndarray, int, int]]:
        results = []
        for split in dict.fromkeys(split for split, _, _ in batch):
            arrays, length, ends = [], 0, 0
            for name, text, end in batch:
                if name != split:
                    continue
                arrays.append(tokenizer.encode(text).astype(dtype))
                length += len(text) if text.isascii() else len(text.encode("utf-8", errors="replace"))
                ends += end
                if end and border is not None:
                    arrays.append(np.array([border], dtype))
            results.append((split, np.concatenate(arrays), length, ends))
        return results

    with ThreadPoolExecutor(workers) as pool:
        under_way: deque[Future] = deque()
        for batch in _batches(pieces):
            under_way.append(pool.submit(encode, batch))
            if len(under_way) > 2 * workers:
                yield from under_way.popleft().result()
        while under_way:
            yield from under_way.popleft().result()


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
