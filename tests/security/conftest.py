"""What the tests of unfriendly input share: a web server on this machine that answers as an attacker's would."""

import gzip
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

COLLECTED = pytest.StashKey[Counter]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Keep how many cases each file has, before any are left out by -k or -m: the documentation says how many there are."""
    config.stash[COLLECTED] = Counter(item.path.name for item in items if item.path.parent.name == "security")


@pytest.fixture
def collected(request) -> Counter:
    """Cases by file, of the files that were collected whole; empty if single tests were named."""
    return Counter() if any("::" in argument for argument in request.config.args) else request.config.stash[COLLECTED]


class Attacker(BaseHTTPRequestHandler):
    """`/to/<quoted address>` redirects there, `/packed/<encoding>` answers with 64 MiB of zeros packed once for each comma, `/ok` answers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.requestline)
        headers, body = {}, b"ok"
        if self.path.startswith("/to/"):
            status, headers, body = 302, {"Location": unquote(self.path[4:])}, b""
        elif self.path.startswith("/packed/"):
            encoding = unquote(self.path[8:])
            status, headers, body = 200, {"Content-Encoding": encoding}, b"\0" * 2**26
            for _ in encoding.split(","):
                body = gzip.compress(body, 6)
        else:
            status = 200
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body)), "Connection": "close"}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = True

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Attacker)
        self.asked: list[str] = []  # request lines
        self.connections = 0
        self.port = self.server_address[1]

    def get_request(self):
        accepted = super().get_request()
        self.connections += 1
        return accepted

    def handle_error(self, request, client_address):
        pass  # clients that hang up are what these tests are about


@pytest.fixture
def attacker():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
