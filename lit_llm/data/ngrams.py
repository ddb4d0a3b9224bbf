"""What a table of counts achieves on a corpus: the reference lines that a language model has to beat."""

import numpy as np

TRAIN_TOKENS, VAL_TOKENS = 10_000_000, 1_000_000  # enough for a reference line, and seconds of work


def ngram_losses(train: np.ndarray, val: np.ndarray, vocab_size: int) -> dict[str, float | None]:
    """Nats per token of a unigram and a bigram model, counted on the head of `train` and scored on that of `val`.

    The bigram model falls back on the unigrams, P(b | a) = (n(ab) + m P(b)) / (n(a) + m), with the m that suits the
    validation text best: the line is as low as bigrams can draw it.

    Args:
        train: (N,) ids; the first 10 million count.
        val: (M,) ids; the first million are scored.
        vocab_size: Number of ids.

    Returns:
        `unigram_loss` and `bigram_loss`; None where there is nothing to score.
    """
    train, val = train[:TRAIN_TOKENS].astype(np.int64), val[:VAL_TOKENS].astype(np.int64)
    if len(train) < 2 or len(val) < 2:
        return {"unigram_loss": None, "bigram_loss": None}
    counts = np.bincount(train, minlength=vocab_size)
    unigram = (counts + 1) / (counts.sum() + vocab_size)  # (V,)
    pairs, pair_counts = np.unique(train[:-1] * vocab_size + train[1:], return_counts=True)
    firsts = np.bincount(train[:-1], minlength=vocab_size)
    wanted = val[:-1] * vocab_size + val[1:]
    places = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    seen = np.where(pairs[places] == wanted, pair_counts[places], 0)
    after, before = unigram[val[1:]], firsts[val[:-1]]
    bigram = min(-np.log((seen + m * after) / (before + m)).mean() for m in (0.1, 1, 10, 100, 1000))
    return {"unigram_loss": float(-np.log(after).mean()), "bigram_loss": float(bigram)}
