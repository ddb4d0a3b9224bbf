"""What every data module of text declares, because a model is linked to it; and its place among others."""

import os
import sys
from typing import Any

from lightning import LightningDataModule

from lit_llm.data.loader import TrainLoader
from lit_llm.data.tokenizer import Tokenizer, to_state
from lit_llm.terminal import visible


class TextDataModule(LightningDataModule):
    """A data module of text. The command line hands its `vocab_size` and `block_size` to the backbone.

    Args:
        tokenizer: Turns text into ids.
        block_size: Longest input in tokens.
        batch_size: Rows a batch, on each device.
    """

    def __init__(self, tokenizer: Tokenizer, block_size: int, batch_size: int) -> None:
        super().__init__()
        for name, size in {"block_size": block_size, "batch_size": batch_size}.items():
            if size < 1:
                raise ValueError(f"{name} {size} cannot be: it is at least 1")
        self._tokenizer, self.block_size, self.batch_size = tokenizer, block_size, batch_size
        self.has_told = False  # of what it has found; it does so once
        self._train_loader: TrainLoader | None = None
        self._restored: dict[str, Any] | None = None  # where a loader made later begins

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, ready to use."""
        return self._tokenizer

    @property
    def has_fitted_tokenizer(self) -> bool:
        """Whether the tokenizer is complete without a look at the text."""
        return self._tokenizer.is_fitted

    @property
    def vocab_size(self) -> int:
        """Number of ids that the backbone has to know."""
        return self.tokenizer.vocab_size

    @property
    def expected_vocab_size(self) -> int | None:
        """Number of ids without a look at the text: what the tokenizer has or asks for. None: only the text tells."""
        return getattr(self._tokenizer, "vocab_size", None)

    @property
    def new_ids(self) -> range:
        """Ids that pretrained weights of this tokenizer do not know; none unless tokens are added to it."""
        return range(0)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes that texts belong to, in the order of their numbers; none if there are no classes."""
        return []

    def has(self, split: str) -> bool:
        """Whether there is a split, without a look at the text; of data of one's own, whether it has the loader.

        Args:
            split: `train`, `val`, `test` or `predict`.
        """
        name = f"{split}_dataloader"
        return getattr(type(self), name) is not getattr(LightningDataModule, name)

    def tokenizer_state(self) -> dict[str, Any]:
        """What a checkpoint carries, so that it alone is enough to generate."""
        return to_state(self.tokenizer)

    def split_settings(self) -> dict[str, Any]:
        """What decides which texts of a source train, by name; empty where nothing but the texts does."""
        return {}

    def bytes_per_token(self, split: str) -> float | None:
        """UTF-8 bytes for each token of a split; None where unknown."""
        return None

    def sample_prompts(self) -> list[str]:
        """Beginnings of held-out texts, for a model to continue as it learns."""
        return []

    def report(self) -> str:
        """What was found in the source and became of it, in a few lines; empty where there is nothing to tell."""
        return ""

    def tell(self) -> None:
        """Print the report on stderr, once."""
        if not self.has_told and (self.trainer is None or self.trainer.is_global_zero):
            print(visible(self.report()), file=sys.stderr)
        self.has_told = True

    def make_train_loader(self) -> TrainLoader:
        """Shuffled rows of the training split, from the first one."""
        raise NotImplementedError

    def train_dataloader(self) -> TrainLoader:
        """Shuffled rows of the training split, from where the checkpoint says that a resumed run is.

        Whoever asks for them, and when: Lightning restores the place of a loader in runs by steps alone, and not if one
        was asked for before, as it is for the length of a run by epochs (lightning 2.6).
        """
        self._train_loader = self.make_train_loader()
        # Its first batches in each epoch; Lightning has a sampler for that, which only a DataLoader takes.
        self._train_loader.repeats = bool(getattr(self.trainer, "overfit_batches", 0))
        if self._restored is not None:
            self._train_loader.load_state_dict(self._restored)
        return self._train_loader

    def state_dict(self) -> dict[str, Any]:
        """Where the training rows stand; a part of each checkpoint."""
        return {"train": self._restored if self._train_loader is None else self._train_loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there; without a place, from the beginning.

        Raises:
            ValueError: If the state is one of other rows, or of another order of them.
        """
        self._restored = state_dict["train"]
        if self._train_loader is not None:
            place = self._restored or self._train_loader.state_dict() | {"epoch": 0, "rows": 0}
            self._train_loader.load_state_dict(place)

    def reference_losses(self) -> dict[str, float]:
        """Losses that a model is to be compared with, by name."""
        return {}

    def _seed(self) -> int:
        """The seed of the run, which `seed_everything` leaves there."""
        return int(os.environ.get("PL_GLOBAL_SEED", 0))

    def _place(self) -> tuple[int, int]:
        """This reader and their number; devices that share each matrix product read the same batches."""
        place = self.trainer.distributed_sampler_kwargs if self.trainer else None
        return (place["rank"], place["num_replicas"]) if place else (0, 1)
