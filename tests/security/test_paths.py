"""Paths in the addresses of pictures, in names of slices and in files that are archives: nothing outside of the catalog is read or named."""

import io
import os
import tarfile
import zipfile

import pytest

from tgq.catalog.reading.location import Location, fetch_options
from tgq.errors import SourceError, WarehouseError
from tgq.feeds.feed import inspect, read
from tgq.feeds.files import feed_files
from tgq.feeds.options import FeedOptions
from tgq.images.decode import ImageError
from tgq.images.fetch import Fetcher
from tgq.registry.tracking import metric_names
from tgq.settings.sections import ImageSettings
from tgq.storage.files import Files


@pytest.fixture
def shop(tmp_path):
    """A catalog's folder beside a secret, with links of every kind that lead out."""
    folder = tmp_path / "shop"
    (folder / "images").mkdir(parents=True)
    (tmp_path / "shop-2").mkdir()
    for file in (tmp_path / "secret", tmp_path / "shop-2" / "1.jpg"):
        file.write_bytes(b"secret")
    (folder / "link.jpg").symlink_to(tmp_path / "secret")
    (folder / "relative.jpg").symlink_to("../secret")
    (folder / "twice.jpg").symlink_to("link.jpg")
    (folder / "out").symlink_to(tmp_path)
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.jpg")
    return folder


OUTSIDE, SCHEME = "path_outside_catalog", "unsupported_scheme"
PATHS = {
    "parent": ("../secret", OUTSIDE), "parent-within": ("images/../../secret", OUTSIDE), "parent-of-nothing": ("nowhere/../../secret", OUTSIDE),
    "absolute": ("/etc/passwd", OUTSIDE), "process": ("/proc/self/environ", OUTSIDE), "memory": ("/proc/self/mem", OUTSIDE), "device": ("/dev/zero", OUTSIDE),
    "sibling-with-the-same-beginning": ("../shop-2/1.jpg", OUTSIDE), "file-uri": ("file:///etc/passwd", OUTSIDE),
    "file-uri-short": ("file:/etc/passwd", OUTSIDE),
    "file-uri-in-capitals": ("FILE:///etc/passwd", OUTSIDE), "file-uri-localhost": ("file://localhost/etc/passwd", OUTSIDE),
    "file-uri-of-a-host": ("file://server/share/1.jpg", SCHEME), "percent": ("file://{shop}/%2e%2e/secret", OUTSIDE),
    "percent-slash": ("file://{shop}/..%2fsecret", OUTSIDE), "percent-twice": ("file://{shop}/%252e%252e/secret", "not_found"),
    "link": ("link.jpg", OUTSIDE), "relative-link": ("relative.jpg", OUTSIDE), "link-to-a-link": ("twice.jpg", OUTSIDE),
    "linked-folder": ("out/secret", OUTSIDE),
    "link-in-a-circle": ("loop.jpg", "unreadable"), "link-to-a-device": ("zero.jpg", OUTSIDE), "pipe": ("pipe.jpg", "unreadable"),
    "folder": ("images", "unreadable"),
    "zero-byte": ("images/1.jpg\0../secret", "not_found"), "newline": ("../secret\n", OUTSIDE), "backslashes": ("..\\secret", "not_found"),
    "home": ("~/.ssh/id_rsa", "not_found"), "variable": ("$HOME/.ssh/id_rsa", "not_found"), "glob": ("*", "not_found"), "long": ("a" * 5000, "unreadable"),
    "zip": ("zip://1.jpg::file:///secret.zip", SCHEME), "zip-chained": ("zip::file:///etc/x", SCHEME), "tar": ("tar://1.jpg::file:///x.tar", SCHEME),
    "jar": ("jar:file:///x.jar!/1.jpg", SCHEME), "archive": ("libarchive://1.jpg::file:///x", SCHEME), "cache": ("simplecache::file:///etc/passwd", SCHEME),
    "local": ("local:///etc/passwd", SCHEME), "in-memory": ("memory://x", SCHEME), "hub": ("hf://datasets/x/y", SCHEME), "github": ("github://x:y@z/1", SCHEME),
    "ssh": ("sftp://127.0.0.1/etc/passwd", SCHEME), "php": ("php://filter/resource=/etc/passwd", SCHEME), "expect": ("expect://id", SCHEME),
    "data": ("data:image/png;base64,AAAA", SCHEME), "script": ("javascript:alert(1)", SCHEME), "store": ("s3://secrets/1.jpg", OUTSIDE),
    "store-chained": ("s3://shop/1.jpg::file:///etc/passwd", OUTSIDE), "host-in-disguise": ("//etc/passwd", "host_not_allowed"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "reason"), PATHS.values(), ids=PATHS)
