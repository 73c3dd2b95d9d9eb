"""A real object store: MinIO on loopback, a drawn catalog in it, and commands of tgq as a user runs them. Set up by `make test-s3`."""

import importlib.util

import pytest

from tests.s3.server import BINARY, BUCKET, files_of, minio

ITEMS, BAD_ROWS = 150, 6


def missing():
    """What `make test-s3` has not set up; None if it is all there."""
    from tgq.spark.jars import s3a_folder

    if not BINARY.is_file():
        return "no MinIO in build/s3"
    if importlib.util.find_spec("s3fs") is None:
        return "s3fs is not installed"
    return None if s3a_folder().is_dir() else "no JARs for s3a://"


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """The server, with the bucket BUCKET."""
    if reason := missing():
        pytest.skip(f"{reason}: `make test-s3` sets it up")
    with minio(tmp_path_factory.mktemp("minio") / "server") as running:
        yield running


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Environment with a local cache that has the JARs and weights of this machine's, but no encoder that a warehouse promoted."""
    from tgq.storage.paths import cache_folder

    folder = tmp_path_factory.mktemp("cache")
    for file in cache_folder().iterdir():
        if file.name != "models":
            (folder / file.name).symlink_to(file)
    return {"TGQ_CACHE": str(folder)}


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """A drawn catalog in a local folder."""
    from tgq.demo.catalog import draw_catalog

    folder = tmp_path_factory.mktemp("shop") / "catalog"
    draw_catalog(folder, items=ITEMS, seed=5, size=64, workers=1, bad_rows=BAD_ROWS)
    return folder


@pytest.fixture(scope="session")
def catalog(store, shop):
    """The same catalog in the store, with its pictures."""
    files_of(store).put(str(shop), f"{BUCKET}/catalog", recursive=True)
    return f"s3a://{BUCKET}/catalog"


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """encoder(seed): the folder of a tiny encoder."""
    from tgq.encoder.tiny import write_tiny_encoder

    made = {}

    def write(seed=0):
        if seed not in made:
            made[seed] = write_tiny_encoder(tmp_path_factory.mktemp("encoder") / f"tiny-{seed}", seed=seed)
        return made[seed]

    return write
