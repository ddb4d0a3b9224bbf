"""What a run failed of, where one sentence tells."""

import torch

from lit_llm.training.checkpoint_io import CheckpointError


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
