"""What tests share that classify texts: tiny texts of two or three classes, their data module, a config, batches."""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from cli_runs import tiny_config, write_yaml
from python_runs import T, tiny_backbone
from torch.utils.data import DataLoader

from lit_llm.batch import IGNORE_INDEX, TextBatch
from lit_llm.data.base import TextDataModule
from lit_llm.data.tokenizer import Bytes, Tokenizer
from lit_llm.modules import Classification

WORDS = {"ham": ["see you", "at home", "thanks mum"], "spam": ["win now", "a prize", "call us"], "ads": ["buy it"]}
BLOCK = 3 * T  # longer than a window of language modelling, shorter than some texts


def pad(rows: Sequence[Sequence[int]], targets: Sequence[int], pads: int = 0) -> TextBatch:
    """A batch of ids, with so many pads after the longest; a pad is an id that stands in texts as well."""
    lengths = [len(row) for row in rows]
    idx = torch.full((len(rows), max(lengths) + pads), 101)
    for number, row in enumerate(rows):
        idx[number, : len(row)] = torch.tensor(row)
    return TextBatch(idx, torch.tensor(targets), torch.tensor(lengths), torch.arange(len(rows)))


class TinyTexts(TextDataModule):
    """Texts that say by their words what they are, in an order that is always the same."""

    def __init__(
        self,
        tokenizer: Tokenizer | None = None,
        names: tuple[str, ...] = ("ham", "spam"),
        count: int = 40,
        block_size: int = BLOCK,
        batch_size: int = 4,
        only: str | None = None,
    ) -> None:
        super().__init__(tokenizer or Bytes(), block_size, batch_size)
        self.names, self.only = list(names), only
        choose = random.Random(0)
        self.targets = [int(number % 3 == 0) if len(names) == 2 else number % 3 for number in range(count)]
        lengths = [number % 5 % 3 + 1 for number in range(count)]  # in groups of words
        self.all = [
            " ".join(choose.choices(WORDS[self.names[t]], k=k)) for t, k in zip(self.targets, lengths, strict=True)
        ]

    @property
    def class_names(self) -> list[str]:
        return self.names

    def has(self, split: str) -> bool:
        return True

    def texts(self, split: str) -> tuple[list[int], list[str], list[int]]:
        places = {"train": (0, 1), "val": (2,), "test": (3,), "predict": (3,)}[split]
        rows = [row for row in range(len(self.all)) if row % 4 in places]
        if split == "val" and self.only is not None:
            rows = [row for row in rows if self.names[self.targets[row]] == self.only]
        return rows, [self.all[row] for row in rows], [self.targets[row] for row in rows]

    def class_counts(self, split: str) -> list[int]:
        targets = self.texts(split)[2]
        return [targets.count(number) for number in range(len(self.names))]

    def batches(self, split: str) -> DataLoader:
        rows, texts, targets = self.texts(split)
        made = []
        for start in range(0, len(rows), self.batch_size):
            part = slice(start, start + self.batch_size)
            ids = [self.tokenizer.encode(text)[: self.block_size].tolist() for text in texts[part]]
            made.append(pad(ids, targets[part])._replace(rows=torch.tensor(rows[part])))
        # As a rank with nothing left gets it: of no class, and in no row.
        filler = TextBatch(
            torch.zeros(1, 1).long(), torch.tensor([IGNORE_INDEX]), torch.ones(1).long(), -torch.ones(1).long()
        )
        return DataLoader(made if split == "train" else [*made, filler], batch_size=None)

    def train_dataloader(self) -> DataLoader:
        return self.batches("train")

    def val_dataloader(self) -> DataLoader:
        return self.batches("val")

    def test_dataloader(self) -> DataLoader:
        return self.batches("test")

    def predict_dataloader(self) -> DataLoader:
        return self.batches("predict")


def tiny_classification(**settings: object) -> Classification:
    """The same weights each time; texts of up to BLOCK tokens."""
    own = {"backbone": tiny_backbone(4.0, block_size=BLOCK), "class_names": ["ham", "spam"]}
    return Classification(**{**own, **settings})  # type: ignore[arg-type]


def write_classification(folder: Path, **data: object) -> Path:
    """The config of a tiny classification; its path."""
    config = tiny_config(folder)
    config["trainer"]["callbacks"] += [
        {"class_path": f"lit_llm.{name}"}
        for name in (
            "training.items.TestItems",
            "training.figures.ClassifierFigures",
            "evaluation.baselines.ClassifierBaselines",
        )
    ]
    config["model"]["class_path"] = "lit_llm.modules.Classification"
    config["data"] = {"class_path": "text_runs.TinyTexts", "init_args": data}
    return write_yaml(folder / "classify.yaml", config)
