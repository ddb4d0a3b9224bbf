"""Which labelled text is for training, which for validation and which for testing; what leaks if rows are drawn."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from lit_llm.data.splits import by_share

ZEROS = str.maketrans("123456789", "0" * 9)  # a third of the time of the expression, which knows digits of all scripts


def normalised(text: str) -> str:
    """What two texts share that are the same message: case, amounts of white space and digits do not count."""
    text = " ".join(text.lower().translate(ZEROS).split())
    return text if text.isascii() else re.sub(r"\d", "0", text)


def split_texts(texts: Sequence[str], targets: np.ndarray, shares: Mapping[str, float], seed: int) -> np.ndarray:
    """Divide each class by the same shares; texts that repeat each other (`normalised`) stay on one side.

    What goes where is a function of the texts and the seed alone: neither the order of the rows nor any global
    generator matters, and a text stays where it is for most others that are added.

    Args:
        texts: N texts.
        targets: (N,) their classes. Repetitions with different ones belong to the class of most of them.
        shares: Of each split that is held out; the rest is "train". A class with fewer different texts than splits
            has none in some of those that are held out.
        seed: Chooses the split.

    Returns:
        (N,) the name of each text's split.
    """
    keys = [hashlib.blake2b(f"{seed} {normalised(text)}".encode(), digest_size=16).hexdigest() for text in texts]
    classes: dict[str, Counter[int]] = defaultdict(Counter)
    for key, target in zip(keys, targets.tolist(), strict=True):
        classes[key][target] += 1
    sizes: dict[int, dict[str, int]] = defaultdict(dict)
    for key, counts in classes.items():
        most = min(counts, key=lambda target: (-counts[target], target))
        sizes[most][key] = counts.total()
    held_out = {key: split for of_class in sizes.values() for key, split in by_share(of_class, shares).items()}
    return np.array([held_out.get(key, "train") for key in keys])


def split_rows(count: int, shares: Mapping[str, float], seed: int) -> np.ndarray:
    """A split that knows nothing of texts or classes: (N,) names. It is here to be compared with."""
    splits = np.full(count, "train", dtype=np.array(["train", *shares]).dtype)
    order = np.random.default_rng(seed).permutation(count)
    start = 0.0
    for split, share in shares.items():
        splits[order[round(start * count) : round((start + share) * count)]] = split
        start += share
    return splits


def leaked(texts: Sequence[str], splits: np.ndarray, split: str) -> int:
    """How many texts of a held-out split repeat one that is trained on; all of them `normalised`."""
    seen = {text for text, name in zip(texts, splits, strict=True) if name == "train"}
    return sum(name == split and text in seen for text, name in zip(texts, splits, strict=True))


def undersampled(targets: np.ndarray, seed: int) -> np.ndarray:
    """As many of each class as there are of the rarest, drawn without looking at them.

    Args:
        targets: (N,) classes, of which each occurs.
        seed: Chooses them.

    Returns:
        (M,) places of those that stay, in their order.
    """
    order = np.random.default_rng(seed).permutation(len(targets))
    fewest = np.unique(targets, return_counts=True)[1].min()
    return np.sort(np.concatenate([order[targets[order] == each][:fewest] for each in np.unique(targets)]))
