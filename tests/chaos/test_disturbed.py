"""What else happens to a night: another one at the same time, a full disk, too little memory, a lost executor, a clock that jumps back."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

import tgq
from tests.chaos.contents import contents_of, differences, size_of, staged
from tests.chaos.moments import FULL
from tests.chaos.process import NightProcess, finished, line_of
from tests.chaos.reader import Reader

RACES, DISKS, CLOCKS, LOST = (20, 6, 4, 4) if FULL else (0, 0, 0, 0)
HERE = Path(__file__).parent
DRAWS = random.Random(5)


def check(root, night, reader):
    """The warehouse is as after an undisturbed night, and readers saw nothing else than the old generation and the new one."""
    reader.look()
    found = differences(contents_of(root), night.wanted)
    assert not found, "\n".join(found)
    assert not reader.wrong, reader.wrong
    assert not staged(root) and reader.looks["new"]


@pytest.mark.parametrize("delay", [0.0, *(round(DRAWS.uniform(0, 12), 2) for _ in range(RACES))][:RACES])
def test_of_two_nights_at_once_one_wins_and_the_other_says_who_holds_the_warehouse(nights, tiny_encoder, tmp_path, table, delay):
    night, root = nights("second"), tmp_path / "warehouse"
    night.prepare(root)
    with Reader(root, night.states) as reader:
        one = NightProcess(night.catalog, root, tiny_encoder)
        time.sleep(delay)
        other = NightProcess(night.catalog, root, tiny_encoder)
        ended = dict(zip((one.pid, other.pid), finished([one, other]), strict=True))
    statuses = sorted(status for status, _ in ended.values())
    assert statuses == [0, 1], ended
    winner = next(process for process, (status, _) in ended.items() if status == 0)
    said = next(line_of(printed) for status, printed in ended.values() if status == 1)
    assert f"the warehouse {root} is in use by process {winner} on " in said
    table({"test": "two nights", "delay": delay, "said": said, "looks": reader.looks, "wrong": reader.wrong})
    check(root, night, reader)


@pytest.mark.parametrize("share", [round(DRAWS.uniform(0.05, 1.0), 2) for _ in range(DISKS)])
def test_a_full_disk_gives_one_line_and_the_next_run_finishes(nights, tiny_encoder, tmp_path, table, share):
    night, root = nights("second"), tmp_path / "warehouse"
    root.mkdir()
    free = int(share * night.grown)
    with small_disk(root) as resize:
        night.prepare(root)
        resize(taken(root) + free)
        with Reader(root, night.states) as reader:
            status, printed = NightProcess(night.catalog, root, tiny_encoder).wait()
            said = line_of(printed) if status else None
            resize(taken(root) + 10 * night.grown + 2**26)
            if status:
                status, printed = NightProcess(night.catalog, root, tiny_encoder).wait()
                assert status == 0, printed[-3000:]
        table({"test": "full disk", "free": free, "said": said, "looks": reader.looks, "wrong": reader.wrong})
        check(root, night, reader)


@pytest.mark.skipif(not FULL, reason="part of `make test-chaos`")
def test_a_worker_without_memory_gives_one_line_and_the_next_run_finishes(nights, tiny_encoder, tmp_path, table):
    night, root = nights("second"), tmp_path / "warehouse"
    night.prepare(root)
    with Reader(root, night.states) as reader:
        status, printed = NightProcess(night.catalog, root, tiny_encoder, "--set", "spark.conf={spark.executor.pyspark.memory: 400m}").wait()
        said = line_of(printed)
        assert status == 1 and "memory" in said
        status, printed = NightProcess(night.catalog, root, tiny_encoder).wait()
        assert status == 0, printed[-3000:]
    table({"test": "no memory", "said": said, "looks": reader.looks, "wrong": reader.wrong})
    check(root, night, reader)


@pytest.mark.parametrize("share", [round(DRAWS.uniform(0.2, 0.9), 2) for _ in range(LOST)])
def test_a_lost_executor_is_replaced(nights, tiny_encoder, tmp_path, table, share):
    night, root = nights("second"), tmp_path / "warehouse"
    night.prepare(root)
    with Reader(root, night.states) as reader:
        started = NightProcess(night.catalog, root, tiny_encoder, "--set", "spark.master=local-cluster[2,1,1024]")
        time.sleep(2 * share * night.seconds)  # two executors start beside the driver, so it takes longer than on one JVM
        killed = started.kill("executor")
        status, printed = started.wait()
        assert status == 0, printed[-3000:]
    table({"test": "lost executor", "share": share, "killed": killed, "looks": reader.looks, "wrong": reader.wrong})
    check(root, night, reader)


@pytest.mark.parametrize("share", [round(DRAWS.uniform(0.3, 0.7), 2) for _ in range(CLOCKS)])
def test_a_clock_that_jumps_back_changes_nothing(nights, tiny_encoder, tmp_path, table, shifted_clock, share):
    night, root = nights("second"), tmp_path / "warehouse"
    night.prepare(root)
    library, offset = shifted_clock
    offset.write_bytes(bytes(8))
    with Reader(root, night.states) as reader:
        started = NightProcess(night.catalog, root, tiny_encoder, environment={"LD_PRELOAD": str(library), "SHIFTED_CLOCK": str(offset)})
        time.sleep(share * night.seconds)
        assert started.is_running
        with open(offset, "r+b") as file:
            file.write((-3 * 3600).to_bytes(8, "little", signed=True))
        status, printed = started.wait()
        assert status == 0, printed[-3000:]
    back = tgq.open_warehouse(root).sql("SELECT step FROM pipeline_runs WHERE ended_at < started_at")["step"].to_pylist()
    assert "nightly" in back, "the night has seen the clock jump"
    table({"test": "clock", "share": share, "looks": reader.looks, "wrong": reader.wrong})
    check(root, night, reader)


@pytest.fixture(scope="session")
def shifted_clock(tmp_path_factory):
    """A library that shifts the clock of the processes that load it, and the file with the shift in seconds (8 bytes)."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler, which the clock needs")
    folder = tmp_path_factory.mktemp("clock")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", folder / "clock.so", HERE / "clock.c", "-ldl"], check=True)
    return folder / "clock.so", folder / "offset"


@contextlib.contextmanager
def small_disk(folder):
    """Mount a file system of its own on a folder. Yields a function that sets its size in bytes."""

    def mount(option, size):
        return subprocess.run(["mount", "-o", f"{option}size={size}", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, text=True)

    if os.geteuid() != 0 or mount("", 2**30).returncode:
        pytest.skip("a file system of its own needs the right to mount")
    try:
        yield lambda size: mount("remount,", size)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def taken(root):
    """Bytes that the file system of a folder has in use."""
    found = os.statvfs(root)
    return max((found.f_blocks - found.f_bfree) * found.f_frsize, size_of(root))
