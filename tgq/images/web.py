"""Images on web servers that the operator allowed, with checks of host, address and redirects."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import urljoin

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import Timeout, Url, parse_url

from tgq.images.decode import ImageError, one_line
from tgq.images.permitted import FetchOptions, Transient, scheme_of, too_large

MAX_REDIRECTS = 5
CHUNK = 64 * 1024
IMAGE_HEADERS = {"User-Agent": "tgq", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
# A server could send bytes slowly, each within the read timeout. A whole response may take this many times `timeout_s`.
RESPONSE_TIMEOUTS = 6

T = TypeVar("T")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Iterable[str]]  # the addresses of a host, as text; raises OSError
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # the last 32 bits are an IPv4 address, as in ::a.b.c.d
COMPATIBLE = ipaddress.ip_network("::/96")


def addresses_of(host: str, port: int) -> list[str]:
    """The addresses of a host as the system resolves it.

    Raises:
        OSError: it has none.
    """
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class WebServers:
    """Reads from allowed hosts. It never uses a proxy, because then the address of the server could not be checked.

    Args:
        resolve: gives the addresses of a host. What it gives is checked, and the connection is made to that address and no other, so
            a name that has another address a moment later gains nothing.
    """

    def __init__(self, options: FetchOptions, resolve: Resolve = addresses_of):
        self.options, self._resolve = options, resolve
        self._listed = tuple(entry.lower().rstrip(".") for entry in options.allowed_hosts)
        self._private = tuple(ipaddress.ip_network(network, strict=False) for network in options.private_networks)
        self._lock = threading.Lock()
        self._unencrypted: set[str] = set()  # "host:port" of `//host:port/path` addresses that take no encrypted connection
        self._pools: tuple[int, urllib3.PoolManager] | None = None  # of this process id

    def read(self, uri: str) -> bytes:
        """The response's body; raises ImageError or Transient."""
        return self._with_scheme(uri, self._read)

    def stat(self, uri: str) -> str:
        """ETag, Last-Modified and Content-Length as a fingerprint, '' without the first two; raises ImageError or Transient."""
        return self._with_scheme(uri, self._stat)

    def post(self, uri: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        """The answer to a POST of `body`; raises ImageError or Transient. No redirect is followed, so nobody else gets the headers."""
        with self._request("POST", uri, {"User-Agent": "tgq", "Accept-Encoding": "identity", **headers}, body) as response:
            raise_for_status(uri, response)
            return self._body(uri, response)

    def _with_scheme(self, uri: str, method: Callable[[str], T]) -> T:
        """Call `method` with `uri`; with https for `//host/path`, and with http if no encrypted connection to the host can be made.

        An answer of the encrypted server stands, whatever it is: only a failed connection leads to http. The host is checked in
        the same way for both.
        """
        if not uri.startswith("//"):
            return method(uri)
        host = uri[2:].partition("/")[0]
        if host not in self._unencrypted:
            try:
                return method(f"https:{uri}")
            except Transient as failure:
                if failure.unconnected != f"https:{uri}":
                    raise
        self._unencrypted.add(host)
        try:
            return method(f"http:{uri}")
        except Transient:
            self._unencrypted.discard(host)  # the host may be down: try https again
            raise

    def _read(self, uri: str) -> bytes:
        with self._response("GET", uri) as response:
            return self._body(uri, response)

    def _body(self, uri: str, response: urllib3.BaseHTTPResponse) -> bytes:
        """The body of a response, within the limits of size and time."""
        declared = response.headers.get("Content-Length", "")
        if declared.isdigit() and int(declared) > self.options.max_bytes:
            raise too_large(self.options, uri, int(declared))
        deadline = time.monotonic() + RESPONSE_TIMEOUTS * self.options.timeout_s
        data = bytearray()
        while chunk := response.read1(CHUNK, decode_content=True):  # not `stream`, which waits for a full chunk
            data += chunk
            if len(data) > self.options.max_bytes:
                raise too_large(self.options, uri, len(data))
            if time.monotonic() > deadline:
                raise Transient(
                    ImageError("timeout", f"{uri} did not finish within {RESPONSE_TIMEOUTS * self.options.timeout_s:g} s")
                )
        return bytes(data)

    def _stat(self, uri: str) -> str:
        with self._response("HEAD", uri) as response:
            headers = response.headers
        if not (headers.get("ETag") or headers.get("Last-Modified")):
            return ""
        fields = (("etag", "ETag"), ("modified", "Last-Modified"), ("size", "Content-Length"))
        return " ".join(f"{name}={headers[header]}" for name, header in fields if headers.get(header))

    @contextmanager
    def _response(self, method: str, uri: str):
        """The response with status 200 after allowed redirects, its body unread. It is closed on exit."""
        at = uri
        for _ in range(MAX_REDIRECTS + 1):
            with self._request(method, at, IMAGE_HEADERS) as response:
                if response.status in (301, 302, 303, 307, 308) and response.headers.get("Location"):
                    try:
                        at = urljoin(at, response.headers["Location"])
                    except ValueError as error:
                        raise ImageError(
                            "unreadable", f"{uri} redirects to an invalid address: {one_line(error)}"
                        ) from None
                    if scheme_of(at) not in ("http", "https"):
                        raise ImageError("unsupported_scheme", f"{uri} redirects to {at}")
                    continue
                if method == "HEAD" and response.status in (405, 501):
                    method = "GET"  # the server does not support HEAD; GET works as well, and its body is not read
                    continue
                raise_for_status(uri, response)
                yield response
                return
        raise ImageError("unreadable", f"{uri} redirects more than {MAX_REDIRECTS} times")

    @contextmanager
    def _request(self, method: str, uri: str, headers: Mapping[str, str], body: bytes | None = None):
        """One response without redirects or retries, after a check of the host. It is closed on exit."""
        url, response = self.need_listed(uri), None
        try:
            pool = self._pool().connection_from_host(url.host, url.port, url.scheme)
            response = pool.request(
                method,
                url.request_uri,
                body=body,
                headers=dict(headers),
                timeout=Timeout(connect=self.options.timeout_s, read=self.options.timeout_s),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            if response.length_remaining == 0:
                response.read()  # completes the response, so that its connection can be reused
            yield response
        except urllib3.exceptions.LocationParseError as error:
            raise ImageError("unreadable", f"{uri}: {one_line(error)}") from None
        except _Unconnected as failure:
            raise Transient(self._from_connection_error(uri, failure.error), unconnected=uri) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Transient(self._from_connection_error(uri, error)) from None
        finally:
            if response is not None:
                response.close()  # a connection whose response was read completely is already back in the pool

    def _from_connection_error(self, uri: str, error: Exception) -> ImageError:
        """The ImageError for an error of urllib3 or of the socket."""
        refused = isinstance(error, urllib3.exceptions.NewConnectionError)  # a subclass of urllib3's timeout
        if isinstance(error, urllib3.exceptions.TimeoutError | TimeoutError) and not refused:
            return ImageError("timeout", f"{uri} did not answer in {self.options.timeout_s:g} s")
        cut = isinstance(error.args[-1] if error.args else error, urllib3.exceptions.IncompleteRead)
        return ImageError("truncated" if cut else "unreadable", f"{uri}: {one_line(error)}")

    def need_listed(self, uri: str) -> Url:
        """The parsed address, after a check that its host is listed, exactly or by suffix. Nothing is resolved or asked.

        Raises:
            ImageError: 'host_not_allowed', or 'unreadable' for what is no address.
        """
        try:
            # The same parse gives the host that is checked and the host that is connected to. Two parsers could disagree.
            url = parse_url(uri)
        except urllib3.exceptions.HTTPError as error:
            raise ImageError("unreadable", f"{uri}: {one_line(error)}") from None
        host = _bare(url.host)
        if not host or not (host in self._listed or any(entry.startswith("*.") and host.endswith(entry[1:]) for entry in self._listed)):
            raise ImageError("host_not_allowed", f"{host or uri} is not one of the allowed hosts ({', '.join(self._listed) or 'none'})")
        return url

    def _permitted_addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a listed host, as text. If one of them is not permitted, none is.

        A public address is permitted for every listed host. Another one is if it is itself the listed host, if it is in one of the
        operator's private networks and the host is listed by its full name, or if it is this machine's and `localhost` is listed.

        Raises:
            ImageError: 'host_not_allowed'.
            OSError: the host has no address.
        """
        name, found = _bare(host), list(dict.fromkeys(self._resolve(host.strip("[]"), port)))
        for text in found:
            for address in _embedded(ipaddress.ip_address(text.partition("%")[0])):
                named = name in self._listed
                itself = named and name == str(address)
                internal = named and any(address in network for network in self._private)
                if not (_is_public(address) or itself or internal or (named and name == "localhost" and address.is_loopback)):
                    raise ImageError(
                        "host_not_allowed",
                        f"{name} has the private address {address}: list the host by its full name, and the address's network in "
                        f"{self.options.section}.private_networks",
                    )
        if not found:
            raise OSError("the host has no address")
        return found

    def _pool(self) -> urllib3.PoolManager:
        """This process's connection pools."""
        with self._lock:
            if self._pools is None or self._pools[0] != os.getpid():  # sockets must not be shared across a fork
                self._pools = os.getpid(), _pool_manager(self._permitted_addresses)
            return self._pools[1]


def _bare(host: str | None) -> str:
    """A host for comparison: lower case, without the brackets of IPv6 and the dot of the root."""
    return (host or "").strip("[]").rstrip(".").lower()


def _embedded(address: Address) -> list[Address]:
    """An address, and the IPv4 addresses inside of it to which a gateway would pass the connection on."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    inner: list[Address | None] = [address.sixtofour, *(address.teredo or ())]
    if address in NAT64 or (address in COMPATIBLE and int(address) > 1):
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *(one for one in inner if one is not None)]


def _is_public(address: Address) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved and not getattr(address, "is_site_local", False)


def raise_for_status(uri: str, response: urllib3.BaseHTTPResponse) -> None:
    """Raise Transient for a status that is worth a retry, ImageError for any other status than 200."""
    status = response.status
    if status == 200:
        return
    if status in (404, 410):
        raise ImageError("not_found", f"{uri}: HTTP {status}")
    error = ImageError("timeout" if status in (408, 504) else "unreadable", f"{uri}: HTTP {status}")
    if status in (408, 429) or status >= 500:
        after = response.headers.get("Retry-After", "")
        raise Transient(error, pause_s=float(after) if after.isdigit() else 0.0)
    raise error


class _Unconnected(Exception):
    """No encrypted connection: refused, not answered, or TLS failed. Nothing was asked yet. It holds the error."""

    def __init__(self, error: Exception):
        self.error = error
        super().__init__(str(error))


class _HTTPSConnection(HTTPSConnection):
    """Tells a connection that was not made from one that broke."""

    def connect(self) -> None:
        try:
            super().connect()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _Unconnected(error) from None


class _PermittedAddress:
    """A connection to an address that was checked: not even the handshake of TCP reaches another one."""

    permitted: Callable[[str, int], list[str]]  # `WebServers._permitted_addresses`

    def _new_conn(self):
        name, failure = self._dns_host, None
        try:
            addresses = self.permitted(self.host, self.port)
        except OSError as error:
            raise urllib3.exceptions.NameResolutionError(self.host, self, error) from error
        try:
            for self._dns_host in addresses:  # in digits, so nothing is resolved anymore
                try:
                    return super()._new_conn()
                except urllib3.exceptions.HTTPError as error:
                    failure = error
            raise failure
        finally:
            self._dns_host = name


def _pool_manager(permitted: Callable[[str, int], list[str]]) -> urllib3.PoolManager:
    """Pools whose connections go to the addresses that `permitted` gives for a host and port."""
    check = {"permitted": staticmethod(permitted)}
    http = type("_HTTP", (HTTPConnectionPool,), {"ConnectionCls": type("HTTPConnection", (_PermittedAddress, HTTPConnection), check)})
    https = type("_HTTPS", (HTTPSConnectionPool,), {"ConnectionCls": type("HTTPSConnection", (_PermittedAddress, _HTTPSConnection), check)})
    manager = urllib3.PoolManager(num_pools=32, maxsize=32, block=False)
    manager.pool_classes_by_scheme = {"http": http, "https": https}
    return manager
