"""Real files, fsspec's in-memory object store, and a web server on this machine."""

import os
import pickle
import shutil
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from tgq.images.decode import ImageError
from tgq.images.fetch import Fetcher
from tgq.images.permitted import FetchOptions


def reason(act) -> str:
    with pytest.raises(ImageError) as caught:
        act()
    assert "\n" not in caught.value.detail
    return caught.value.reason


# -- local files


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "catalog"
    (root / "images").mkdir(parents=True)
    (root / "images" / "1 ü.jpg").write_bytes(b"one")
    (tmp_path / "secret").write_bytes(b"secret")
    return root


@pytest.fixture
def local(folder):
    return Fetcher(FetchOptions(allowed_roots=(str(folder),), max_bytes=100))


def test_a_path_and_a_file_uri_give_the_same_bytes(local, folder):
    path = folder / "images" / "1 ü.jpg"
    assert local.read(str(path)) == local.read(path.as_uri()) == local.read(f"file:{path}") == b"one"
    assert local.read(path.as_uri().replace("file://", "file://localhost")) == b"one"
    assert local.read(str(folder / "images" / ".." / "images" / path.name)) == b"one"


def test_nothing_leads_out_of_the_roots(local, folder, tmp_path):
    (folder / "link.jpg").symlink_to(tmp_path / "secret")
    (folder / "out").symlink_to(tmp_path)
    (tmp_path / "catalog-2").mkdir()
    (tmp_path / "catalog-2" / "1.jpg").write_bytes(b"a sibling with the same prefix")
    for path in [
        tmp_path / "secret",
        folder / ".." / "secret",
        folder / "link.jpg",
        folder / "out" / "secret",
        tmp_path / "catalog-2" / "1.jpg",
        folder / ".." / "does-not-exist",
        "/etc/passwd",
        f"file://{folder}/%2e%2e/secret",
        f"file://{folder}/..%2Fsecret",
        "images/1.jpg",
        "../secret",
        "",
    ]:
        assert reason(lambda path=path: local.read(str(path))) == "path_outside_catalog", path
        assert reason(lambda path=path: local.stat(str(path))) == "path_outside_catalog", path


def test_without_roots_there_are_no_files(folder):
    assert (
        reason(lambda: Fetcher(FetchOptions()).read(str(folder / "images" / "1 ü.jpg")))
        == "path_outside_catalog"
    )


def test_a_symlink_inside_the_roots_is_fine_and_so_is_a_root_that_is_one(folder, tmp_path):
    (folder / "again.jpg").symlink_to(folder / "images" / "1 ü.jpg")
    (tmp_path / "alias").symlink_to(folder)
    fetcher = Fetcher(FetchOptions(allowed_roots=(str(tmp_path / "alias"),)))
    assert (
        fetcher.read(str(folder / "again.jpg"))
        == fetcher.read(str(tmp_path / "alias" / "again.jpg"))
        == b"one"
    )


def test_what_is_no_readable_file(local, folder):
    os.mkfifo(folder / "pipe")
    (folder / "big").write_bytes(b"x" * 101)
    assert reason(lambda: local.read(str(folder / "missing.jpg"))) == "not_found"
    assert reason(lambda: local.read(str(folder / "images" / "1 ü.jpg" / "deeper"))) == "not_found"
    assert reason(lambda: local.read(str(folder) + "/nul\0byte")) == "not_found"
    assert reason(lambda: local.read(str(folder / "images"))) == "unreadable"
    assert reason(lambda: local.read(str(folder / "pipe"))) == "unreadable"  # and does not wait for a writer
    assert reason(lambda: local.read(str(folder / "big"))) == "too_large"
    assert reason(lambda: local.read(str(folder / ("n" * 300)))) == "unreadable"


@pytest.mark.parametrize(
    "uri", ["ftp://host/1.jpg", "data:image/png;base64,AAAA", "javascript:1", "file://server/share/1.jpg"]
)
def test_unsupported_scheme(local, uri):
    assert reason(lambda: local.read(uri)) == "unsupported_scheme"
    assert reason(lambda: local.stat(uri)) == "unsupported_scheme"


def test_the_local_fingerprint_follows_size_and_mtime(local, folder):
    path = folder / "images" / "1 ü.jpg"
    first = local.stat(str(path))
    assert first == local.stat(path.as_uri())
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    second = local.stat(str(path))
    path.write_bytes(b"four")
    os.utime(path, ns=(0, path.stat().st_mtime_ns))
    assert len({first, second, local.stat(str(path))}) == 3


