"""The same few batches again and again, for a run that is to overfit them."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from lit_llm.data.loader import TrainLoader


class RepeatedBatches:
    """The first batches of a loader, the same ones in each epoch.

    Lightning replaces the sampler of a DataLoader for this purpose, and knows none here.

    Args:
        loader: Where they come from, at the beginning of its first epoch.
        limit: How many batches, or the share of all.
    """

    def __init__(self, loader: TrainLoader, limit: int | float) -> None:
        self.loader = loader
        self.count = min(limit, len(loader)) if isinstance(limit, int) else int(len(loader) * limit)

    def __len__(self) -> int:
        """Batches of the loader, of which the Trainer takes its limit."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        loader = self.loader
        if loader.epoch or loader.batch >= self.count:
            loader.epoch = loader.batch = 0
        yield from islice(loader, self.count - loader.batch)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, and in what."""
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            ValueError: As the loader does.
        """
        self.loader.load_state_dict(state)


def repeated(loader: TrainLoader, trainer: Any) -> TrainLoader | RepeatedBatches:
    """A loader as a Trainer wants it: by `overfit_batches` it gives the same ones in each epoch.

    Args:
        loader: At the beginning.
        trainer: The one of the run. None: there is none.
    """
    limit = 0 if trainer is None else trainer.overfit_batches
    return RepeatedBatches(loader, limit) if limit else loader
