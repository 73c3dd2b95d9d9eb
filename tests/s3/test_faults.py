"""The proxy that injects faults, before a server in memory: what clients see, and what the server has done by then."""

import http.client
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from tests.s3.faults import AFTER, BEFORE, KINDS, Faults, Request, faulty

GET = Request("GET", "/bucket/key", {})


@contextmanager
def server():
    """A server that keeps what is put there, and says so. Gives its address and its objects."""
    objects = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self):
            objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(b"kept " + objects[self.path])

        def do_GET(self):
            self.answer(objects.get(self.path, b""))

        def answer(self, data):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield running.server_address, objects
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def put(address, path, data, **headers):
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    try:
        connection.request("PUT", path, data, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (ConnectionError, http.client.IncompleteRead) as error:
        return type(error).__name__, b""
    finally:
        connection.close()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_fault(kind):
    faults = Faults(rate=0, also=lambda request: kind)
    with server() as (place, objects), faulty(place, faults) as address:
        status, answer = put(address, "/bucket/key", b"value")
        expected = {"error": 500, "lost_error": 500, "slow_down": 503, "delay": 200}
        if kind in expected:
            assert status == expected[kind] and (b"kept value" in answer) == (status == 200)
        else:
            assert status in ("ConnectionResetError", "RemoteDisconnected", "IncompleteRead", "BadStatusLine")
        assert bool(objects) == (kind in AFTER or kind == "delay")
    assert faults.requests == 1 and faults.injected == {kind: 1} and set(BEFORE).isdisjoint(AFTER)


def test_without_faults_nothing_changes():
    with server() as (place, objects), faulty(place, Faults(rate=0)) as address:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
        for n in range(3):  # over one connection
            connection.request("PUT", f"/{n}", b"x" * n)
            assert connection.getresponse().read() == b"kept " + b"x" * n
        connection.request("PUT", "/chunks", iter([b"in ", b"parts"]), {"Content-Length": "8"})
        assert connection.getresponse().read() == b"kept in parts"
        connection.request("GET", "/chunks")
        assert connection.getresponse().read() == b"in parts"
        connection.close()
    assert set(objects) == {"/0", "/1", "/2", "/chunks"}


def test_a_client_that_waits_for_the_server_is_told_to_go_on():
    with server() as (place, objects), faulty(place, Faults(rate=0)) as address:
        assert put(address, "/key", b"value", Expect="100-continue") == (200, b"kept value")


def test_the_share_and_the_seed():
    drawn = [faults.next(GET) for faults in (Faults(0.05, seed=3),) for _ in range(4000)]
    assert 0.04 < sum(kind is not None for kind in drawn) / len(drawn) < 0.06
    assert {kind for kind in drawn if kind} == set(KINDS)
    again = Faults(0.05, seed=3)
    assert [again.next(GET) for _ in drawn] == drawn
    assert sum(again.injected.values()) == len([kind for kind in drawn if kind])
