"""Which text is for training, which for validation and which for testing."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from lit_llm.data.sources import Document, Source

FEW = 1000  # documents up to which a corpus is split by exact shares of characters

Piece = tuple[str, str, bool]  # split, text, whether a document ends here


class Plan:
    """Which text goes to which split; empty documents go nowhere.

    Many documents: each by a hash of its text, so equal texts land on one side whatever their number. Up to 1,000:
    whole documents in the order of that hash, as near to the share as they come. One: by position, the head for
    training.

    Args:
        source: The documents.
        val_fraction: Share of the text for validation, in [0, 1).
        test_fraction: Share of the text for testing, in [0, 1).

    Raises:
        ValueError: If there is no text.
    """

    def __init__(self, source: Source, val_fraction: float, test_fraction: float) -> None:
        self.source = source
        self.shares = {"test": test_fraction, "val": val_fraction}
        self.measures: list[tuple[str, int]] = []  # of the first documents
        texts = 0
        for document in source:
            self.measures.append(_measure(document.pieces()))
            texts += self.measures[-1][1] > 0
            if texts > FEW:
                break
        if not texts:
            raise ValueError(f"the corpus '{source}' holds no text")
        self.is_single, self.is_small = texts == 1, texts <= FEW
        lengths: Counter[str] = Counter()
        for digest, length in self.measures:
            lengths[digest] += length
        lengths = +lengths  # without the empty one
        self.total = lengths.total()
        self.duplicates = texts - len(lengths) if self.is_small else None
        self.assigned = by_share(lengths, self.shares) if self.is_small else {}

    def pieces(self) -> Iterator[Piece]:
        """The corpus in order, each piece with its split."""
        if self.is_single:
            yield from self._by_position(piece for document in self.source for piece in document.pieces())
            return
        for number, document in enumerate(self.source):
            if split := self._split(number, document):
                yield from ((split, piece, False) for piece in document.pieces())
                yield split, "", True

    def _split(self, number: int, document: Document) -> str | None:
        digest, length = self.measures[number] if self.is_small else _measure(document.pieces())
        if not length:
            return None
        return self.assigned.get(digest, "train") if self.is_small else self._by_hash(digest)

    def _by_hash(self, digest: str) -> str:
        draw, edge = int(digest[:12], 16) / 16**12, 0.0
        for split, share in self.shares.items():
            edge += share
            if draw < edge:
                return split
        return "train"

    def _by_position(self, pieces: Iterable[str]) -> Iterator[Piece]:
        train = int(self.total * (1 - sum(self.shares.values())))
        val = self.total if not self.shares["test"] else train + round(self.total * self.shares["val"])
        ends = {"train": train, "val": val, "test": self.total}
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


def refuse_shares(val_fraction: float, test_fraction: float) -> None:
    """Refuse shares that cannot be held out.

    Raises:
        ValueError: If one is negative, or nothing is left to train on.
    """
    if not (val_fraction >= 0 and test_fraction >= 0 and val_fraction + test_fraction < 1):
        raise ValueError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction} cannot be: none is negative, "
            "and something is left to train on"
        )


def by_share(sizes: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, str]:
    """Which wholes are held out, in the order of their names, as near to the shares as they come.

    At least one goes to each split asked for, as long as one is left for training.

    Args:
        sizes: Size of each whole.
        shares: Of each split, in all that there is; training gets the rest.

    Returns:
        The split of each whole that is held out.
    """
    assigned: dict[str, str] = {}
    names, total = sorted(sizes), sum(sizes.values())
    waiting = sum(share > 0 for share in shares.values())
    for split, share in shares.items():
        left = [name for name in names if name not in assigned]
        waiting -= share > 0
        room = len(left) - 1 - waiting  # one stays for training, and one for each split that comes later
        wanted = share * total
        taken: list[str] = []
        for name in left:
            # Nearer to the share with it than without it.
            if sizes[name] <= 2 * wanted and len(taken) < room:
                taken.append(name)
                wanted -= sizes[name]
        if share and not taken and room > 0:
            taken = [min(left, key=sizes.__getitem__)]
        assigned |= dict.fromkeys(taken, split)
    return assigned


def _measure(pieces: Iterable[str]) -> tuple[str, int]:
    """A hash of a document's text, and its length in characters."""
    digest, length = hashlib.blake2b(digest_size=16), 0
    for piece in pieces:
        digest.update(piece.encode())
        length += len(piece)
    return digest.hexdigest(), length
