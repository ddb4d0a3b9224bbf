"""A line for each tested text, whatever the number of devices."""

import csv
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from python_runs import B, T, tiny_data, tiny_module, trainer
from text_runs import TinyTexts, tiny_classification

from lit_llm.training.items import TestItems, write_items


def lines(folder: Path) -> list[list[str]]:
    (path,) = folder.rglob("test_items.csv")
    with path.open(newline="") as file:
        return list(csv.reader(file))


def scored(folder: Path, module, data, ranks: int = 1) -> dict:
    strategy = {"devices": ranks, "strategy": "ddp_fork"} if ranks > 1 else {}
    run = trainer(logger=CSVLogger(folder), callbacks=[TestItems()], use_distributed_sampler=False, **strategy)
    return run.test(module, data, verbose=False)[0]


@pytest.mark.parametrize("ranks", [1, 2])
def test_rows_of_language_modelling(tmp_path, ranks) -> None:
    """Each row of the test text once, in order; together they are the mean loss."""
    data = tiny_data(tmp_path, val_fraction=0.1, test_fraction=0.4)
    values = scored(tmp_path, tiny_module(), data, ranks)
    header, *rows = lines(tmp_path)
    assert header == ["id", "loss", "tokens"]
    assert [int(row[0]) for row in rows] == list(range(len(rows)))
    data.setup("test")
    targets = len(data.corpus.tokens("test")) - 1
    assert sum(int(row[2]) for row in rows) == targets
    assert len(rows) == -(-targets // T) > 2 * B
    mean = sum(float(row[1]) for row in rows) / targets
    assert mean == pytest.approx(values["test/loss"], rel=1e-6)


def test_texts_of_several_ranks_come_once(tmp_path) -> None:
    """Both ranks read all of them here, and a text of no class has no line."""
    scored(tmp_path, tiny_classification(), TinyTexts(), ranks=2)
    _, *rows = lines(tmp_path)
    assert [int(row[0]) for row in rows] == TinyTexts().texts("test")[0]


def test_numbers_and_words_survive(tmp_path) -> None:
    """fp32 to the last bit; commas, quotes and line breaks of a text; sorted by id."""
    value = float(torch.rand(1, generator=torch.Generator().manual_seed(0)))
    text = 'a, "b"\nc'
    assert write_items(tmp_path / "a" / "b.csv", [{"id": [7, 2], "text": [text, "x"]} | {"p": [value, 1e-20]}])
    with (tmp_path / "a" / "b.csv").open(newline="") as file:
        header, first, second = csv.reader(file)
    assert (header, first[0], second[:2]) == (["id", "text", "p"], "2", ["7", text])
    assert torch.tensor(float(second[2])) == torch.tensor(value)
    assert float(first[2]) == 1e-20


def test_without_a_run_folder_nothing_is_written(tmp_path) -> None:
    trainer(callbacks=[TestItems()], default_root_dir=tmp_path).test(tiny_classification(), TinyTexts(), verbose=False)
    assert not list(tmp_path.iterdir())
