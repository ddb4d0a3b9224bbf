"""Texts with labels, for a classifier: any table, split by what its texts say, in batches of similar length."""

import copy
from functools import cached_property
from typing import Any, Literal

import numpy as np

from lit_llm.batch import IGNORE_INDEX
from lit_llm.data.base import TextDataModule
from lit_llm.data.class_report import report
from lit_llm.data.class_split import split_texts, undersampled
from lit_llm.data.labels import class_names, numbers
from lit_llm.data.loader import Loader, TrainLoader
from lit_llm.data.overfit import RepeatedBatches, repeated
from lit_llm.data.rows import Access
from lit_llm.data.splits import refuse_shares
from lit_llm.data.tables import Columns, Table, read_table
from lit_llm.data.texts import TextLoader, Texts, TextTrainLoader
from lit_llm.data.tokenizer import Tokenizer

SPLITS = ("train", "val", "test")


class TextClassification(TextDataModule):
    """Texts that each belong to one of several classes.

    The texts are divided into training, validation and testing so that each split has the classes in the same shares
    and texts that repeat each other (in all but case, white space and digits) are on one side. White space around a
    text does not count, and a text of nothing else is left out. What was found is told on stderr: rows, repetitions,
    and how many texts are cut off. A tokenizer that learns from text learns from the training texts.

    Args:
        source: A file or a Hugging Face data set id. Files are .tsv, .txt or without a suffix (tab-separated, quotes
            are text; without names of columns in the first line: label, tab, text), .csv, .jsonl, .jsonl.gz, .parquet.
        tokenizer: Turns text into ids.
        text_column: Column of the texts.
        label_column: Column of the labels: words or whole numbers.
        classes: Names of the classes, in the order of their numbers. None: what the data set says, or the labels that
            occur, sorted.
        block_size: Longest text in tokens; what follows is cut off.
        batch_size: Texts a batch, on each device.
        val_fraction: Share of the texts held out for validation, in [0, 1).
        test_fraction: Share of the texts held out for testing, in [0, 1).
        split_seed: Chooses the split, whatever the seed of the run.
        balance: `undersample` trains on as many texts of each class as there are of the rarest.
        reading: How the sources are opened.
        test_source: Texts to test on, with labels, instead of a share of the source: then test_fraction is 0.
        predict_source: Texts to predict, with or without labels (a file without names of columns may be one text a
            line). None: those held out for testing, or else for validation.

    Raises:
        ValueError: If a size or share is out of range.
    """

    def __init__(
        self,
        source: str,
        tokenizer: Tokenizer,
        text_column: str = "text",
        label_column: str = "label",
        classes: list[str] | None = None,
        block_size: int = 256,
        batch_size: int = 8,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        balance: Literal["none", "undersample"] = "none",
        reading: Access = Access(),  # noqa: B008 (never changed)
        test_source: str | None = None,
        predict_source: str | None = None,
    ) -> None:
        super().__init__(tokenizer, block_size, batch_size)
        refuse_shares(val_fraction, test_fraction)
        if test_source is not None and test_fraction:
            raise ValueError(
                f"test_source '{test_source}' and test_fraction {test_fraction} contradict each other; set "
                "--data.test_fraction 0 to test on the former"
            )
        self.source, self.columns, self.classes = source, Columns(text_column, label_column), classes
        self.shares = {"test": test_fraction, "val": val_fraction}
        self.split_seed, self.balance, self.reading = split_seed, balance, reading
        self.test_source, self.predict_source = test_source, predict_source
        self._tokens: dict[str, Texts] = {}

    def read(self, source: str, labelled: bool = True) -> Table:
        """Read a source.

        Args:
            source: Its name.
            labelled: Whether each text has to have a label.
        """
        return read_table(source, self.columns, self.reading, labelled)

    def describe(self) -> str:
        """What the report calls the source."""
        return f"'{self.source}'"

    @cached_property
    def table(self) -> Table:
        """The source; read on first use."""
        return self.read(self.source)

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their numbers."""
        return class_names(self.table, self.classes)

    @cached_property
    def targets(self) -> np.ndarray:
        """(N,) the class of each text of the source."""
        return numbers(self.table, self.class_names)

    @cached_property
    def splits(self) -> np.ndarray:
        """(N,) the split of each text of the source: train, val or test."""
        return split_texts(self.table.texts, self.targets, self.shares, self.split_seed)

    @cached_property
    def apart(self) -> dict[str, tuple[Table, np.ndarray]]:
        """Sources of their own, and the classes of their texts."""
        tables = {}
        if self.test_source is not None:
            tables["test"] = self.read(self.test_source)
        if self.predict_source is not None:
            tables["predict"] = self.read(self.predict_source, labelled=False)
        return {split: (table, numbers(table, self.class_names)) for split, table in tables.items()}

    def has(self, split: str) -> bool:
        """Whether there is a split: train, val, test or predict."""
        return split in ("train", *self.apart) or bool(self.shares.get(split))

    def texts(self, split: str) -> tuple[np.ndarray, list[str], np.ndarray]:
        """What a split holds, in the order of its source.

        Args:
            split: `train` (balanced, if that is asked for), `val`, `test`, or `predict`.

        Returns:
            (n,) numbers of the rows, n texts, and (n,) their classes: IGNORE_INDEX where unknown.

        Raises:
            ValueError: If there is no such split.
        """
        if split == "predict" and not self.has(split):
            split = "test" if self.has("test") else "val"
        if split in self.apart:
            table, targets = self.apart[split]
            return np.array(table.rows), table.texts, targets
        if not self.has(split):
            raise ValueError(f"no text is held out for '{split}'; set --data.{split}_fraction, and train with it")
        places = np.flatnonzero(self.splits == split)
        if split == "train" and self.balance == "undersample":
            places = places[undersampled(self.targets[places], self.split_seed)]
        return np.array(self.table.rows)[places], [self.table.texts[i] for i in places], self.targets[places]

    def class_counts(self, split: str) -> list[int]:
        """How many texts of each class a split holds, in the order of the classes."""
        targets = self.texts(split)[2]
        return np.bincount(targets[targets != IGNORE_INDEX], minlength=len(self.class_names)).tolist()

    def split_settings(self) -> dict[str, Any]:
        """What decides which texts train."""
        return {"source": self.source, "split_seed": self.split_seed, **self.shares}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; one that learns from text has done so, from the training texts."""
        if self._tokenizer.is_fitted:
            return self._tokenizer
        tokenizer = copy.deepcopy(self._tokenizer)
        tokenizer.fit(self.texts("train")[1])
        return tokenizer

    def tokens(self, split: str) -> Texts:
        """The texts of a split as ids; tokenized on first use.

        Raises:
            ValueError: If there is no such split, or nothing in it.
        """
        if split not in self._tokens:
            rows, texts, targets = self.texts(split)
            if not texts:
                raise ValueError(f"'{self.source}' is too small to hold out a text for '{split}'; give more")
            self._tokens[split] = Texts(texts, targets, rows, self.tokenizer, self.block_size)
        return self._tokens[split]

    def prepare_data(self) -> None:
        """Read the source, once a machine: a data set of the hub is then there for all."""
        _ = self.table

    def setup(self, stage: str) -> None:
        """Tell what was found, once: whatever is wrong with the texts is told before a run begins."""
        self.tell()

    def report(self) -> str:
        """Rows by class and split; texts left out, repeated, cut off."""
        return report(self)

    def train_dataloader(self) -> TrainLoader | RepeatedBatches:
        """Shuffled texts."""
        return repeated(
            TextTrainLoader(self.tokens("train"), self.batch_size, self._seed(), *self._place()), self.trainer
        )

    def val_dataloader(self) -> Loader | list:
        """The validation texts; nothing where none are held out."""
        return TextLoader(self.tokens("val"), self.batch_size, *self._place()) if self.has("val") else []

    def test_dataloader(self) -> Loader:
        """The test texts.

        Raises:
            ValueError: If there are none.
        """
        return TextLoader(self.tokens("test"), self.batch_size, *self._place())

    def predict_dataloader(self) -> Loader:
        """The texts to predict, in the order of their source."""
        return Loader(self.tokens("predict"), self.batch_size, *self._place())
