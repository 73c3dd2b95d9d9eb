"""The lease of a warehouse: of several processes one holds it, a killed one loses it, and one that was followed notices before it publishes."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tgq.errors import LockedError, StoreError, WarehouseError
from tgq.settings.sections import WarehouseSettings
from tgq.storage.lease import FOLDER, KEPT, Claim, lease
from tgq.storage.lock import warehouse_lock

TOP = Path(__file__).parents[2]
SHORT = 3.0  # seconds of a lease that a test waits for
LONG = 600.0

# holds the lease of a warehouse until a line comes, and asks before it ends whether it is still its own
HOLDER = """
import sys
from tgq.errors import LockedError
from tgq.storage.lease import lease
root, seconds = sys.argv[1], float(sys.argv[2])
try:
    with lease(root, seconds) as held:
        print("held", flush=True)
        sys.stdin.readline()
        held.need()
        print("published", flush=True)
except LockedError as error:
    print(error, flush=True)
"""


@pytest.fixture
def holder(tmp_path):
    """holder(seconds): another process that asks for the lease; its first line is "held", or says who holds it."""
    started = []

    def start(seconds, root=tmp_path):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(root), str(seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TOP
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said(process):
    return process.stdout.readline().strip()


def go_on(process):
    process.stdin.write("\n")
    process.stdin.flush()


def taken(root, seconds):
    """Ask for the lease until it is to be had. Returns the errors until then."""
    errors, give_up = [], time.monotonic() + 60
    while time.monotonic() < give_up:
        try:
            with lease(str(root), seconds) as held:
                held.need()
                return errors
        except LockedError as error:
            errors.append(str(error))
    raise AssertionError(errors)


def claims(root):
    return [json.loads(file.read_text()) for file in sorted(Path(root, FOLDER).glob("*.json"))]


def test_who_holds_the_lease_is_named(tmp_path, holder):
    other = holder(LONG)
    assert said(other) == "held"
    with pytest.raises(LockedError, match=rf"{tmp_path} is in use by process {other.pid} on .+ since 20.+ UTC: wait for that run to end, or stop it"):
        with lease(str(tmp_path), LONG):
            pass
    go_on(other)
    assert said(other) == "published" and other.wait() == 0
    with lease(str(tmp_path), LONG) as held:  # released, so at once
        held.need()
    assert [claim["state"] for claim in claims(tmp_path)] == ["released", "released"]


@pytest.mark.parametrize("round_", range(5))
def test_of_processes_that_ask_at_once_one_gets_it(tmp_path, holder, round_):
    asking = [holder(LONG) for _ in range(4)]
    answers = [said(process) for process in asking]
    winner = [process for process, answer in zip(asking, answers, strict=True) if answer == "held"]
    assert len(winner) == 1
    assert all(f"in use by process {winner[0].pid}" in answer for answer in answers if answer != "held")


def test_the_lease_of_a_killed_process_ends(tmp_path, holder):
    other = holder(SHORT)
    assert said(other) == "held"
    other.kill()
    other.wait()
    errors = taken(tmp_path, SHORT)
    assert all(f"process {other.pid}" in error and "its lease ends" in error for error in errors)
    assert [claim["process"] for claim in claims(tmp_path)] == [other.pid, os.getpid()]


def test_a_lease_that_is_renewed_outlives_its_time(tmp_path, holder):
    other = holder(SHORT)
    assert said(other) == "held"
    began = claims(tmp_path)[0]["renewed"]
    while claims(tmp_path)[0]["renewed"] < began + 2 * SHORT:
        time.sleep(0.05)
    with pytest.raises(LockedError, match=f"process {other.pid}"):
        with lease(str(tmp_path), SHORT):
            pass


def test_a_process_that_slept_too_long_publishes_nothing(tmp_path, holder):
    other = holder(SHORT)
    assert said(other) == "held"
    other.send_signal(signal.SIGSTOP)  # as a machine that was suspended, or a long pause of its memory
    with lease_after(tmp_path, SHORT) as held:
        other.send_signal(signal.SIGCONT)
        go_on(other)
        assert f"has lost its lease of the warehouse {tmp_path} to process {os.getpid()}" in said(other)
        held.need()


def lease_after(root, seconds):
    """The lease, once its last holder has lost it."""
    taken(root, seconds)
    return lease(str(root), seconds)


def test_a_clock_that_runs_ahead_does_not_take_a_lease(tmp_path, holder):
    """A follower whose clock says that the lease has ended watches it, and sees that it is renewed."""
    other = holder(SHORT)
    assert said(other) == "held"
    program = f"import time; real = time.time; time.time = lambda: real() + 3600{HOLDER}"
    asked = subprocess.run([sys.executable, "-c", program, str(tmp_path), str(SHORT)], input="", capture_output=True, text=True, cwd=TOP, check=True)
    assert f"in use by process {other.pid}" in asked.stdout
    go_on(other)
    assert said(other) == "published"


class Overwriting(MemoryFileSystem):
    """A store that does not know conditional writes, as some that imitate S3."""

    protocol = "overwriting"

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        return super().pipe_file(path, value, **kwargs)


def test_a_store_that_overwrites_is_refused():
    fsspec.register_implementation("overwriting", Overwriting, clobber=True)
    with pytest.raises(WarehouseError, match="replaces a file that it was told to create, .*: set warehouse.lock to none"):
        with lease("overwriting://bucket/tgq", LONG):
            pass


class Forgetful(MemoryFileSystem):
    """A store whose answer to a write is lost, so that its client repeats it and is told that the file is there."""

    protocol = "forgetful"

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        super().pipe_file(path, value, mode=mode, **kwargs)
        if mode == "create":
            raise OSError(errno.EINVAL, "At least one of the pre-conditions you specified did not hold")


def test_a_claim_whose_answer_was_lost_is_one_s_own():
    fsspec.register_implementation("forgetful", Forgetful, clobber=True)
    with lease("forgetful://bucket/tgq", LONG) as held:
        held.need()


class Failing(MemoryFileSystem):
    """A store that writes nothing."""

    protocol = "failing"

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        raise OSError(errno.EIO, "Please try again")


def test_a_store_that_fails_is_no_other_process():
    fsspec.register_implementation("failing", Failing, clobber=True)
    with pytest.raises(StoreError, match="Please try again"):
        with lease("failing://bucket/tgq", LONG):
            pass


class Waking(MemoryFileSystem):
    """A store in which the holder of claim 1 wakes up and renews it, just as somebody creates claim 2."""

    protocol = "waking"

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        super().pipe_file(path, value, mode=mode, **kwargs)
        if mode == "create":
            one = path.replace("000000000002", "000000000001")
            slept = json.loads(self.cat_file(one))
            super().pipe_file(one, json.dumps(slept | {"beat": slept["beat"] + 1}).encode())


def test_who_follows_a_holder_that_wakes_up_withdraws():
    fsspec.register_implementation("waking", Waking, clobber=True)
    root, store = "waking://bucket/tgq", fsspec.filesystem("waking")
    slept = Claim(1, "of another process", 4711, "another-machine", "2026-01-31 02:00:00 UTC", 0.06, 7, 0.0)
    store.pipe_file(f"{root}/{FOLDER}/000000000001.json", json.dumps(asdict(slept)).encode())
    with pytest.raises(LockedError, match="in use by process 4711 on another-machine"):
        with lease(root, LONG):
            pass
    states = [json.loads(store.cat_file(f"{root}/{FOLDER}/00000000000{number}.json"))["state"] for number in (1, 2)]
    assert states == ["held", "withdrawn"]


def test_old_claims_go(tmp_path):
    for _ in range(KEPT + 5):
        with lease(str(tmp_path), LONG):
            pass
    found = [claim["number"] for claim in claims(tmp_path)]
    assert found[-1] == KEPT + 5 and len(found) == KEPT + 1


def test_a_file_that_is_no_claim_is_named(tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "000000000001.json").write_text("{}")
    with pytest.raises(WarehouseError, match=r"_lease/000000000001.json is no claim"):
        with lease(str(tmp_path), LONG):
            pass


@pytest.mark.parametrize(
    ("settings", "left"),
    [({}, [".lock"]), ({"lock": "file"}, [".lock"]), ({"lock": "lease"}, [FOLDER]), ({"lock": "none"}, [])],
)
def test_the_setting_chooses_the_lock(tmp_path, settings, left):
    with warehouse_lock(WarehouseSettings(path=str(tmp_path), **settings)) as lock:
        lock.need()
        assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_an_object_store_has_a_lease():
    """In fsspec's store in memory, which knows conditional writes."""
    settings = WarehouseSettings(path="memory://bucket/tgq")
    with warehouse_lock(settings):
        with pytest.raises(LockedError, match=f"memory://bucket/tgq is in use by process {os.getpid()}"):
            with warehouse_lock(settings):
                pass
    with warehouse_lock(settings) as lock:
        lock.need()


def test_a_file_lock_needs_a_folder():
    with pytest.raises(ValueError, match="warehouse.lock: 'file' needs a folder, but warehouse.path is 's3a://shop/tgq'"):
        WarehouseSettings(path="s3a://shop/tgq", lock="file")
