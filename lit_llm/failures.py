"""What a run failed of, where one sentence tells."""

from pathlib import Path
from typing import Any

import torch

from lit_llm.training.checkpoint_io import CheckpointError
from lit_llm.training.checkpoints import LastCheckpoint


def failure(error: Exception, batch_size: int, block_size: int) -> str | None:
    """What a run failed of, and what helps; None for what one sentence cannot tell."""
    text = str(error)
    if isinstance(error, FloatingPointError):
        return f"{text} (a lower learning rate, more warmup, gradient_clip_val or other data may help)"
    if isinstance(error, CheckpointError):
        return text
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
        return (
            f"the memory does not suffice for --data.batch_size {batch_size} with --data.block_size {block_size}; "
            "lower one of them, and raise --trainer.accumulate_grad_batches to make up for it"
        )
    return None


def what_is_left(trainer: Any, resumed: str | None) -> str:
    """The checkpoint from which a failed run can go on.

    Args:
        trainer: The one of the run.
        resumed: The checkpoint that the run itself went on from. None: it began anew.
    """
    saved = (each.saved for each in trainer.checkpoint_callbacks if isinstance(each, LastCheckpoint))
    path = next(filter(None, saved), resumed)
    found = path is not None and Path(path).exists()  # a thread may have failed to write it
    return f"the last checkpoint is '{path}'" if found else "no checkpoint had been written yet"
