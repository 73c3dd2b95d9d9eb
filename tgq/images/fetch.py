"""Where a picture's bytes come from: local files, object stores, web servers. One door, one set of limits.

A catalog names its pictures, and a catalog comes from outside. So a local path must lie under a root that the
operator named, a web host must be on the operator's list, and neither a symlink, a redirect nor a DNS answer
leads around that.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from tgq.images.local_files import LocalFiles
from tgq.images.object_stores import ObjectStores
from tgq.images.permitted import OBJECT_STORES, FetchOptions, Transient, scheme_of
from tgq.images.web import WebServers

MAX_PAUSE_S = 20.0

T = TypeVar("T")


class Fetcher:
    """Reads URIs under `options`. Thread-safe, picklable: connections are opened on first use, in each process.

    Local paths are absolute, or `file://`: the caller resolves relative ones against the catalog's folder.
    """

    def __init__(self, options: FetchOptions):
        self.options = options
        stores = tuple(root for root in options.allowed_roots if "://" in root and not root.startswith("file:"))
        self._files = LocalFiles(options, tuple(root for root in options.allowed_roots if root not in stores))
        self._objects, self._web = ObjectStores(options, stores), WebServers(options)

    def __getstate__(self) -> FetchOptions:
        return self.options

    def __setstate__(self, options: FetchOptions) -> None:
        Fetcher.__init__(self, options)

    def read(self, uri: str) -> bytes:
        """The bytes at `uri`.

        Raises:
            ImageError: 'too_large', 'unsupported_scheme', 'path_outside_catalog', 'host_not_allowed',
                'not_found', 'timeout', 'truncated' (the connection ended early), or 'unreadable' with what
                the server or system said.
        """
        return self._ask(uri, lambda source: source.read(uri))

    def stat(self, uri: str) -> str:
        """A cheap fingerprint, without reading the picture: it changes when the bytes do.

        Empty when the server offers nothing to tell versions apart by; such a picture has to be read to know.

        Local: size and mtime in ns. Object store: what the store lists about the object (size, ETag, mtime,
            generation).
        Web: ETag, Last-Modified and length of a HEAD; a server that gives neither of the first two yields ''.

        Raises:
            ImageError: as `read`.
        """
        return self._ask(uri, lambda source: source.stat(uri))

    def _ask(self, uri: str, question: Callable[[LocalFiles | ObjectStores | WebServers], T]) -> T:
        """One kind of source, asked again after what may pass; a local file answers the first time or never."""
        scheme = scheme_of(uri)
        if scheme == "file":
            return question(self._files)
        source = self._objects if scheme in OBJECT_STORES else self._web
        return self._again(lambda: question(source))

    def _again(self, attempt: Callable[[], T]) -> T:
        """Exponential backoff with full jitter, so that a thousand tasks do not come back in step."""
        for tried in range(self.options.retries + 1):
            try:
                return attempt()
            except Transient as failure:
                if tried == self.options.retries:
                    raise failure.error from None
                pause = random.uniform(0, min(0.25 * 2**tried, MAX_PAUSE_S))
                time.sleep(min(max(pause, failure.pause_s), MAX_PAUSE_S))
        raise AssertionError("unreachable")
