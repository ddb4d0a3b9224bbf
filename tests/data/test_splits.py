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
from lit_llm.data.splits import FEW, Plan

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


@given(st.lists(LETTERS, min_size=1, max_size=12).filter(any), SHARES)
def test_nothing_is_lost_and_nothing_is_on_two_sides(texts: list[str], shares: tuple[float, float]) -> None:
    """D21: equal documents land on one side, and how many there are is counted; empty ones go nowhere."""
    made, found = split_of(texts, *shares)
    real = [text for text in texts if text]
    if len(real) == 1:
        assert "".join("".join(found[split]) for split in ("train", "val", "test")) == real[0]
        return
    assert Counter(text for split in found.values() for text in split) == Counter(real)
    assert sum(len(set(split)) for split in found.values()) == len(set(real))
    assert made.duplicates == len(real) - len(set(real))


@given(st.lists(LETTERS.filter(bool), min_size=2, max_size=15, unique=True), SHARES)
@example(["cccccc0.129", "dd0.7", "eee0.5"], (0.1, 0.4))  # both small ones are wanted for testing
def test_shares_of_few_documents_are_as_near_as_they_come(texts: list[str], shares: tuple[float, float]) -> None:
    """Off by no more than one document; each split that was asked for has one if there are enough, training always."""
    _, found = split_of(texts, *shares)
    total, longest = sum(map(len, texts)), max(map(len, texts))
    asked = dict(zip(("val", "test"), shares, strict=True))
    assert found["train"]
    for split, share in asked.items():
        size = sum(map(len, found[split]))
        assert size <= share * total + longest
        if len(texts) > sum(share > 0 for share in shares):
            assert bool(found[split]) == (share > 0)
        if len(found["train"]) > 1:  # else the wish to leave one for others came first
            assert size >= share * total - longest


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
