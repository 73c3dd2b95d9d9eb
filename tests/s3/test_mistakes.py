"""What a user gets wrong about an object store: one line that says what to do."""

import os
import socket
import subprocess
import sys

import pytest

import tgq
from tests.s3.commands import SETTINGS, Shell
from tests.s3.server import BUCKET, TOP
from tgq.errors import StoreError

pytestmark = pytest.mark.s3



@pytest.fixture
def nowhere():
    """An address where nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def line_of(shell, *command, code=1, **environment):
    printed, errors = shell.run(*command, code=code, **environment)
    lines = [line for line in errors.splitlines() if line.startswith("tgq: ")]
    assert len(lines) == 1 and "Traceback" not in errors and "\tat " not in errors, errors
    return lines[0]


NIGHT = ("nightly", "--conf", "local", "--catalog", str(TOP))


def test_a_wrong_key(store, cache):
    shell = Shell(f"s3a://{BUCKET}/wrong", store.environment() | cache)
    for command in (NIGHT, ("search", "--item", "a"), ("models",), ("index", "list")):
        assert "the store refuses access" in line_of(shell, *command, AWS_SECRET_ACCESS_KEY="wrong")
        assert "wrong" not in line_of(shell, *command, AWS_SECRET_ACCESS_KEY="very-wrong-key").replace(f"{BUCKET}/wrong", "")


def test_no_key(store, cache):
    own = {name: value for name, value in store.environment().items() if "KEY" not in name}
    shell = Shell(f"s3a://{BUCKET}/none", own | cache | {"HOME": "/nonexistent"})
    said = line_of(shell, *NIGHT)
    assert said.startswith(f"tgq: no credentials for s3a://{BUCKET}/none") and "set AWS_ACCESS_KEY_ID" in said


def test_no_bucket(store, cache):
    shell = Shell("s3a://not-there/tgq", store.environment() | cache)
    assert line_of(shell, *NIGHT).endswith("create the bucket, or name another one")


def test_no_server(nowhere, store, cache):
    shell = Shell(f"s3a://{BUCKET}/tgq", store.environment(nowhere) | cache)
    assert f"the store of s3a://{BUCKET}/tgq does not answer" in line_of(shell, "search", "--item", "a")
    with pytest.raises(StoreError, match="does not answer .*AWS_ENDPOINT_URL"):
        tgq.open_warehouse(shell.warehouse, storage_options=store.environment(nowhere))


def test_no_catalog(store, cache):
    shell = Shell(f"s3a://{BUCKET}/mistakes", store.environment() | cache)
    assert f"no catalog at s3a://{BUCKET}/missing" in line_of(shell, "nightly", "--catalog", f"s3a://{BUCKET}/missing")
    assert "s3a://not-there/catalog" in line_of(shell, "nightly", "--catalog", "s3a://not-there/catalog")


def test_a_scheme_that_hadoop_does_not_know(store, cache):
    shell = Shell(f"s3://{BUCKET}/tgq", store.environment() | cache)
    assert line_of(shell, *NIGHT) == "tgq: Spark has no client for s3:// addresses: write s3a:// in place of s3://"


def test_no_jars(store, cache):
    """As on a cluster whose settings name none: here they name another package's."""
    shell = Shell(f"s3a://{BUCKET}/tgq", store.environment() | cache)
    sets = (*SETTINGS, 'spark.conf={"spark.jars": "/nowhere/hadoop-aws-0.jar"}')
    printed, errors = shell.run(*NIGHT, code=1, sets=sets)
    assert "tgq: Spark has no client for s3a:// addresses: name org.apache.hadoop:hadoop-aws:3." in errors and "Traceback" not in errors


def test_no_client_for_files(store, cache):
    program = "import sys; sys.modules['s3fs'] = None; from tgq.cli.app import main; main(sys.argv[1:])"
    line = [sys.executable, "-c", program, "search", "--item", "a", "--warehouse", f"s3a://{BUCKET}/tgq"]
    done = subprocess.run(line, env=os.environ | store.environment() | cache, cwd=TOP, capture_output=True, text=True)
    (said,) = done.stderr.strip().splitlines()
    assert done.returncode == 1 and said.startswith(f"tgq: s3a://{BUCKET}/tgq needs a package that is not installed") and said.endswith("pip install 'tgq[s3]'")


def test_nothing_published(store, cache):
    shell = Shell(f"s3a://{BUCKET}/empty", store.environment() | cache)
    assert f"nothing is published in s3a://{BUCKET}/empty" in line_of(shell, "search", "--item", "a")


def test_the_doctor_tries_the_store(store, cache):
    shell = Shell(f"s3a://{BUCKET}/doctor", store.environment() | cache)
    assert f"ok   warehouse: s3a://{BUCKET}/doctor is writable" in shell.run("doctor")[0]
    printed, _ = shell.run("doctor", code=1, AWS_SECRET_ACCESS_KEY="wrong")
    assert "FAIL warehouse" in printed and "the store refuses access" in printed
