"""glibc's heap: what becomes of memory that is freed. Everything here knows the C library alone."""

import ctypes
import sys

# malloc.h: what its knobs are called, and values at which they leave the heap to itself.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
APART = {MMAP_THRESHOLD: 2**17, MMAP_MAX: 65536}  # a block of 128 KiB lies by itself, and goes when it is freed
KEEP = {MMAP_MAX: 0, TRIM_THRESHOLD: -1}
# Where its own, moving thresholds come to rest in a process that frees large blocks; set once, they move no more.
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 * 2**20, TRIM_THRESHOLD: 64 * 2**20}


def tune_heap(knobs: dict[int, int]) -> bool:
    """Set knobs of this process's memory (APART, KEEP, USUAL); False where no glibc is there to ask."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt"):
        return False
    return all(library.mallopt(knob, value) for knob, value in knobs.items())


def give_back() -> None:
    """Let memory that is freed go as usual, beginning with what is free now."""
    if tune_heap(USUAL):
        ctypes.CDLL(None).malloc_trim(0)
