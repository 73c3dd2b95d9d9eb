"""Object stores through fsspec: options, listings and errors. The store itself is in tests/s3."""

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tgq.errors import StoreError
from tgq.settings.sections import Settings
from tgq.spark.object_stores import s3a_conf, schemes
from tgq.storage.files import Files
from tgq.storage.paths import ensure_writable
from tgq.storage.stores import asked, delta_options, file_system, is_uri


def test_what_is_a_uri():
    assert [is_uri(path) for path in ("s3a://shop/tgq", "/data/tgq", "file:///data", "file:/data", "tgq")] == [True, False, False, False, False]


def test_a_listing_is_asked_of_the_store():
    """A client that kept listings would not see what Spark wrote in between."""
    files = Files("memory://listings/tgq")
    assert files.fs.dircache.use_listings_cache is False
    assert files.list("reports") == []
    fsspec.filesystem("memory").pipe_file("/listings/tgq/reports/one.html", b"x")
    assert files.list("reports") == ["one.html"] and files.size("reports/one.html") == 1


def test_a_store_is_writable_if_an_object_was_written():
    ensure_writable("memory://writable/tgq")
    assert Files("memory://writable/tgq").list("inner") == [] and fsspec.filesystem("memory").find("/writable/tgq") == []


class Refusing(MemoryFileSystem):
    """A store that refuses access."""

    protocol = "refusing"

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        raise PermissionError("The AWS Access Key Id you provided does not exist in our records.")


def test_a_store_that_refuses_access_is_named_with_what_to_do():
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    with pytest.raises(StoreError, match=r"^refusing://shop/tgq: the store refuses access \(The AWS Access Key .*\): check the credentials"):
        ensure_writable("refusing://shop/tgq")


def test_a_client_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(StoreError, match=r"gs://shop/tgq needs a package that is not installed .*: pip install 'tgq\[gcs\]'"):
        file_system("gs://shop/tgq")


def test_a_missing_file_stays_one_and_a_missing_bucket_does_not():
    with pytest.raises(FileNotFoundError), asked("s3a://shop/tgq"):
        raise FileNotFoundError("The specified bucket does not exist")
    with pytest.raises(StoreError, match="create the bucket"), asked("s3a://shop/tgq", missing=False):
        raise FileNotFoundError("The specified bucket does not exist")
    with pytest.raises(OSError, match="full"), asked("/data/tgq"):
        raise OSError("full")


def test_delta_rs_may_use_an_address_without_tls_where_it_is_named(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert delta_options("s3a://shop") is None and delta_options("/data", {"a": "b"}) == {"a": "b"}
    assert delta_options("s3a://shop", {"AWS_ENDPOINT_URL": "https://store"}) == {"AWS_ENDPOINT_URL": "https://store"}
    assert delta_options("s3a://shop", {"endpoint": "http://store"}) == {"endpoint": "http://store", "AWS_ALLOW_HTTP": "true"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert delta_options("s3a://shop") == {"AWS_ALLOW_HTTP": "true"} and delta_options("/data") is None


def test_what_spark_needs_follows_from_the_settings_and_the_environment(monkeypatch):
    settings = Settings.model_validate({"warehouse": {"path": "s3a://shop/tgq"}, "catalog": {"path": "gs://shop/catalog"}})
    assert schemes(settings) == ["gs", "s3a"] and schemes(Settings()) == []
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert "spark.hadoop.fs.s3a.path.style.access" not in s3a_conf()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    assert s3a_conf()["spark.hadoop.fs.s3a.path.style.access"] == "true"
    assert s3a_conf()["spark.hadoop.fs.s3a.endpoint.region"] == "eu-central-1"
