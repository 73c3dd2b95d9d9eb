"""Limits of the machine: out-of-memory errors of every device, and the CPU cores that this process may use."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
KEPT, LARGEST = 2**30, 2**25  # bytes; glibc takes no larger M_MMAP_THRESHOLD


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the CPU's or the GPU's memory is exhausted. Some torch errors say so in their message only."""
    message = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in message
        for words in ("out of memory", "not enough memory", "can't allocate memory", "status_alloc_failed")
    )


def usable_cores() -> int:
    """CPU cores that this process may use. A container or a scheduler can allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let this process keep up to KEPT bytes of freed memory for its next allocations. Without glibc it does nothing.

    A convolution's output has some megabytes. Otherwise it is freed to the system and comes back as new pages, which the kernel fills with
    zeros: 5 to 10 % of a CNN's time on a CPU.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, KEPT)
