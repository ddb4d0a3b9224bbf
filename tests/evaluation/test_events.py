"""Event files, whole and damaged (T15)."""

import random
import shutil
from pathlib import Path

import pytest
from cli_runs import losses

from lit_llm.evaluation.events import read_events


@pytest.fixture
def run(logs: Path) -> Path:
    return logs / "pretrain/version_0"


def event_file(run: Path) -> Path:
    return next(run.glob("events.out.tfevents.*"))


def test_a_whole_file_reads_as_in_tensorboard(run) -> None:
    """The same curves, and what TensorBoard does not tell: the number of parameters, exactly."""
    events = read_events(run)
    assert events.damage == []
    for tag in ("train/loss", "val/loss", "tokens"):
        assert {point.step: point.value for point in events.scalars[tag]} == losses(run, tag)
    assert events.settings["parameters"] == 13824
    assert events.times[0] < events.times[-1]


def test_a_cut_is_told_wherever_it_falls(run) -> None:
    """What stands before it is read; at the end of a record nothing is missing that could be noticed."""
    content, whole = event_file(run).read_bytes(), read_events(run).scalars
    boundaries = {0}
    while (last := max(boundaries)) < len(content):
        boundaries.add(last + 16 + int.from_bytes(content[last : last + 8], "little"))
    for size in [*boundaries, *random.Random(0).sample(range(len(content)), 20)]:
        event_file(run).write_bytes(content[:size])
        events = read_events(run)
        assert bool(events.damage) == (size not in boundaries), size
        for tag, curve in events.scalars.items():
            assert curve == whole[tag][: len(curve)]
        if events.damage:
            before = max(boundary for boundary in boundaries if boundary < size)
            assert f"is cut off in a record at byte {before:,} of {size:,}" in events.damage[0]


def test_a_flipped_bit_is_told_wherever_it_falls(run) -> None:
    """No value behind it, and no other value before it."""
    content, whole = event_file(run).read_bytes(), read_events(run).scalars
    choose = random.Random(1)
    for _ in range(40):
        place, bit = choose.randrange(len(content)), choose.randrange(8)
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        event_file(run).write_bytes(flipped)
        events = read_events(run)
        assert len(events.damage) == 1, (place, bit)
        for tag, curve in events.scalars.items():
            assert curve == whole[tag][: len(curve)]


def test_an_undamaged_second_file_is_read_beside_a_damaged_one(run) -> None:
    content = event_file(run).read_bytes()
    shutil.copy(event_file(run), run / "events.out.tfevents.9999999999.second")
    event_file(run).write_bytes(content[:-5])
    events = read_events(run)
    assert len(events.damage) == 1
    assert len(events.scalars["val/loss"]) >= 2
