"""Who is trained on and who is held out: nothing lost, nothing on two sides, shares as asked."""

import json
import random
from collections import Counter, defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lit_llm.data.sources import PIECE, Reading, Source
from lit_llm.data.splits import FEW, NEAR, Plan

LETTERS = st.text(st.sampled_from("ab é\n"), max_size=9)
SHARES = st.tuples(st.floats(0, 0.6), st.floats(0, 0.39))


def plan(texts: list[str], val: float, test: float, folder: Path) -> Plan:
    """Of one JSONL file; of a folder of texts if some are empty, because an empty row is no document at all."""
    if all(texts):
        path = folder / "texts.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return Plan(Source(str(path), Reading()), val, test)
    for number, text in enumerate(texts):
        (folder / f"{number:04}.txt").write_bytes(text.encode())
    return Plan(Source(str(folder), Reading()), val, test)


def documents(plan: Plan) -> dict[str, list[str]]:
    """The documents of each split; each is ended exactly once, and none is interrupted by another."""
    done, parts = defaultdict(list), []
    for split, text, ends in plan.pieces():
        parts.append((split, text))
        if ends:
            assert {name for name, _ in parts} == {split}
            done[split].append("".join(text for _, text in parts))
            parts = []
    assert not parts
    return done


def split_of(texts: list[str], val: float, test: float) -> tuple[Plan, dict[str, list[str]]]:
    with TemporaryDirectory() as folder:
        made = plan(texts, val, test, Path(folder))
        return made, documents(made)


def texts_of(plan: Plan) -> list[list[tuple[str, str]]]:
    """The parts of each document that is not empty, in order: split and text."""
    parts, done = [], []
    for split, text, ends in plan.pieces():
        parts.append((split, text))
        if ends:
            done.append((parts[0][0], "".join(text for _, text in parts)))
            parts = []
    lengths = [length for _, length in plan.measures if length]
    found, waiting = [], iter(done)
    for length in lengths:
        one = [next(waiting)]
        while sum(len(text) for _, text in one) < length:
            one.append(next(waiting))
        found.append(one)
    assert not list(waiting)
    return found


@given(st.lists(LETTERS, min_size=1, max_size=12).filter(any), SHARES)
def test_nothing_is_lost_and_nothing_is_on_two_sides(texts: list[str], shares: tuple[float, float]) -> None:
    """D21: equal documents are divided in the same way, and how many there are is counted; empty ones go nowhere."""
    with TemporaryDirectory() as folder:
        made = plan(texts, *shares, Path(folder))
        found = texts_of(made)
    real = [text for text in texts if text]
    assert ["".join(part for _, part in parts) for parts in found] == real
    assert len({(text, str(parts)) for text, parts in zip(real, found, strict=True)}) == len(set(real))
    assert made.duplicates == len(real) - len(set(real))
    assert made.is_cut or len(real) == 1 or all(len(parts) == 1 for parts in found)
    assert made.empty == len(texts) - len(real)


@given(st.lists(LETTERS.filter(bool), min_size=1, max_size=15), SHARES)
@example(["cccccc0.129", "dd0.7", "eee0.5"], (0.1, 0.4))
@example(["one", "one"], (0.05, 0.0))
def test_shares_of_few_documents_are_those_asked_for(texts: list[str], shares: tuple[float, float]) -> None:
    """Within a fifth as wholes; else to a character and one more for each copy of a text that is cut."""
    made, found = split_of(texts, *shares)
    total, most = sum(map(len, texts)), max(Counter(texts).values())
    for split, share in zip(("val", "test"), shares, strict=True):
        size = sum(map(len, found[split]))
        if made.is_cut or made.is_single:
            assert abs(size - share * total) <= 1 + most
        else:
            assert abs(size - share * total) <= NEAR * share * total


SHAPES = {
    "one": [4000],
    "two": [4000, 3000],
    "three": [5000, 100, 4000],
    "four": [10, 20, 30, 9000],
    "five equal lengths": [2000] * 5,
    "a giant": [50_000, *[9] * 40],
    "seven": [1000] * 7,
}


def words(length: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("abcdefghijklmnop ", k=length))