@given(
    st.sampled_from(["", "/", "file:", "file://", "http:", "http://", "https://[", "http://user@"]),
    st.text(max_size=40),
)
def test_any_uri_gives_an_image_error(start, rest):
    fetcher = Fetcher(FetchOptions(allowed_roots=("/nonexistent/catalog",)))
    for act in (fetcher.read, fetcher.stat):
        with pytest.raises(ImageError):
            act(start + rest)


# -- object stores


class StoreInMemory(MemoryFileSystem):
    """fsspec's memory store, answering to the name of a real one."""

    protocol = ("gcs", "gs")
    store: dict = {}
    pseudo_dirs = [""]


@pytest.fixture
def bucket():
    fsspec.register_implementation("gs", StoreInMemory, clobber=True)
    StoreInMemory.store.clear()
    yield fsspec.filesystem("gs")
    import_module("fsspec.registry")._registry.pop("gs")  # fsspec looks the real one up again


def test_an_object_store(bucket):
    fetcher = Fetcher(FetchOptions(allowed_roots=("gcs://shop/",), max_bytes=10, retries=0))
    bucket.pipe_file("gs://shop/1.jpg", b"one")
    bucket.pipe_file("gs://shop/big.jpg", b"x" * 11)
    assert fetcher.read("gs://shop/1.jpg") == b"one"
    first = fetcher.stat("gs://shop/1.jpg")
    assert first and first == fetcher.stat("gs://shop/1.jpg")
    bucket.pipe_file("gs://shop/1.jpg", b"uno")
    assert fetcher.stat("gs://shop/1.jpg") != first
    assert reason(lambda: fetcher.read("gs://shop/2.jpg")) == "not_found"
    assert reason(lambda: fetcher.stat("gs://shop/2.jpg")) == "not_found"
    assert reason(lambda: fetcher.read("gs://shop/big.jpg")) == "too_large"
    assert reason(lambda: fetcher.read("gs://shop/1.jpg::file:///etc/passwd")) == "unsupported_scheme"
    bucket.pipe_file("gs://other/1.jpg", b"not ours")
    for outside in ("gs://other/1.jpg", "gs://shop/../other/1.jpg", "gs://shopping/1.jpg", "s3://shop/1.jpg"):
        assert reason(lambda outside=outside: fetcher.read(outside)) == "path_outside_catalog"


def test_a_store_whose_package_is_missing_says_which():
    missing = next((s for s, p in (("s3", "s3fs"), ("abfs", "adlfs")) if not _importable(p)), None)
    if missing is None:
        pytest.skip("s3fs and adlfs are both installed")
    with pytest.raises(ImageError, match="s3fs|adlfs") as caught:
        Fetcher(FetchOptions(allowed_roots=(f"{missing}://bucket",))).read(f"{missing}://bucket/1.jpg")
    assert caught.value.reason == "unsupported_scheme"


def _importable(package: str) -> bool:
    try:
        __import__(package)
    except ImportError:
        return False
    return True


# -- web servers


