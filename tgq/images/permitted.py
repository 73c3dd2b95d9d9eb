"""Allowed image sources and limits, and the errors that all kinds of sources share."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tgq.images.decode import ImageError, one_line

OBJECT_STORES = ("hdfs", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")


@dataclass(frozen=True)
class FetchOptions:
    """The image sources that the operator allows, and limits.

    Attributes:
        allowed_hosts: web hosts, exact (`images.shop.com`) or by suffix (`*.shop.com`, which does not include `shop.com`).
            Empty: no web access.
        private_networks: networks (`10.0.0.0/8`) in which a host that is listed exactly may have its address. Other addresses that are
            not public are refused, unless the listed host is that address itself, or is `localhost`.
        allowed_roots: folders, and URIs of object stores (`s3://bucket/photos`). A local file must be in one of the folders
            after symlinks are resolved, an object under one of the URIs. Empty: neither local files nor object stores.
        timeout_s: seconds to connect, and between two reads. A whole response may take six times as long.
        retries: additional attempts after a timeout, a broken connection, HTTP 429 or 5xx.
        max_bytes: maximum size. A larger image is refused while it is being received.
        section: of the settings that these are from, for messages.
    """

    allowed_hosts: tuple[str, ...] = ()
    allowed_roots: tuple[str, ...] = ()
    timeout_s: float = 10.0
    retries: int = 3
    max_bytes: int = 20 * 1024 * 1024
    private_networks: tuple[str, ...] = ()
    section: str = "images"


class Transient(Exception):
    """An error that is worth a retry.

    Attributes:
        error: the error to raise after the last attempt.
        pause_s: the pause that the server requested.
        unconnected: the address to which no encrypted connection could be made, if that is the error.
    """

    def __init__(self, error: ImageError, pause_s: float = 0.0, unconnected: str | None = None):
        self.error, self.pause_s, self.unconnected = error, pause_s, unconnected
        super().__init__(str(error))


def too_large(options: FetchOptions, uri: str, size: int) -> ImageError:
    """The error for an image of at least `size` bytes."""
    return ImageError(
        "too_large", f"{uri}: {size:,} bytes or more, above the limit of {options.max_bytes:,}"
    )


def within_limit(options: FetchOptions, uri: str, data: bytes) -> bytes:
    """`data`, or ImageError 'too_large'."""
    if len(data) > options.max_bytes:
        raise too_large(options, uri, len(data))
    return data


def scheme_of(uri: str) -> str:
    """The URI's scheme in lower case, 'file' for a plain path; ImageError for a scheme that is not supported.

    An address without a scheme (`//host/path`, see `is_web_address`) is a web address: 'https'.
    """
    if uri.startswith("//") and is_web_address(uri):
        return "https"
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", uri)
    scheme = match[1].lower() if match else "file"
    if scheme not in ("file", "http", "https", *OBJECT_STORES):
        raise ImageError("unsupported_scheme", f"{uri[:200]}: the scheme {scheme} is not supported")
    return scheme


def is_web_address(uri: str) -> bool:
    """Whether `uri` is `http://..`, `https://..`, or `//host/path`: a web address that leaves the choice of the two to its reader."""
    return bool(re.match(r"(https?:)?//[^/\\]", uri, re.IGNORECASE))


def from_os_error(location: str, error: OSError | ValueError) -> ImageError:
    """The ImageError for an error of the operating system. A ValueError means a zero byte in the path."""
    missing = isinstance(error, FileNotFoundError | NotADirectoryError | ValueError)
    return ImageError("not_found" if missing else "unreadable", f"{location!r}: {one_line(error)}")

