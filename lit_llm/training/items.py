"""What a model says of each text, in files: a line for each, so that runs can be compared text by text."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

Columns = Mapping[str, list]  # of equal length, by name; the first one is `id`


class TestItems(Callback):
    """Writes `test_items.csv` into the run folder at the end of a test: a line for each text.

    Of a classification the columns are `id` (the number of the text in its source), `target`, `prediction` and the
    probability `p_…` of each class; of language modelling `id` (the number of the row in the test text), `loss` (the
    sum of its losses in nats) and `tokens` (the number of its targets). Any module whose `test_step` returns columns by
    name is served; the first one is `id`, and of several lines with one id the first counts.
    """

    __test__ = False  # its name is that of a test, for pytest

    def __init__(self) -> None:
        self._batches: list[Columns] = []

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin anew."""
        self._batches = []

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the columns of a batch."""
        if isinstance(outputs, Mapping):
            self._batches.append(outputs)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Write what all ranks have kept."""
        if trainer.logger is not None and trainer.log_dir is not None and not trainer.fast_dev_run:
            write_items(Path(trainer.log_dir) / "test_items.csv", self._batches, trainer.world_size)


def write_items(path: Path, batches: Iterable[Columns], ranks: int = 1) -> bool:
    """Write columns as a CSV file, in the order of their ids; all ranks call it, and the first one writes.

    Args:
        path: The file; one that is there is replaced.
        batches: Columns of this rank, batch by batch.
        ranks: How many take part.

    Returns:
        Whether this rank has written the file.
    """
    gathered: list[Any] = [list(batches)]
    if ranks > 1:
        gathered = [None] * ranks
        dist.all_gather_object(gathered, list(batches))
        if dist.get_rank():
            return False
    own: list[Columns] = [columns for batches in gathered for columns in batches]
    if not own:
        return False
    rows: dict[Any, tuple] = {}
    for columns in own:
        for row in zip(*columns.values(), strict=True):
            rows.setdefault(row[0], row)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(own[0])
        for _, row in sorted(rows.items()):
            # Nine digits tell any two numbers of fp32 apart.
            table.writerow([f"{value:.9g}" if isinstance(value, float) else value for value in row])
    return True
