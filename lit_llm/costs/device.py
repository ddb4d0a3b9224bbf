"""What a device can do: its peak at matrix products, and the memory that a run has touched."""

import os
import platform
import resource
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

SIZES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192, 16384)}  # of square products: large enough to reach the peak
SECONDS = 0.2  # of each size
STATUS = Path("/proc/self/status")  # Linux's


class Device(NamedTuple):
    """What a maker promises, dense: operations a second by dtype, and bytes of memory."""

    bfloat16: float
    float32: float
    memory: float

    def peak(self, dtype: torch.dtype) -> float:
        """Operations a second of matrix products; what is no half counts as fp32."""
        return self.bfloat16 if dtype in (torch.bfloat16, torch.float16) else self.float32


# Fp32 is that of TF32 products, as torch makes them at matmul precision "high". https://www.nvidia.com/en-us/data-center/
DEVICES = {
    "h100": Device(989e12, 494e12, 80e9),
    "h200": Device(989e12, 494e12, 141e9),
    "a100": Device(312e12, 156e12, 80e9),
}


def product_dtype(precision: str) -> torch.dtype:
    """The dtype in which a Trainer of this precision multiplies matrices."""
    kinds = {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64, "transformer": torch.bfloat16}
    return kinds.get(precision.split("-")[0], torch.float32)


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """The best rate of a matrix product on this machine, in operations a second, under the settings in force."""
    return max(_rate(size, device, dtype) for size in SIZES.get(device.type, SIZES["cuda"]))


@torch.no_grad()
def _rate(size: int, device: torch.device, dtype: torch.dtype) -> float:
    a, b, out = (torch.randn(size, size, device=device).to(dtype) for _ in range(3))
    torch.mm(a, b, out=out)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        best = min(best, _seconds(a, b, out))
    return 2 * size**3 / best


def _seconds(a: Tensor, b: Tensor, out: Tensor) -> float:
    synchronize(a.device)
    began = time.perf_counter()
    torch.mm(a, b, out=out)
    synchronize(a.device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_peak_memory(device: torch.device) -> None:
    """Begin to watch the memory anew, so that what was used before (tokenizing a text, say) is not counted."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif STATUS.exists():
        # 5 sets the high-water mark of resident memory back (man 5 proc).
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")


def peak_memory(device: torch.device) -> int:
    """The most bytes in use at once since `forget_peak_memory`: allocated on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.exists():
        return _status("VmHWM")
    # Elsewhere the mark stands since the process began; in bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def process_memory() -> int:
    """Bytes that this process holds before it trains anything, its kernels loaded and its threads started."""
    layer = torch.nn.Linear(256, 256)
    layer(torch.randn(256, 256)).square().mean().backward()
    return _status("VmRSS") if STATUS.exists() else peak_memory(torch.device("cpu"))


def _status(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024  # kB


def device_name(device: torch.device) -> str:
    """What the device is called."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} of {os.cpu_count()} cores"
