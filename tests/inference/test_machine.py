"""What a process does with freed memory."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import numpy as np
from tgq.inference.machine import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
for turn in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.full(2**21, 1.0, np.float32) for _ in range(16)]  # 8 MiB each, all freed at once
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_used_again_without_new_pages():
    faults = {mode: int(subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True).stdout) for mode in ("keep", "free")}
    assert faults["keep"] < faults["free"] / 10, faults
