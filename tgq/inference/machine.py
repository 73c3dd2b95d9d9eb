"""Limits of the machine: out of memory as every device reports it, and the cores that this process may use."""

from __future__ import annotations

import os

import torch


def is_out_of_memory(error: BaseException) -> bool:
    said = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in said
        for words in ("out of memory", "not enough memory", "can't allocate memory", "status_alloc_failed")
    )


def usable_cores() -> int:
    """Cores that this process may use, which a container or a scheduler can make fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
