"""MinIO as a child process on loopback, with a folder and credentials of its own."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]
BINARY = TOP / "build" / "s3" / "minio"
BUCKET = "shop"
START_S = 60.0


@dataclass(frozen=True)
class Store:
    """A running server. `address` is where clients find it, perhaps through a proxy."""

    place: tuple[str, int]
    user: str
    password: str
    address: str

    def environment(self, address: str | None = None) -> dict[str, str]:
        """What a user sets for Spark, fsspec and delta-rs alike."""
        return {
            "AWS_ACCESS_KEY_ID": self.user,
            "AWS_SECRET_ACCESS_KEY": self.password,
            "AWS_ENDPOINT_URL": address or self.address,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",  # delta-rs would refuse an address without TLS
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def minio(folder: Path) -> Iterator[Store]:
    """Run a server that keeps its objects in `folder`, with a bucket BUCKET, until the block ends."""
    port = _free_port()
    user, password = "tgq-test", secrets.token_hex(16)
    for name in ("data", "home"):
        (folder / name).mkdir(parents=True)
    options = ["--quiet", "--address", f"127.0.0.1:{port}", "--certs-dir", str(folder / "home")]
    command = [str(BINARY), "server", *options, str(folder / "data")]
    own = {"MINIO_ROOT_USER": user, "MINIO_ROOT_PASSWORD": password, "MINIO_BROWSER": "off", "MINIO_UPDATE": "off", "HOME": str(folder / "home")}
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=subprocess.STDOUT)
    store = Store(("127.0.0.1", port), user, password, f"http://127.0.0.1:{port}")
    try:
        _wait(process, store, folder / "log.txt")
        _create_bucket(store)
        yield store
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def files_of(store: Store, address: str | None = None):
    """fsspec's file system of the server, without a cache."""
    import s3fs

    return s3fs.S3FileSystem(
        key=store.user, secret=store.password, endpoint_url=address or store.address, use_listings_cache=False, skip_instance_cache=True,
        client_kwargs={"region_name": "us-east-1"},
    )  # fmt: skip


def _create_bucket(store: Store) -> None:
    files_of(store).mkdir(BUCKET)


def _wait(process: subprocess.Popen, store: Store, log: Path) -> None:
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{store.address}/minio/health/ready", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"MinIO did not start: {log.read_text()[-500:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
