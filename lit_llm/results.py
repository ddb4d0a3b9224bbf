"""What a command has found, where a user looks for it: in the run folder, and on the terminal."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lit_llm.training.items import write_items


def write_predictions(trainer: Any, batches: Sequence[Any], data: Any) -> None:
    """Write what was predicted into the run folder, and say where.

    Texts with classes: `predictions.csv` with id, text, label, and the probability of each class. Else a list with one
    tensor for each batch, `predictions.pt`; each process its own.

    Args:
        trainer: The one of the run.
        batches: What `predict_step` gave, on this rank.
        data: Where the texts are.
    """
    folder = trainer.log_dir  # asked for by every process: the first one tells the others
    if not (batches and folder):
        return
    if isinstance(batches[0], dict):
        rows, own, _ = data.texts("predict")
        texts = dict(zip(map(int, rows), own, strict=True))
        whole = [{"id": part["id"], "text": [texts[row] for row in part["id"]], **part} for part in batches]
        path = Path(folder) / "predictions.csv"
        is_written = write_items(path, whole, trainer.world_size)
    else:
        path = Path(folder) / f"predictions{f'_{trainer.global_rank}' if trainer.world_size > 1 else ''}.pt"
        torch.save(batches, path)
        is_written = True
    if is_written:
        print(f"wrote {path}", file=sys.stderr)


def test_best(trainer: Any, model: Any, data: Any) -> None:
    """Score what a training has led to on the test data, into the same run folder, and print the scores.

    Args:
        trainer: The one of the training. Its best checkpoint is tested, or else the last one, or else the weights.
        model: The module that was trained.
        data: Where the test data is.
    """
    kept = trainer.checkpoint_callbacks
    best = [getattr(each, "best_model_path", None) for each in kept]
    path = next(filter(None, (*best, *(getattr(each, "saved", None) for each in kept))), None)
    (values,) = trainer.test(model, datamodule=data, ckpt_path=path and str(path), verbose=False)
    if trainer.is_global_zero:
        print(scores_table(path, values))


def scores_table(path: str | Path | None, values: Mapping[str, float]) -> str:
    """The scores of a test, a line each.

    Args:
        path: The checkpoint that was tested. None: the last weights.
        values: By name.
    """
    width = max(map(len, values))
    lines = [f"{name:{width}}  {value:.4f}" for name, value in sorted(values.items())]
    return "\n".join(["", f"test of {path or 'the last weights'}", *lines])
