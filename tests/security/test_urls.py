"""Addresses of pictures that lead where the operator did not allow: by another spelling, by a redirect, by what DNS answers."""

import tracemalloc
from urllib.parse import quote

import pytest

from tgq.errors import ConfigError
from tgq.images.decode import ImageError
from tgq.images.fetch import Fetcher
from tgq.images.permitted import FetchOptions
from tgq.images.web import WebServers
from tgq.settings.load import load_settings

HOST = "images.shop.example"


def refusal(act) -> str:
    with pytest.raises(ImageError) as caught:
        act()
    assert caught.value.detail and caught.value.detail.isprintable()
    return caught.value.reason


def options(*hosts, **more) -> FetchOptions:
    return FetchOptions(hosts, **{"timeout_s": 2.0, "retries": 0, **more})


# this machine and its neighbours by every spelling that a resolver or an URL parser may take
SPELLINGS = {
    "loopback": "127.0.0.1", "loopback-short": "127.1", "decimal": "2130706433", "hexadecimal": "0x7f000001", "hexadecimal-parts": "0x7f.0.0.1",
    "octal": "0177.0.0.1", "octal-whole": "017700000001", "zero": "0.0.0.0", "zero-short": "0", "ipv6-loopback": "[::1]", "ipv6-unspecified": "[::]",
    "ipv6-mapped": "[::ffff:127.0.0.1]", "ipv6-mapped-hexadecimal": "[::ffff:7f00:1]", "ipv6-compatible": "[::127.0.0.1]",
    "ipv6-nat64": "[64:ff9b::7f00:1]", "ipv6-6to4": "[2002:7f00:1::]", "ipv6-local": "[fd00::1]", "ipv6-link-local": "[fe80::1]",
    "cloud-metadata": "169.254.169.254", "cloud-metadata-ipv6": "[fd00:ec2::254]", "private-10": "10.0.0.1", "private-172": "172.16.0.1",
    "private-192": "192.168.1.1", "carrier-nat": "100.64.0.1", "multicast": "224.0.0.1", "broadcast": "255.255.255.255", "localhost": "localhost",
    "localhost-with-dot": "localhost.", "fullwidth-digits": "１２７.0.0.1", "circled-digits": "①②⑦.⓪.⓪.①",
}  # fmt: skip


@pytest.mark.parametrize("host", SPELLINGS.values(), ids=SPELLINGS)
def test_a_private_address_in_a_catalog(attacker, host):
    """The operator listed one shop, so no spelling of this machine is one of the allowed hosts."""
    assert refusal(lambda: Fetcher(options(HOST)).read(f"http://{host}:{attacker.port}/ok")) == (
        "host_not_allowed" if host.isascii() else "unreadable"  # such a host is no address at all without the package idna
    )
    assert attacker.connections == 0


# the server that redirects is 127.0.0.1 itself, and a Location header is ASCII
ELSEWHERE = {name: host for name, host in SPELLINGS.items() if name != "loopback" and host.isascii()}


