"""The table of this experiment, from the runs' logs: python experiments/e0001_tiny_shakespeare/table.py [logs]."""

import statistics
import sys
from collections import defaultdict
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

STEPS = 2000  # of a finished run
T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t for a 95 % interval, by number of runs


def final_losses(folder: Path) -> dict[str, list[float]]:
    """The validation loss of each finished run, by variant."""
    losses = defaultdict(list)
    for run in sorted(folder.glob("e0001_*_seed*/version_*")):
        events = EventAccumulator(str(run)).Reload()
        scored = events.Scalars("val/loss") if "val/loss" in events.Tags()["scalars"] else []
        if scored and scored[-1].step == STEPS - 1:
            losses[run.parent.name.removeprefix("e0001_").rpartition("_seed")[0]].append(scored[-1].value)
    return losses


def parameters(folder: Path, variant: str) -> int:
    """Parameters of a variant's model, counted in a checkpoint."""
    path = next(folder.glob(f"e0001_{variant}_seed*/version_*/checkpoints/last.ckpt"))
    return sum(weight.numel() for weight in torch.load(path, weights_only=True, mmap=True)["state_dict"].values())


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "logs")
    print("| variant | val/loss | 95 % interval | runs | parameters |\n|---|---:|---:|---:|---:|")
    for variant, losses in sorted(final_losses(folder).items(), key=lambda item: statistics.mean(item[1])):
        half = T_975[len(losses)] * statistics.stdev(losses) / len(losses) ** 0.5 if len(losses) > 1 else float("nan")
        size = f"{parameters(folder, variant):,}"
        print(f"| {variant} | {statistics.mean(losses):.3f} | ± {half:.3f} | {len(losses)} | {size} |")
