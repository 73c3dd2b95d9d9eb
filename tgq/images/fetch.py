"""Where a picture's bytes come from: local files, object stores, web servers. One door, one set of limits.

A catalog names its pictures, and a catalog comes from outside. So a local path must lie under a root that the
operator named, a web host must be on the operator's list, and neither a symlink, a redirect nor a DNS answer
leads around that.
"""

from __future__ import annotations

import ipaddress
import os
import random
import re
import stat as stat_bits
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote, urljoin

import fsspec
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import Timeout, parse_url

from tgq.images.decode import ImageError

OBJECT_STORES = ("hdfs", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
MAX_REDIRECTS = 5
CHUNK = 64 * 1024
# A server may trickle bytes just inside the read timeout; the whole answer gets this many times `timeout_s`.
WHOLE_ANSWER = 6
MAX_PAUSE_S = 20.0

T = TypeVar("T")


@dataclass(frozen=True)
class FetchOptions:
    """What the operator permits.

    Attributes:
        allowed_hosts: web hosts, exact (`images.shop.com`) or by suffix (`*.shop.com`, which does not include
            `shop.com`).
            Empty: no web at all. Only a host named exactly may have a private or loopback address.
        allowed_roots: folders and URIs of object stores (`s3://bucket/photos`). A local file must lie in one of
            the folders after symlinks are resolved, an object under one of the URIs. Empty: neither.
        timeout_s: to connect, and between two reads; the whole answer gets six times as long.
        retries: further attempts after a timeout, a broken connection, HTTP 429 or 5xx.
        max_bytes: refused above that, while it streams in.
    """

    allowed_hosts: tuple[str, ...] = ()
    allowed_roots: tuple[str, ...] = ()
    timeout_s: float = 10.0
    retries: int = 3
    max_bytes: int = 20 * 1024 * 1024


class _Transient(Exception):
    """Worth another attempt: holds the error to raise after the last, and the pause the server asked for."""

    def __init__(self, error: ImageError, pause_s: float = 0.0):
        self.error, self.pause_s = error, pause_s
        super().__init__(str(error))


class Fetcher:
    """Reads URIs under `options`. Thread-safe, picklable: connections are opened on first use, in each process.

    Local paths are absolute, or `file://`: the caller resolves relative ones against the catalog's folder.
    Web servers are reached directly, never through a proxy, because only then is the address that answers
    known.
    """

    def __init__(self, options: FetchOptions):
        self.options = options
        stores = tuple(root for root in options.allowed_roots if "://" in root and not root.startswith("file:"))
        local = (root for root in options.allowed_roots if root not in stores)
        self._stores = tuple(_canonical(root) for root in stores)
        self._roots = tuple(os.path.realpath(_local_path(root)) for root in local)
        self._lock = threading.Lock()
        self._pools: tuple[int, dict[bool, urllib3.PoolManager]] | None = (
            None  # with the id of the process that opened them
        )

    def __getstate__(self) -> FetchOptions:
        return self.options

    def __setstate__(self, options: FetchOptions) -> None:
        self.__init__(options)

    def read(self, uri: str) -> bytes:
        """The bytes at `uri`.

        Raises:
            ImageError: 'too_large', 'unsupported_scheme', 'path_outside_catalog', 'host_not_allowed',
                'not_found', 'timeout', 'truncated' (the connection ended early), or 'unreadable' with what
                the server or system said.
        """
        scheme = _scheme(uri)
        if scheme == "file":
            return self._read_local(uri)
        if scheme in OBJECT_STORES:
            return self._again(lambda: self._read_object(uri))
        return self._again(lambda: self._read_http(uri))

    def stat(self, uri: str) -> str:
        """A cheap fingerprint, without reading the picture: it changes when the bytes do.

        Empty when the server offers nothing to tell versions apart by; such a picture has to be read to know.

        Local: size and mtime in ns. Object store: what the store lists about the object (size, ETag, mtime,
            generation).
        Web: ETag, Last-Modified and length of a HEAD; a server that gives neither of the first two yields ''.

        Raises:
            ImageError: as `read`.
        """
        scheme = _scheme(uri)
        if scheme == "file":
            found = self._local(uri)[1]
            return f"size={found.st_size} mtime_ns={found.st_mtime_ns}"
        if scheme in OBJECT_STORES:
            return self._again(lambda: self._stat_object(uri))
        return self._again(lambda: self._stat_http(uri))

    # -- local files

    def _local(self, uri: str) -> tuple[str, os.stat_result]:
        path = uri
        if uri[:5].lower() == "file:":
            rest = uri[5:]
            host, slash, after = rest[2:].partition("/") if rest.startswith("//") else ("", "", rest)
            if host not in ("", "localhost"):
                raise ImageError("unsupported_scheme", f"{uri} names a file on another machine ({host})")
            path = unquote(slash + after)
        if not os.path.isabs(path):
            raise ImageError("path_outside_catalog", f"{path} is relative, and to what is not known here")
        try:
            real = os.path.realpath(path)
            # Judged before it is looked at: whether a file exists outside the roots is nobody's business.
            if not any(os.path.commonpath((root, real)) == root for root in self._roots):
                raise ImageError(
                    "path_outside_catalog", f"{path} does not lie in {' or '.join(self._roots) or 'any root'}"
                )
            found = os.stat(real)
        except (OSError, ValueError) as error:
            raise _of_system(path, error) from None
        if not stat_bits.S_ISREG(found.st_mode):  # a pipe or a device would never end
            raise ImageError("unreadable", f"{path} is not a regular file")
        return real, found

    def _read_local(self, uri: str) -> bytes:
        path, found = self._local(uri)
        if found.st_size > self.options.max_bytes:
            raise self._too_large(uri, found.st_size)
        try:
            with open(path, "rb") as file:
                data = file.read(self.options.max_bytes + 1)
        except OSError as error:
            raise _of_system(path, error) from None
        return self._within_limit(uri, data)

    # -- object stores

    @contextmanager
    def _object(self, uri: str):
        """The file system and the path in it; what its library raises gets a name. Its own timeouts hold."""
        place = _canonical(uri)
        if ".." in place.split("/") or not any(place.startswith(f"{root}/") for root in self._stores):
            raise ImageError(
                "path_outside_catalog", f"{uri} does not lie under {' or '.join(self._stores) or 'any root'}"
            )
        if "::" in uri:
            raise ImageError("unsupported_scheme", f"{uri} is a chain of file systems")
        try:
            yield fsspec.core.url_to_fs(uri)
        except (ImageError, _Transient):
            raise
        except ImportError as error:
            raise ImageError(
                "unsupported_scheme", f"{uri} needs a package that is not installed: {error}"
            ) from None
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise _of_system(uri, error) from None
        except TimeoutError as error:
            raise _Transient(ImageError("timeout", f"{uri}: {_line(error)}")) from None
        except OSError as error:
            raise _Transient(_of_system(uri, error)) from None
        except Exception as error:  # each store's client has classes of its own
            raise ImageError("unreadable", f"{uri}: {type(error).__name__}: {_line(error)}") from None

    def _read_object(self, uri: str) -> bytes:
        with self._object(uri) as (fs, path):
            return self._within_limit(uri, fs.cat_file(path, start=0, end=self.options.max_bytes + 1))

    def _stat_object(self, uri: str) -> str:
        with self._object(uri) as (fs, path):
            return f"ukey={fs.ukey(path)}"

    # -- web servers

    def _read_http(self, uri: str) -> bytes:
        with self._answer("GET", uri) as response:
            declared = response.headers.get("Content-Length", "")
            if declared.isdigit() and int(declared) > self.options.max_bytes:
                raise self._too_large(uri, int(declared))
            deadline = time.monotonic() + WHOLE_ANSWER * self.options.timeout_s
            data = bytearray()
            while chunk := response.read1(CHUNK, decode_content=True):  # `stream` would wait for a full chunk
                data += chunk
                if len(data) > self.options.max_bytes:
                    raise self._too_large(uri, len(data))
                if time.monotonic() > deadline:
                    raise _Transient(
                        ImageError("timeout", f"{uri} was still sending after {WHOLE_ANSWER} timeouts")
                    )
            return bytes(data)

    def _stat_http(self, uri: str) -> str:
        with self._answer("HEAD", uri) as response:
            headers = response.headers
        if not (headers.get("ETag") or headers.get("Last-Modified")):
            return ""
        told = (("etag", "ETag"), ("modified", "Last-Modified"), ("size", "Content-Length"))
        return " ".join(f"{name}={headers[header]}" for name, header in told if headers.get(header))

    @contextmanager
    def _answer(self, method: str, uri: str):
        """The 200 at the end of permitted redirects, unread; closed on exit."""
        at = uri
        for _ in range(MAX_REDIRECTS + 1):
            with self._request(method, at) as response:
                if response.status in (301, 302, 303, 307, 308) and response.headers.get("Location"):
                    try:
                        at = urljoin(at, response.headers["Location"])
                    except ValueError as error:
                        raise ImageError(
                            "unreadable", f"{uri} redirects to no address: {_line(error)}"
                        ) from None
                    if _scheme(at) not in ("http", "https"):
                        raise ImageError("unsupported_scheme", f"{uri} redirects to {at}")
                    continue
                if method == "HEAD" and response.status in (405, 501):
                    method = "GET"  # a server without HEAD: ask again, and leave the body unread
                    continue
                _raise_for_status(uri, response)
                yield response
                return
        raise ImageError("unreadable", f"{uri} redirects more than {MAX_REDIRECTS} times")

    @contextmanager
    def _request(self, method: str, uri: str):
        try:
            # One parser decides the host that is checked AND the host that is connected to: two would
            # disagree some day.
            url = parse_url(uri)
        except urllib3.exceptions.HTTPError as error:
            raise ImageError("unreadable", f"{uri}: {_line(error)}") from None
        host = (url.host or "").strip("[]").rstrip(".").lower()
        exact = self._permitted(host, uri)
        response = None
        try:
            pool = self._pool(exact).connection_from_host(url.host, url.port, url.scheme)
            response = pool.request(
                method,
                url.request_uri,
                headers={"User-Agent": "tgq", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
                timeout=Timeout(connect=self.options.timeout_s, read=self.options.timeout_s),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            if response.length_remaining == 0:
                response.read()  # done with it, so that the connection can serve again
            yield response
        except urllib3.exceptions.LocationParseError as error:
            raise ImageError("unreadable", f"{uri}: {_line(error)}") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _Transient(self._of_connection(uri, error)) from None
        finally:
            if response is not None:
                response.close()  # a connection whose answer was read to its end is back in the pool by now

    def _of_connection(self, uri: str, error: Exception) -> ImageError:
        refused = isinstance(
            error, urllib3.exceptions.NewConnectionError
        )  # which urllib3 derives from its timeout
        if isinstance(error, urllib3.exceptions.TimeoutError) and not refused:
            return ImageError("timeout", f"{uri} did not answer in {self.options.timeout_s:g} s")
        cut = isinstance(error.args[-1] if error.args else error, urllib3.exceptions.IncompleteRead)
        return ImageError("truncated" if cut else "unreadable", f"{uri}: {_line(error)}")

    def _permitted(self, host: str, uri: str) -> bool:
        """Whether the host is listed exactly; an unlisted one is refused."""
        listed = [entry.lower().rstrip(".") for entry in self.options.allowed_hosts]
        if host and host in listed:
            return True
        if host and any(entry.startswith("*.") and host.endswith(entry[1:]) for entry in listed):
            return False
        raise ImageError(
            "host_not_allowed",
            f"{host or uri} is not one of the allowed hosts ({', '.join(listed) or 'none'})",
        )

    def _pool(self, any_address: bool) -> urllib3.PoolManager:
        with self._lock:
            if (
                self._pools is None or self._pools[0] != os.getpid()
            ):  # sockets must not be shared across a fork
                self._pools = (
                    os.getpid(),
                    {True: _pool_manager(), False: _pool_manager(_PublicHTTP, _PublicHTTPS)},
                )
            return self._pools[1][any_address]

    # -- limits and attempts

    def _within_limit(self, uri: str, data: bytes) -> bytes:
        if len(data) > self.options.max_bytes:
            raise self._too_large(uri, len(data))
        return data

    def _too_large(self, uri: str, size: int) -> ImageError:
        return ImageError(
            "too_large", f"{uri}: {size:,} bytes or more, above the limit of {self.options.max_bytes:,}"
        )

    def _again(self, attempt: Callable[[], T]) -> T:
        """Exponential backoff with full jitter, so that a thousand tasks do not come back in step."""
        for tried in range(self.options.retries + 1):
            try:
                return attempt()
            except _Transient as failure:
                if tried == self.options.retries:
                    raise failure.error from None
                pause = random.uniform(0, min(0.25 * 2**tried, MAX_PAUSE_S))
                time.sleep(min(max(pause, failure.pause_s), MAX_PAUSE_S))
        raise AssertionError("unreachable")


def _scheme(uri: str) -> str:
    """'file' for plain paths; otherwise the scheme, if it is one that we read."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", uri)
    scheme = match[1].lower() if match else "file"
    if scheme not in ("file", "http", "https", *OBJECT_STORES):
        raise ImageError("unsupported_scheme", f"{uri[:200]}: {scheme} is not read")
    return scheme


def _canonical(uri: str) -> str:
    """An object's URI with one name per store: `s3a://b/k` is `s3://b/k`."""
    scheme, mark, rest = uri.rstrip("/").partition("://")
    return {"s3a": "s3", "gcs": "gs", "abfss": "abfs"}.get(scheme.lower(), scheme.lower()) + mark + rest


def _local_path(root: str) -> str:
    return "/" + root[5:].lstrip("/") if root.startswith("file:") else root


def _raise_for_status(uri: str, response: urllib3.BaseHTTPResponse) -> None:
    status = response.status
    if status == 200:
        return
    if status in (404, 410):
        raise ImageError("not_found", f"{uri}: HTTP {status}")
    error = ImageError("timeout" if status in (408, 504) else "unreadable", f"{uri}: HTTP {status}")
    if status in (408, 429) or status >= 500:
        after = response.headers.get("Retry-After", "")
        raise _Transient(error, pause_s=float(after) if after.isdigit() else 0.0)
    raise error


def _of_system(where: str, error: OSError | ValueError) -> ImageError:
    missing = isinstance(
        error, FileNotFoundError | NotADirectoryError | ValueError
    )  # ValueError: a zero byte in the path
    return ImageError("not_found" if missing else "unreadable", f"{where!r}: {_line(error)}")


def _line(error: BaseException) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error)).split())[:200]


class _PublicAddressOnly:
    """Looks at who answered before a byte is sent, so that no DNS answer leads into the private network."""

    def _new_conn(self):
        connection = super()._new_conn()
        address = ipaddress.ip_address(connection.getpeername()[0].partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        if not address.is_global or address.is_multicast:
            connection.close()
            raise ImageError(
                "host_not_allowed", f"{self.host} has the private address {address}; list it by its full name"
            )
        return connection


class _PublicHTTPConnection(_PublicAddressOnly, HTTPConnection):
    pass


class _PublicHTTPSConnection(_PublicAddressOnly, HTTPSConnection):
    pass


class _PublicHTTP(HTTPConnectionPool):
    ConnectionCls = _PublicHTTPConnection


class _PublicHTTPS(HTTPSConnectionPool):
    ConnectionCls = _PublicHTTPSConnection


def _pool_manager(http=HTTPConnectionPool, https=HTTPSConnectionPool) -> urllib3.PoolManager:
    manager = urllib3.PoolManager(num_pools=32, maxsize=32, block=False)
    manager.pool_classes_by_scheme = {"http": http, "https": https}
    return manager