@pytest.mark.parametrize("host", ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_redirect_to_a_private_address(attacker, host):
    start = f"http://127.0.0.1:{attacker.port}/to/{quote(f'http://{host}:{attacker.port}/ok', safe='')}"
    assert refusal(lambda: Fetcher(options("127.0.0.1")).read(start)) == "host_not_allowed"
    assert attacker.connections == 1 and len(attacker.asked) == 1


REDIRECTS = {
    "to-a-file": ("file:///etc/passwd", "unsupported_scheme"), "to-a-file-of-localhost": ("file://localhost/etc/passwd", "unsupported_scheme"),
    "to-a-file-in-capitals": ("FILE:///etc/passwd", "unsupported_scheme"), "to-an-object-store": ("s3://secrets/key", "unsupported_scheme"),
    "to-ftp": ("ftp://127.0.0.1/x", "unsupported_scheme"), "to-gopher": ("gopher://127.0.0.1:6379/_FLUSHALL", "unsupported_scheme"),
    "to-data": ("data:image/png;base64,AAAA", "unsupported_scheme"), "to-a-script": ("javascript:alert(1)", "unsupported_scheme"),
    "to-a-host-without-scheme": ("//10.0.0.1/x", "host_not_allowed"), "to-a-host-behind-an-at": ("http://127.0.0.1@10.0.0.1/x", "host_not_allowed"),
    "to-a-host-behind-a-backslash": ("http://10.0.0.1\\@127.0.0.1/x", "host_not_allowed"), "to-a-broken-host": ("http://[broken", "unreadable"),
}  # fmt: skip


@pytest.mark.parametrize(("location", "reason"), REDIRECTS.values(), ids=REDIRECTS)
def test_a_redirect_to_another_kind_of_place(attacker, location, reason):
    start = f"http://127.0.0.1:{attacker.port}/to/{quote(location, safe='')}"
    for act in (Fetcher(options("127.0.0.1")).read, Fetcher(options("127.0.0.1")).stat):
        assert refusal(lambda act=act: act(start)) == reason
    assert attacker.connections == 2


DNS = {
    "loopback": ["127.0.0.1"], "ipv6-loopback": ["::1"], "ipv6-mapped": ["::ffff:127.0.0.1"], "ipv6-nat64": ["64:ff9b::7f00:1"],
    "ipv6-6to4": ["2002:7f00:1::"], "ipv6-with-zone": ["fe80::1%lo"], "cloud-metadata": ["169.254.169.254"], "private": ["10.1.2.3"],
    "unspecified": ["0.0.0.0"], "public-and-private": ["93.184.216.34", "127.0.0.1"], "private-and-public": ["127.0.0.1", "93.184.216.34"],
}  # fmt: skip


@pytest.mark.parametrize("listed", [HOST, "*.shop.example"], ids=["exact", "suffix"])
@pytest.mark.parametrize("answer", DNS.values(), ids=DNS)
def test_dns_answers_with_a_private_address(attacker, listed, answer):
    """A listed name is no permission for what stands behind it: whoever runs its DNS would choose the target."""
    web = WebServers(options(listed), lambda host, port: answer)
    assert refusal(lambda: web.read(f"http://{HOST}:{attacker.port}/ok")) == "host_not_allowed"
    assert attacker.connections == 0, "not even the handshake of TCP"


def test_dns_rebinding_between_check_and_connection(attacker):
    """The address that was checked is the one that is connected to: the name is resolved once for each connection."""
    answers = iter([["127.0.0.1"], ["127.0.0.2"], ["10.0.0.1"]])
    asked = []

    def rebinding(host, port):
        asked.append(host)
        return next(answers)

    web = WebServers(options(HOST, private_networks=("127.0.0.1/32",)), rebinding)
    assert web.read(f"http://{HOST}:{attacker.port}/ok") == b"ok" and asked == [HOST]
    for _ in range(2):  # the second and the third answer
        assert refusal(lambda: web.read(f"http://{HOST}:{attacker.port}/ok")) == "host_not_allowed"
    assert attacker.connections == 1


def test_dns_rebinding_in_a_redirect_to_the_same_name(attacker):
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    web = WebServers(options(HOST, private_networks=("127.0.0.1/32",)), lambda host, port: next(answers))
    assert refusal(lambda: web.read(f"http://{HOST}:{attacker.port}/to/%2Fok")) == "host_not_allowed"
    assert attacker.connections == 1


def test_a_private_network_is_for_hosts_that_are_listed_by_their_full_name(attacker):
    inside = {"private_networks": ("127.0.0.0/8",)}
    assert WebServers(options(HOST, **inside), lambda host, port: ["127.0.0.1"]).read(f"http://{HOST}:{attacker.port}/ok") == b"ok"
    suffix = WebServers(options("*.shop.example", **inside), lambda host, port: ["127.0.0.1"])
    assert refusal(lambda: suffix.read(f"http://{HOST}:{attacker.port}/ok")) == "host_not_allowed"
    assert refusal(lambda: Fetcher(options(HOST, **inside)).read(f"http://127.0.0.1:{attacker.port}/ok")) == "host_not_allowed"


@pytest.mark.parametrize("spelled", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1"])
def test_a_number_that_is_listed_as_a_name_is_no_permission_for_this_machine(attacker, spelled):
    assert refusal(lambda: Fetcher(options(spelled)).read(f"http://{spelled}:{attacker.port}/ok")) == "host_not_allowed"
    assert attacker.connections == 0


HEADERS = {"newline": "/ok\r\nX-Injected: 1", "newline-and-request": "/ok HTTP/1.1\r\n\r\nGET /second", "tab": "/ok\tHTTP/1.0", "zero": "/ok\0"}


@pytest.mark.parametrize("path", HEADERS.values(), ids=HEADERS)
def test_an_address_cannot_add_a_header_or_a_request(attacker, path):
    try:
        Fetcher(options("127.0.0.1")).read(f"http://127.0.0.1:{attacker.port}{path}")
    except ImageError as refused:
        assert refused.reason == "unreadable" and refused.detail.isprintable()
    assert len(attacker.asked) <= 1 and all(len(line.split()) == 3 for line in attacker.asked)


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "gzip, gzip, gzip", ", ".join(["gzip"] * 6)], ids=["once", "twice", "thrice", "six-times"])
def test_a_packed_response_is_unpacked_up_to_the_limit(attacker, encoding):
    tracemalloc.start()
    try:
        reason = refusal(lambda: Fetcher(options("127.0.0.1", max_bytes=2**20)).read(f"http://127.0.0.1:{attacker.port}/packed/{encoding}"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reason == ("unreadable" if encoding.count(",") == 5 else "too_large")
    assert peak < 2**28  # the server of this test holds its 64 MiB in the same process


@pytest.mark.parametrize("network", ["10.0.0.0/99", "intern", "10.0.0.0-10.0.0.9"])
def test_a_network_that_is_none_is_named(network):
    with pytest.raises(ConfigError, match="images.private_networks") as caught:
        load_settings((), [f"images.private_networks=['{network}']"], {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("listed", [HOST, "*.shop.example"])
def test_a_refused_address_names_what_to_set(listed):
    with pytest.raises(ImageError, match=r"list the host by its full name, and the address's network in images\.private_networks"):
        WebServers(options(listed), lambda host, port: ["10.0.0.1"]).read(f"http://{HOST}/1.jpg")
