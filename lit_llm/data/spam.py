"""The SMS Spam Collection, and a small sample that needs no download."""

from pathlib import Path
from typing import Any

from lit_llm.data.named_sources import Sources
from lit_llm.data.rows import Access, names_data_set
from lit_llm.data.tables import Table
from lit_llm.data.text_classification import TextClassification
from lit_llm.data.tokenizer import Tokenizer
from lit_llm.usage import home_path

SAMPLE = "sample"
CLASSES = ["ham", "spam"]


class Spam(TextClassification):
    """Short messages, ham or spam.

    The SMS Spam Collection (Almeida, Gómez Hidalgo and Yamakami, 2011, https://doi.org/10.1145/2034691.2034742) has
    5,574 messages, 747 of them spam, and about 400 that repeat another one.

    Args:
        tokenizer: Turns text into ids.
        source: A Hugging Face data set id, a file of one's own (the collection's own file has no names of columns,
            and other kinds name theirs by text_column and label_column), or `sample`: 300 messages that come along,
            written for trying things out, on which no result means anything.
        text_column: Column of the texts.
        label_column: Column of the labels.
        classes: Names of the classes, in the order of their numbers. None: ham, spam.
        block_size: Longest text in tokens; what follows is cut off.
        val_fraction: Share of the texts held out for validation, in [0, 1); does not count where there is a val_source.
        test_fraction: Share of the texts held out for testing, in [0, 1); does not count where there is a test_source.
        **settings: Those of `TextClassification`.

    Raises:
        ValueError: If a size or share is out of range.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        source: Sources = "ucirvine/sms_spam",
        text_column: str = "sms",
        label_column: str = "label",
        classes: list[str] | None = None,
        block_size: int = 128,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        **settings: Any,
    ) -> None:
        super().__init__(
            source,
            tokenizer,
            text_column=text_column,
            label_column=label_column,
            classes=classes or CLASSES,
            block_size=block_size,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            **settings,
        )

    def read(self, source: str, labelled: bool = True, reading: Access | None = None) -> Table:
        """Read a source, or the sample."""
        if source == SAMPLE:
            return super().read(str(Path(__file__).parent / "samples" / "spam.tsv"), labelled, reading)
        try:
            return super().read(source, labelled, reading)
        except ValueError as error:
            if error.__cause__ is None or home_path(source).exists() or not names_data_set(source):
                raise  # not what the hub's library says
            raise ValueError(f"{error}; --data.source {SAMPLE} tries things out without a download") from error

    def describe(self) -> str:
        """What the report calls the source: the sample never passes for the real thing."""
        if str(self.sources) == SAMPLE:
            return "the sample of 300 messages written for this project, not the SMS Spam Collection"
        return super().describe()
