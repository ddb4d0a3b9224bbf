"""Counts of Lightning's loops in a checkpoint, mended so that a run goes on at the very place where it was written.

Lightning 2.6 counts when it is ready for, has started, processed and completed a batch or an epoch, and works out from
the differences where a checkpoint was written. For some places it then does another thing than the run that was not
stopped. Each function says for which.
"""

from typing import Any


def mend(loops: dict[str, Any], trainer: Any) -> None:
    """Mend the counts that go into a checkpoint which is written after a batch, or after an epoch.

    Args:
        loops: State of the fit loop, as the checkpoint has it.
        trainer: The Trainer that writes it.
    """
    epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    if batches["total"]["completed"] < batches["total"]["processed"]:
        if validation_is_due(trainer):
            _validate_first(batches, loops["epoch_loop.val_loop.batch_progress"])
    elif batches["is_last_batch"] and epochs["total"]["processed"] == epochs["total"]["started"]:
        begin_next_epoch(epochs, batches)


def validation_is_due(trainer: Any) -> bool:
    """Whether a validation follows the batch whose end the callbacks hear of."""
    loop, is_empty = trainer.fit_loop, trainer.val_dataloaders is not None and not sum(trainer.num_val_batches)
    return not is_empty and bool(loop.epoch_loop._should_check_val_fx(loop._data_fetcher))


def _validate_first(batches: dict[str, Any], validation: dict[str, Any]) -> None:
    """Of a checkpoint between a batch and the validation that follows it, which Lightning would skip.

    Its counts become those of a batch that is done and of a validation that has begun.
    """
    for counts in (batches["total"], batches["current"]):
        counts["completed"] += 1
    for name in ("ready", "started"):
        validation["total"][name] = validation["total"]["processed"] + 1
        validation["current"][name] = 1
    validation["total"]["completed"] = validation["total"]["processed"]
    validation["current"] |= {"processed": 0, "completed": 0}
    validation["is_last_batch"] = False


def begin_next_epoch(epochs: dict[str, Any], batches: dict[str, Any]) -> None:
    """Of a checkpoint after the last batch of an epoch: its batches would be added to those of the next one."""
    batches["is_last_batch"] = False
    batches["current"] = dict.fromkeys(batches["current"], 0)
    for counts in (epochs["total"], epochs["current"]):
        counts["completed"] = counts["processed"]


def leave_open(loops: dict[str, Any]) -> None:
    """Of a checkpoint at the end of a run: Lightning has the epoch in which it ends as a whole one."""
    epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    is_whole = epochs["total"]["processed"] == epochs["total"]["started"]
    if is_whole and batches["is_last_batch"]:
        begin_next_epoch(epochs, batches)
    elif is_whole and batches["current"]["ready"]:
        for counts in (epochs["total"], epochs["current"]):
            counts["processed"] -= 1
            counts["completed"] -= 1


def go_on(trainer: Any) -> None:
    """Bring the counts of a resumed run into line with its loader, at the start of the training.

    Other batches than those of the run before, larger or on more devices, leave another number of the epoch. And where
    the next epoch is to begin, Lightning would count the step before once more.
    """
    loop, loader = trainer.fit_loop.epoch_loop, trainer.train_dataloader
    counts, left = loop.batch_progress.current, getattr(loader, "left", None)
    if not counts.ready:
        loop.restarting = False
    elif left is not None and not loop.batch_progress.is_last_batch:
        missing = len(loader) - left - counts.ready
        for name in ("ready", "started", "processed", "completed"):
            setattr(counts, name, getattr(counts, name) + missing)