def test_a_picture_outside_of_the_catalog(shop, path, reason):
    location, fetcher = Location(str(shop / "catalog.csv"), "csv", str(shop)), Fetcher(fetch_options(str(shop), ImageSettings()))
    for act in (fetcher.read, fetcher.stat):
        with pytest.raises(ImageError) as caught:
            act(location.resolve(path.format(shop=shop)))
        assert caught.value.reason == reason and caught.value.detail.isprintable() and "secret\n" not in caught.value.detail


REMOTE = {
    "parent": "../other/1.jpg", "parent-within": "images/../../other/1.jpg", "absolute": "/etc/passwd", "file-uri": "file:///etc/passwd",
    "another-bucket": "gs://other/1.jpg", "another-store": "s3://shop/1.jpg", "same-beginning": "gs://shop/catalog-2/1.jpg",
    "parent-in-uri": "gs://shop/catalog/../x",
    "user": "gs://x@shop/catalog/1.jpg",
}  # fmt: skip


@pytest.mark.parametrize("path", REMOTE.values(), ids=REMOTE)
def test_a_picture_outside_of_a_catalog_in_an_object_store(path):
    location, fetcher = Location("gs://shop/catalog/c.csv", "csv", "gs://shop/catalog"), Fetcher(fetch_options("gs://shop/catalog", ImageSettings(retries=0)))
    with pytest.raises(ImageError) as caught:
        fetcher.read(location.resolve(path))
    assert caught.value.reason == OUTSIDE


PLACES = ["../x", "/etc/passwd", "a/../../x", "a//b", "", ".", "..", "a\0b", "a\\..\\b", "./a", "a/."]


@pytest.mark.parametrize("path", PLACES, ids=ascii)
def test_a_path_in_the_warehouse(tmp_path, path):
    files = Files(tmp_path / "w")
    for act in (files.read, files.size, files.list, files.remove, lambda path: files.write(path, b"x")):
        with pytest.raises(WarehouseError, match="leaves the warehouse") as caught:
            act(path)
        assert str(caught.value).isprintable()
    assert not (tmp_path / "w").exists()


SLICES = {
    "out": "../../etc", "absolute": "/etc/passwd", "dots": "..", "newline": "a\nb", "escape": "\x1b[2J", "override": "a\u202eb", "long": "x" * 5000,
    "blank": " ",
}  # fmt: skip


@pytest.mark.parametrize("value", SLICES.values(), ids=SLICES)
def test_a_slice_in_the_name_of_a_metric(value):
    """MLflow makes a path of a metric's name, and its files have that path."""
    [name] = metric_names([{"metric": "mrr", "k": 0, "slice": f"category={value}", "model_version": "0" * 16, "value": 0.5, "task": "item_item"}])
    assert name.startswith("category") and name.isprintable() and len(name) <= 250 and not {"", ".", ".."} & set(name.split("/"))


def zipped() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("../../../tmp/evil.csv", "item_id,title\n1,a\n")
    return sink.getvalue()


def tarred() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, link in (("../../evil.csv", None), ("link", "/etc/passwd")):
            entry = tarfile.TarInfo(name)
            if link:
                entry.type, entry.linkname = tarfile.SYMTYPE, link
            archive.addfile(entry)
    return sink.getvalue()


ARCHIVES = {"zip": zipped, "tar": tarred, "gzip-in-zip": lambda: b"\x1f\x8b\x08\x00" + zipped(), "parquet-cut": lambda: b"PAR1" + bytes(100)}


@pytest.mark.parametrize("name", ["catalog.csv", "catalog.csv.gz", "catalog.csv.xz", "catalog.csv.bz2", "catalog.parquet", "catalog.xml"])
@pytest.mark.parametrize("make", ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_in_place_of_a_feed_is_not_unpacked(tmp_path, make, name):
    (tmp_path / name).write_bytes(make())
    before = sorted(tmp_path.rglob("*"))
    [file] = feed_files(str(tmp_path / name))
    format = {".parquet": "parquet", ".xml": "xml"}.get(file.suffix, "csv")
    options = FeedOptions({"item_id": ("item_id",), "title": ("title",)})
    with pytest.raises(SourceError) as caught:
        for part in inspect(file, format, options).parts:
            list(read(part, format, options))
    assert name in str(caught.value) and "\n" not in str(caught.value) and str(caught.value).isprintable()
    assert sorted(tmp_path.rglob("*")) == before
