"""Which text is for training, which for validation and which for testing."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from lit_llm.data.sources import Source

FEW = 1000  # documents up to which a corpus is split by exact shares of characters
NEAR = 0.2  # of a share: whole documents are held out if they miss it by no more

Piece = tuple[str, str, bool]  # split, text, whether a document ends here


class Plan:
    """Which text goes to which split; empty documents go nowhere.

    Many documents: each by a hash of its text, so equal texts land on one side whatever their number. Up to 1,000:
    whole documents in the order of that hash, if the shares come out within a fifth of those asked for; else, and of
    one document, by position: in the order of that hash the head is for training, and one document is cut where a
    split ends, equal ones at the same place.

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
        lengths = {digest: length for digest, length in self.measures if length}
        self.duplicates = texts - len(lengths) if self.is_small else None
        self.empty = 0  # documents without text, known when all are read
        copies = Counter(digest for digest, length in self.measures if length)
        self.parts: dict[str, list[tuple[str, int]]] = {}  # of each text, with their lengths
        self.is_cut = False  # by position, though there are several documents
        if self.is_small:
            self._divide({digest: length * copies[digest] for digest, length in lengths.items()}, copies)

    def _divide(self, sizes: dict[str, int], copies: Counter[str]) -> None:
        total = sum(sizes.values())
        assigned = by_share(sizes, self.shares)
        held = Counter[str]()
        for digest, split in assigned.items():
            held[split] += sizes[digest]
        missed = [abs(held[split] - share * total) > NEAR * share * total for split, share in self.shares.items()]
        self.is_cut = any(missed) and not self.is_single
        if any(missed):
            self.parts = by_position(sizes, copies, self.shares)
        else:
            self.parts = {
                digest: [(assigned.get(digest, "train"), sizes[digest] // copies[digest])] for digest in sizes
            }

    def pieces(self) -> Iterator[Piece]:
        """The corpus in order, each piece with its split."""
        self.empty = 0
        for number, document in enumerate(self.source):
            digest, length = self.measures[number] if self.is_small else _measure(document.pieces())
            if not length:
                self.empty += 1
            elif self.is_small:
                yield from _cut(document.pieces(), self.parts[digest])
            else:
                split = self._by_hash(digest)
                yield from ((split, piece, False) for piece in document.pieces())
                yield split, "", True

    def _by_hash(self, digest: str) -> str:
        draw, edge = int(digest[:12], 16) / 16**12, 0.0
        for split, share in self.shares.items():
            edge += share
            if draw < edge:
                return split
        return "train"


def _cut(pieces: Iterable[str], parts: list[tuple[str, int]]) -> Iterator[Piece]:
    """A document in the parts of its splits; each ends there."""
    waiting = list(parts)
    for piece in pieces:
        while piece:
            split, room = waiting[0]
            yield split, piece[:room], False
            waiting[0] = split, room - min(room, len(piece))
            piece = piece[room:]
            if not waiting[0][1]:
                yield waiting.pop(0)[0], "", True


def by_position(
    sizes: Mapping[str, int], copies: Mapping[str, int], shares: Mapping[str, float]
) -> dict[str, list[tuple[str, int]]]:
    """The parts of texts that stand one after the other, in the order of their names: training, validation, testing.

    Args:
        sizes: Characters of each text and all its copies.
        copies: How often each text occurs. All copies are cut at the same place, so that none of them holds in one
            split what another one holds in the other.
        shares: Of each split, in all that there is; training gets the rest.

    Returns:
        Splits and lengths of the parts of each text, none of them empty.
    """
    total = sum(sizes.values())
    train = int(total * (1 - sum(shares.values())))
    ends = {"train": train, "val": total if not shares["test"] else train + round(total * shares["val"]), "test": total}
    parts: dict[str, list[tuple[str, int]]] = {}
    start = 0
    for name in sorted(sizes):
        length, done, parts[name] = sizes[name] // copies[name], 0, []
        for split, end in ends.items():
            place = min(max(round((end - start) / copies[name]), done), length)
            if place > done:
                parts[name].append((split, place - done))
            done = place
        start += sizes[name]
    return parts


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
