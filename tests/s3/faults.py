"""A proxy between an S3 client and its server that answers some requests wrongly, late or not at all.

A client that repeats a request cannot know whether the first one was performed. So faults come before a request is forwarded, and after it was
performed: then its answer is lost, or replaced by an error.
"""

from __future__ import annotations

import random
import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

BEFORE = ("error", "slow_down", "delay", "reset")  # the server never sees the request, or sees it late
AFTER = ("lost_error", "lost", "cut")  # the server has performed it
KINDS = BEFORE + AFTER
DELAY_S = 0.5
WAITS_S = 60.0  # for the server's answer
ERRORS = {
    "error": (b"500 Internal Server Error", b"InternalError", b"We encountered an internal error. Please try again."),
    "slow_down": (b"503 Slow Down", b"SlowDown", b"Please reduce your request rate."),
}


@dataclass(frozen=True)
class Request:
    """One request: its line in parts, and its headers by their names in lower case."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def is_conditional(self) -> bool:
        """Whether it writes only if there is no such object."""
        return self.method == "PUT" and "if-none-match" in self.headers


class Faults:
    """What goes wrong: each request with the probability `rate`, in a way drawn from KINDS with a seed.

    The n-th request that arrives gets the n-th draw. Which request that is depends on the threads of the clients.

    Attributes:
        requests: how many arrived.
        conditional: how many of these write only if there is no such object.
        injected: how many faults of each kind were injected.
        also: called with each request; names a further kind, or None.
    """

    def __init__(self, rate: float = 0.05, seed: int = 0, also: Callable[[Request], str | None] | None = None):
        self.rate, self.also, self._draws, self._lock = rate, also, random.Random(seed), threading.Lock()
        self.requests, self.conditional, self.injected = 0, 0, Counter[str]()

    def next(self, request: Request) -> str | None:
        """The fault of a request that has arrived; None: it goes through."""
        with self._lock:
            self.requests += 1
            self.conditional += request.is_conditional
            hit, kind = self._draws.random() < self.rate, self._draws.choice(KINDS)
            chosen = (self.also(request) if self.also else None) or (kind if hit else None)
            if chosen:
                self.injected[chosen] += 1
            return chosen


class Broken(Exception):
    """The connection is to be reset."""


class _Stream:
    """A socket that is read by lines and by lengths."""

    def __init__(self, connection: socket.socket):
        self.socket, self._file = connection, connection.makefile("rb")

    def close(self) -> None:
        """Close the socket at once; its file would keep it open."""
        self._file.close()
        self.socket.close()

    def head(self) -> bytes:
        """A request's or answer's first line and headers, with the empty line behind them; empty at the end of the connection."""
        lines = []
        while line := self._file.readline():
            lines.append(line)
            if line in (b"\r\n", b"\n"):
                return b"".join(lines)
        return b""

    def body(self, headers: dict[str, str], rest: bool) -> bytes:
        """A body as its headers declare it, still in chunks if it is sent in chunks. `rest`: without a length it goes up to the end."""
        if "chunked" in headers.get("transfer-encoding", "").lower():
            parts = []
            while True:
                line = self._file.readline()
                size = int(line.split(b";")[0], 16)
                parts += [line, self._file.read(size) if size else b"", self._file.readline()]
                if not size:
                    return b"".join(parts)
        if "content-length" in headers:
            wanted = int(headers["content-length"])
            found = self._file.read(wanted)
            if len(found) < wanted:
                raise ConnectionError("the body is incomplete")
            return found
        return self._file.read() if rest else b""


def _headers(head: bytes) -> dict[str, str]:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:] if line)
    return {name.strip().lower().decode("latin-1"): value.strip().decode("latin-1") for name, _, value in lines}


def _error(kind: str, method: str) -> bytes:
    status, code, said = ERRORS[kind]
    body = b"" if method == "HEAD" else b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>%s</Code><Message>%s</Message></Error>' % (code, said)
    return b"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


class _Client(socketserver.BaseRequestHandler):
    """The requests of one connection, each forwarded over one connection to the server."""

    request: socket.socket
    server: _Proxy

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.server.connect() as upstream:
            client, store = _Stream(self.request), _Stream(upstream)
            try:
                while head := client.head():
                    if not self._forward(head, client, store):
                        return
            except Broken:  # an RST in place of an orderly end
                self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
            except (OSError, ValueError):
                return  # one of both has gone away

    def _forward(self, head: bytes, client: _Stream, store: _Stream) -> bool:
        """Serve one request. Returns whether the connection may serve another one."""
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        headers = _headers(head)
        if headers.get("expect", "").lower() == "100-continue":
            self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = client.body(headers, rest=False)
        fault = self.server.faults.next(Request(method, target, headers))
        if fault == "reset":
            raise Broken
        if fault in ERRORS:
            self.request.sendall(_error(fault, method))
            return True
        if fault == "delay":
            time.sleep(DELAY_S)
        store.socket.sendall(head + body)
        answer, data = self._answer(method, store)
        if fault == "lost":
            raise Broken
        if fault == "lost_error":
            self.request.sendall(_error("error", method))
            return True
        if fault == "cut":
            self.request.sendall((answer + data)[: (len(answer) + len(data)) // 2])
            raise Broken
        self.request.sendall(answer + data)
        return _headers(answer).get("connection", "").lower() != "close"

    def _answer(self, method: str, store: _Stream) -> tuple[bytes, bytes]:
        while True:
            head = store.head()
            if not head:
                raise ConnectionError("the server closed the connection")
            status = int(head.split(b" ", 2)[1])
            if status >= 200:
                break  # before it the server may say that it goes on
        empty = method == "HEAD" or status in (204, 304)
        return head, b"" if empty else store.body(_headers(head), rest=True)


class _Proxy(socketserver.ThreadingTCPServer):
    daemon_threads, allow_reuse_address, request_queue_size = True, True, 128
    block_on_close = False

    def __init__(self, server: tuple[str, int], faults: Faults):
        super().__init__(("127.0.0.1", 0), _Client)
        self._server, self.faults = server, faults

    def connect(self) -> socket.socket:
        connection = socket.create_connection(self._server, timeout=WAITS_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


@contextmanager
def faulty(server: tuple[str, int], faults: Faults) -> Iterator[str]:
    """Serve a proxy for the server at (host, port) on loopback until the block ends. Gives the proxy's address."""
    proxy = _Proxy(server, faults)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_address[1]}"
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
