"""Equal and nearly equal texts: which belong together, and how many there are."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from lit_llm.data.packing import Examples
from lit_llm.data.splits import by_share

SHINGLE = 5  # tokens
HASHES, BANDS = 32, 8  # bands of four: what is half equal is found with probability 0.4, at 0.8 with 0.98
COMMON = 0.1  # a shingle in more than this share of the texts belongs to a template, or to how everybody writes


def normalized(text: str) -> str:
    """A text without what does not make it another: case, white space, punctuation, and how characters are written."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())) or text.strip()


def split_groups(keys: Sequence[str], shares: dict[str, float], seed: int) -> np.ndarray:
    """Which split each row belongs to; rows of one key stay together.

    Keys come in the order of a hash, and go to a split as long as it has room, so the shares are met as nearly as the
    sizes of the groups allow; at least one goes to each split asked for, as long as one is left for training.

    Args:
        keys: Of each row.
        shares: Of the splits beside training, in all rows.
        seed: Changes the order.

    Returns:
        (rows,) names of splits.
    """
    digests = [hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).hexdigest() for key in keys]
    held_out = by_share(Counter(digests), shares)
    return np.array([held_out.get(digest, "train") for digest in digests])


def count_near_duplicates(examples: Examples, threshold: float = 0.8) -> int:
    """Examples of which much the same has come before.

    By MinHash (Broder, 1997, https://doi.org/10.1109/SEQUEN.1997.666900), each beside the first of its band.

    Args:
        examples: The examples.
        threshold: Share of five-token stretches, of those that are in either, which two of them have in common.
    """
    ids, starts = examples.ids, examples.starts
    signatures, has_any = _signatures(ids.astype(np.uint64), starts)
    near = np.zeros(len(starts) - 1, dtype=bool)
    for band in np.split(signatures, BANDS, axis=1):
        key = (band * np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, band.shape[1] + 1, dtype=np.uint64)).sum(axis=1)
        order = np.lexsort((np.arange(len(key)), key))
        order = order[has_any[order]]
        first = np.concatenate([[0], 1 + np.flatnonzero(np.diff(key[order]))]).astype(np.int64)
        leader = np.repeat(order[first], np.diff([*first, len(order)])) if len(order) else order
        alike = (signatures[order] == signatures[leader]).mean(axis=1)
        near[order[(alike >= threshold) & (order != leader)]] = True
    return int(near.sum())


def _signatures(ids: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(E, HASHES) least hashes of each text's rarer shingles, and (E,) whether it has any."""
    texts, weights = len(starts) - 1, np.random.default_rng(0).integers(1, 1 << 62, (SHINGLE + HASHES,), np.uint64)
    signatures, has_any = np.full((texts, HASHES), np.iinfo(np.uint64).max), np.zeros(texts, bool)
    if len(ids) < SHINGLE:
        return signatures, has_any
    hashes = np.zeros(len(ids) - SHINGLE + 1, np.uint64)
    for step in range(SHINGLE):
        hashes += (ids[step : step + len(hashes)] + np.uint64(1)) * (weights[step] | np.uint64(1))
        hashes ^= hashes >> np.uint64(29)
    owner = np.searchsorted(starts, np.arange(len(hashes)), side="right") - 1
    kept = np.arange(len(hashes)) + SHINGLE <= starts[owner + 1]
    hashes, owner = hashes[kept], owner[kept]
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    rare = counts[inverse] <= max(COMMON * texts, 10)
    hashes, owner = hashes[rare], owner[rare]
    if len(hashes):
        first = np.concatenate([[0], 1 + np.flatnonzero(np.diff(owner))])
        has_any[owner[first]] = True
        for number, weight in enumerate(weights[SHINGLE:]):
            mixed = hashes * (weight | np.uint64(1))
            signatures[owner[first], number] = np.minimum.reduceat(mixed ^ (mixed >> np.uint64(31)), first)
    return signatures, has_any
