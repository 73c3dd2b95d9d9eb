"""Limits of the machine: out-of-memory errors of every device, and the CPU cores that this process may use."""

from __future__ import annotations

import os

import torch


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
