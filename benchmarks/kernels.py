"""Which kernels a training step of GPT-2 small spends its time in, on a GPU: tables of torch's profiler.

    python benchmarks/kernels.py [--batch_size B] [--steps N]

The step is that of `train.py` at 1,024 tokens, compiled, products in bfloat16, without a Trainer around it.
"""

import argparse

import torch
from torch.profiler import ProfilerActivity, profile
from train import make_train

SHAPE = {"L": 12, "H": 12, "C": 768, "T": 1024, "V": 50257}
ROWS = 40  # of the table


def main() -> None:
    """Warm up, profile, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    shape = SHAPE | {"B": options.batch_size}
    idx = torch.randint(shape["V"], (2, shape["B"], shape["T"]), device="cuda")
    step, _ = make_train(shape, "bf16-c", lambda: (idx[0], idx[1]), "cuda")
    for _ in range(5):
        step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(options.steps):
            step()
        torch.cuda.synchronize()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {options.steps} steps, batch {shape['B']}")
    print(profiled.key_averages().table(sort_by="self_device_time_total", row_limit=ROWS, max_name_column_width=90))


if __name__ == "__main__":
    main()
