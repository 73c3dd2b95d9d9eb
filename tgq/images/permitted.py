"""What an operator permits of picture sources, and what every kind of source refuses alike."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tgq.images.decode import ImageError

OBJECT_STORES = ("hdfs", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")


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


class Transient(Exception):
    """Worth another attempt: holds the error to raise after the last, and the pause the server asked for."""

    def __init__(self, error: ImageError, pause_s: float = 0.0):
        self.error, self.pause_s = error, pause_s
        super().__init__(str(error))


def too_large(options: FetchOptions, uri: str, size: int) -> ImageError:
    return ImageError(
        "too_large", f"{uri}: {size:,} bytes or more, above the limit of {options.max_bytes:,}"
    )


def within_limit(options: FetchOptions, uri: str, data: bytes) -> bytes:
    if len(data) > options.max_bytes:
        raise too_large(options, uri, len(data))
    return data


def scheme_of(uri: str) -> str:
    """'file' for plain paths; otherwise the scheme, if it is one that we read."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", uri)
    scheme = match[1].lower() if match else "file"
    if scheme not in ("file", "http", "https", *OBJECT_STORES):
        raise ImageError("unsupported_scheme", f"{uri[:200]}: {scheme} is not read")
    return scheme


def of_system(where: str, error: OSError | ValueError) -> ImageError:
    missing = isinstance(
        error, FileNotFoundError | NotADirectoryError | ValueError
    )  # ValueError: a zero byte in the path
    return ImageError("not_found" if missing else "unreadable", f"{where!r}: {one_line(error)}")


def one_line(error: BaseException) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error)).split())[:200]