@pytest.mark.parametrize("val", [0.01, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_share_is_met_whatever_the_documents_are(tmp_path: Path, shape: str, val: float) -> None:
    _, found = split_of([words(length, seed) for seed, length in enumerate(SHAPES[shape])], val, 0.0)
    total = sum(SHAPES[shape])
    assert sum(map(len, found["val"])) == pytest.approx(val * total, rel=NEAR + 1e-3, abs=2)
    assert sum(map(len, found["train"])) + sum(map(len, found["val"])) == total


@pytest.mark.parametrize("copies", [1, 2, 3, 5])
def test_what_is_cut_by_position_does_not_leak(copies: int) -> None:
    """However often a text occurs, no stretch of what is held out is trained on."""
    texts = [words(4000, seed) for seed in range(2)] * copies
    made, found = split_of(texts, 0.05, 0.05)
    assert made.is_cut
    trained = "\n".join(found["train"])
    for split in ("val", "test"):
        assert sum(map(len, found[split])) == pytest.approx(0.05 * sum(map(len, texts)), abs=copies)
        for text in found[split]:
            assert not [i for i in range(0, len(text) - 30, 7) if text[i : i + 30] in trained]


@given(st.lists(LETTERS.filter(bool), min_size=2, max_size=12), SHARES, st.randoms())
def test_the_order_of_documents_does_not_matter(
    texts: list[str], shares: tuple[float, float], choose: random.Random
) -> None:
    shuffled = texts.copy()
    choose.shuffle(shuffled)
    (_, one), (_, two) = split_of(texts, *shares), split_of(shuffled, *shares)
    assert {split: Counter(found) for split, found in one.items()} == {k: Counter(v) for k, v in two.items()}


@pytest.mark.parametrize("count", [FEW, FEW + 1, 3 * FEW])
def test_shares_of_many_documents(tmp_path: Path, count: int) -> None:
    made = plan([f"number {i}" for i in range(count)], 0.2, 0.1, tmp_path)
    found = documents(made)
    assert made.is_small == (count <= FEW)
    for split, share in {"val": 0.2, "test": 0.1}.items():
        deviation = (count * share * (1 - share)) ** 0.5  # of as many throws of a coin
        assert abs(len(found[split]) - share * count) < 4 * deviation
    assert sum(map(len, found.values())) == count


def test_equal_documents_of_many_land_on_one_side(tmp_path: Path) -> None:
    """D21: by construction, however far apart they are; they are not counted, since that would take memory."""
    texts = [f"number {i % 700}" for i in range(2 * FEW)]
    made = plan(texts, 0.3, 0.2, tmp_path)
    found = documents(made)
    assert Counter(text for split in found.values() for text in split) == Counter(texts)
    assert sum(len(set(split)) for split in found.values()) == 700
    assert made.duplicates is None


def test_a_document_keeps_its_side_as_others_come(tmp_path: Path) -> None:
    """More text of the same kind does not move what was held out into training."""
    texts = [f"number {i}" for i in range(2 * FEW)]
    few, more = documents(plan(texts[: FEW + 1], 0.2, 0.1, tmp_path)), documents(plan(texts, 0.2, 0.1, tmp_path))
    for split in ("train", "val", "test"):
        assert set(few[split]) <= set(more[split])


@pytest.mark.parametrize(
    ("val", "test", "sizes"),
    [(0.1, 0.2, (71, 10, 20)), (0.1, 0, (90, 11, 0)), (0, 0.3, (70, 0, 31)), (0, 0, (101, 0, 0))],
)
def test_one_text_is_split_by_position(tmp_path: Path, val: float, test: float, sizes: tuple[int, ...]) -> None:
    """The head for training, then validation, then testing; no overlap."""
    text = "".join(random.Random(0).choices("abcdefgh é", k=101))
    found = documents(plan([text], val, test, tmp_path))
    parts = ["".join(found[split]) for split in ("train", "val", "test")]
    assert "".join(parts) == text
    assert all(abs(len(part) - size) <= 1 for part, size in zip(parts, sizes, strict=True))


def test_one_text_among_empty_ones_is_split_by_position(tmp_path: Path) -> None:
    made = plan(["", "abcdefghij", ""], 0.2, 0.1, tmp_path)
    assert made.is_single
    assert documents(made) == {"train": ["abcdefg"], "val": ["hi"], "test": ["j"]}


def test_long_documents_stay_whole(tmp_path: Path) -> None:
    """Those that come in pieces, too; a single one is cut where its pieces are not."""
    texts = [f"{i} and more words " * (PIECE // 12) for i in range(3)]
    made = plan(texts, 0.3, 0, tmp_path)
    assert Counter(text for split in documents(made).values() for text in split) == Counter(texts)
    found = documents(plan(texts[:1], 0.3, 0.2, tmp_path))
    assert [len(part) / len(texts[0]) for split in ("train", "val", "test") for part in found[split]] == pytest.approx(
        [0.5, 0.3, 0.2], abs=1e-5
    )
    assert "".join(found[split][0] for split in ("train", "val", "test")) == texts[0]


def test_a_corpus_without_text(tmp_path: Path) -> None:
    """D1: refused by name."""
    for texts in ([], ["", ""]):
        with pytest.raises(ValueError, match=f"the corpus '{tmp_path}.*' holds no text"):
            plan(texts, 0.1, 0.1, tmp_path)
