"""Which kernels a training step of GPT-2 small spends its time in: a table of torch's profiler.

    python benchmarks/kernels.py [--device cuda] [--batch_size B] [--steps N]

The step is that of `train.py` at 1,024 tokens, compiled on a GPU, products in bfloat16, without a Trainer around it.
What was found on an H200 is kept in `gpt2_small_h200.txt`.
"""

import argparse
from collections.abc import Sequence

import torch
from torch.profiler import ProfilerActivity, profile
from train import make_train

SHAPE = {"L": 12, "H": 12, "C": 768, "T": 1024, "V": 50257}
WARMUP = 5  # steps


def main(args: Sequence[str] | None = None) -> None:
    """Warm up, profile, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--kernels", type=int, default=30, help="lines of the table")
    options = parser.parse_args(args)
    on_gpu = options.device == "cuda"
    shape = SHAPE | {"B": options.batch_size}
    idx, targets = torch.randint(shape["V"], (2, shape["B"], shape["T"]), device=options.device)
    step, _ = make_train(shape, "bf16-c" if on_gpu else "bf16", lambda: (idx, targets), options.device)
    for _ in range(WARMUP):
        float(step())
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiled:
        for _ in range(options.steps):
            loss = step()
        float(loss)  # waits for a GPU
    kind = "self_device_time_total" if on_gpu else "self_cpu_time_total"  # in microseconds
    rows = [
        (getattr(row, kind) / 1e3 / options.steps, row.count / options.steps, row.key)
        for row in profiled.key_averages()
    ]
    whole = sum(row[0] for row in rows)
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    print(f"{name}, torch {torch.__version__}: {whole:.1f} ms in kernels of a step of {idx.numel():,} tokens")
    print(f"{'ms':>8} {'share':>6} {'calls':>5}  kernel")
    for milliseconds, calls, key in sorted(rows, reverse=True)[: options.kernels]:
        print(f"{milliseconds:8.2f} {milliseconds / whole:6.1%} {calls:5.0f}  {key[:100]}")


if __name__ == "__main__":
    main()