class Shop(BaseHTTPRequestHandler):
    """Answers by path; counts what it was asked."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str]] = []

    def do_GET(self):
        Shop.asked.append((self.command, self.path))
        times = sum(path == self.path for _, path in Shop.asked)
        port = self.server.server_address[1]
        if self.path == "/1.jpg":
            self.answer(200, b"one", {"ETag": '"v1"'})
        elif self.path == "/plain.jpg":
            self.answer(200, b"one")
        elif self.path == "/dated.jpg":
            self.answer(
                405 if self.command == "HEAD" else 200,
                b"one",
                {"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"},
            )
        elif self.path == "/flaky.jpg":
            self.answer(200 if times > 2 else 500, b"at last")
        elif self.path == "/busy.jpg":
            self.answer(200 if times > 1 else 429, b"at last", {"Retry-After": "1"} if times == 1 else {})
        elif self.path.startswith("/status/"):
            self.answer(int(self.path.rsplit("/", 1)[1]), b"")
        elif self.path == "/hop":
            self.answer(302, b"", {"Location": "/1.jpg"})
        elif self.path == "/loop":
            self.answer(302, b"", {"Location": "/loop"})
        elif self.path == "/away":
            self.answer(302, b"", {"Location": "http://elsewhere.example/1.jpg"})
        elif self.path == "/home":
            self.answer(302, b"", {"Location": f"http://127.0.0.1:{port}/1.jpg"})
        elif self.path == "/file":
            self.answer(302, b"", {"Location": "file:///etc/passwd"})
        elif self.path == "/nowhere":
            self.answer(302, b"", {"Location": "http://[broken"})
        elif self.path == "/slow":
            time.sleep(1.0)
            self.answer(200, b"late")
        elif self.path == "/trickle":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.05)
        elif self.path == "/large":
            self.answer(200, b"x" * 5000)
        elif self.path == "/endless":  # no length is declared
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            for _ in range(10_000):
                self.wfile.write(b"x" * 10_000)
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"short")
            self.close_connection = True

    do_HEAD = do_GET

    def answer(self, status, body, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # clients that hang up are what these tests are about


@contextmanager
def serving(tls=None):
    """A shop on this machine, behind TLS if a context is given: "127.0.0.1:port"."""
    server = QuietServer(("127.0.0.1", 0), Shop)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    Shop.asked = []
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def shop():
    with serving() as address:
        yield f"http://{address}"


def web(*hosts, **options) -> Fetcher:
    return Fetcher(
        FetchOptions(allowed_hosts=hosts or ("127.0.0.1",), **{"timeout_s": 0.3, "retries": 0, **options})
    )


def test_get(shop):
    assert web().read(f"{shop}/1.jpg") == b"one"
    assert web().read(f"{shop}/hop") == b"one"


def test_the_fingerprint_of_a_web_picture(shop):
    assert web().stat(f"{shop}/1.jpg") == 'etag="v1" size=3'
    assert web().stat(f"{shop}/hop") == 'etag="v1" size=3'
    assert all(method == "HEAD" for method, _ in Shop.asked)
    assert (
        web().stat(f"{shop}/dated.jpg") == "modified=Thu, 01 Jan 2026 00:00:00 GMT size=3"
    )  # HEAD refused, GET unread
    assert web().stat(f"{shop}/plain.jpg") == ""
    assert reason(lambda: web().stat(f"{shop}/status/404")) == "not_found"


@pytest.mark.parametrize(
    "hosts", [("images.shop.example",), ("*.0.0.2",), ("7.0.0.1",), ("*",), ("*7.0.0.1",)]
)
def test_only_listed_hosts(shop, hosts):
    assert reason(lambda: web(*hosts).read(f"{shop}/1.jpg")) == "host_not_allowed"
    assert reason(lambda: Fetcher(FetchOptions()).read(f"{shop}/1.jpg")) == "host_not_allowed"
    assert Shop.asked == []


def test_private_addresses_answer_only_to_their_full_name(shop):
    """A wildcard covers the host by name, but the address behind it is this machine."""
    assert reason(lambda: web("*.0.0.1").read(f"{shop}/1.jpg")) == "host_not_allowed"
    port = shop.rsplit(":", 1)[1]
    assert web("localhost").read(f"http://localhost:{port}/1.jpg") == b"one"
    assert web("LOCALHOST.").read(f"http://LocalHost:{port}/1.jpg") == b"one"
    Shop.asked = []
    for host in ("127.0.0.1", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"):
        assert (
            reason(lambda host=host: web("localhost").read(f"http://{host}:{port}/1.jpg"))
            == "host_not_allowed"
        )
    assert Shop.asked == []


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1@evil.example/", "http://127.0.0.1:80@evil.example/",
            "http://evil.example\\@127.0.0.1/",
            "http://evil.example#@127.0.0.1/", "http:///127.0.0.1/", "http://", "https:///1.jpg"],
)  # fmt: skip
def test_a_host_in_disguise(uri):
    assert reason(lambda: web().read(uri)) in ("host_not_allowed", "unreadable")


def test_redirects_stay_on_the_list(shop):
    assert reason(lambda: web().read(f"{shop}/away")) == "host_not_allowed"
    assert reason(lambda: web().read(f"{shop}/file")) == "unsupported_scheme"
    assert reason(lambda: web().read(f"{shop}/loop")) == "unreadable"
    assert reason(lambda: web().read(f"{shop}/nowhere")) == "unreadable"
    port = shop.rsplit(":", 1)[1]
    assert reason(lambda: web("localhost").read(f"http://localhost:{port}/home")) == "host_not_allowed"
    assert web("localhost", "127.0.0.1").read(f"http://localhost:{port}/home") == b"one"


def test_too_large_is_seen_by_length_and_while_streaming(shop):
    assert reason(lambda: web(max_bytes=1000).read(f"{shop}/large")) == "too_large"
    began = time.perf_counter()
    assert reason(lambda: web(max_bytes=1000).read(f"{shop}/endless")) == "too_large"
    assert time.perf_counter() - began < 2
    assert web(max_bytes=5000).read(f"{shop}/large") == b"x" * 5000


def test_slow_answers(shop):
    assert reason(lambda: web().read(f"{shop}/slow")) == "timeout"
    began = time.perf_counter()
    assert (
        reason(lambda: web(timeout_s=0.1).read(f"{shop}/trickle")) == "timeout"
    )  # each single read is quick enough
    assert time.perf_counter() - began < 3


def test_retries_on_what_may_pass(shop):
    assert web(retries=2).read(f"{shop}/flaky.jpg") == b"at last"
    assert Shop.asked.count(("GET", "/flaky.jpg")) == 3
    began = time.perf_counter()
    assert web(retries=1).read(f"{shop}/busy.jpg") == b"at last"
    assert time.perf_counter() - began >= 1  # as the server asked
    assert reason(lambda: web(retries=1).read(f"{shop}/cut")) == "truncated"
    assert Shop.asked.count(("GET", "/cut")) == 2


@pytest.mark.parametrize(
    "status, said", [(404, "not_found"), (410, "not_found"), (403, "unreadable"), (400, "unreadable")]
)
def test_no_retries_on_what_stays(shop, status, said):
    assert reason(lambda: web(retries=3).read(f"{shop}/status/{status}")) == said
    assert len(Shop.asked) == 1


def test_a_server_that_is_not_there(shop):
    closed = QuietServer(("127.0.0.1", 0), Shop)
    port = closed.server_address[1]
    closed.server_close()
    assert reason(lambda: web(retries=1).read(f"http://127.0.0.1:{port}/1.jpg")) == "unreadable"


def test_it_travels_to_a_worker_after_use(shop):
    fetcher = web()
    fetcher.read(f"{shop}/1.jpg")
    assert pickle.loads(pickle.dumps(fetcher)).read(f"{shop}/1.jpg") == b"one"


# -- addresses without a scheme


@pytest.fixture
def encrypted(tmp_path, monkeypatch):
    """The same shop behind TLS, with a certificate that this process trusts: "127.0.0.1:port"."""
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
            "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]  # fmt: skip
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, and makes the certificate")
    subprocess.run(made, check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with serving(context) as address:
        yield address


def test_an_address_without_a_scheme_is_asked_encrypted_first(encrypted):
    fetcher = web(timeout_s=5)
    assert fetcher.read(f"https://{encrypted}/1.jpg") == fetcher.read(f"//{encrypted}/1.jpg") == b"one"
    assert fetcher.stat(f"//{encrypted}/1.jpg") == 'etag="v1" size=3'
    # whatever the encrypted server answers stands: http would be a broken connection here
    assert reason(lambda: fetcher.read(f"//{encrypted}/status/404")) == "not_found"
    with pytest.raises(ImageError, match=f"https://{encrypted}/status/500: HTTP 500"):
        fetcher.read(f"//{encrypted}/status/500")
    with pytest.raises(ImageError, match=f"https://{encrypted}/slow"):
        web(timeout_s=0.5).read(f"//{encrypted}/slow")


def test_an_address_without_a_scheme_is_asked_unencrypted_where_nothing_else_can_be(shop, monkeypatch):
    address = shop.removeprefix("http:")
    fetcher = web()
    assert fetcher.read(f"{address}/1.jpg") == b"one" and fetcher.stat(f"{address}/hop") == 'etag="v1" size=3'
    assert reason(lambda: fetcher.read(f"{address}/status/404")) == "not_found"
    assert fetcher.read(f"{address}/1.jpg") == b"one"
    assert reason(lambda: fetcher.read(f"{address}/away")) == "host_not_allowed"


def test_an_address_without_a_scheme_passes_the_same_checks(shop):
    address = shop.removeprefix("http:")
    assert reason(lambda: web("elsewhere.example").read(f"{address}/1.jpg")) == "host_not_allowed"
    assert reason(lambda: web("*.0.0.1").read(f"{address}/1.jpg")) == "host_not_allowed"
    assert reason(lambda: Fetcher(FetchOptions(allowed_roots=("/",))).read(f"{address}/1.jpg")) == "host_not_allowed"
    assert Shop.asked == []


def test_a_host_that_takes_no_connection_says_so_without_an_address_of_memory():
    with QuietServer(("127.0.0.1", 0), Shop) as closed:
        port = closed.server_address[1]
    for scheme in ("http:", "https:", ""):
        with pytest.raises(ImageError, match="refused") as caught:
            web().read(f"{scheme}//127.0.0.1:{port}/1.jpg")
        assert "0x" not in caught.value.detail
