"""Image fetching: bytes of an image from local files, object stores or web servers, with one set of limits.

The URIs come from a catalog, which is untrusted input. A local path must therefore be in a folder that the operator allowed, and
a web host must be on the operator's list. Symlinks, redirects and DNS answers cannot bypass these checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tgq.images.local_files import LocalFiles
from tgq.images.object_stores import ObjectStores
from tgq.images.permitted import OBJECT_STORES, FetchOptions, scheme_of
from tgq.images.retries import with_retries
from tgq.images.web import WebServers

T = TypeVar("T")


class Fetcher:
    """Reads URIs within the limits of `options`. Thread-safe and picklable: each process opens its connections on first use.

    Local paths must be absolute or `file://` URIs. The caller resolves relative paths against the catalog's folder.
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
                'not_found', 'timeout', 'truncated' (the connection ended early), or 'unreadable' with the
                message of the server or the system.
        """
        return self._call(uri, lambda source: source.read(uri))

    def stat(self, uri: str) -> str:
        """A fingerprint that changes when the image's bytes change, obtained without reading them.

        It is empty if the server provides no version information. Such an image has to be read to detect a change.

        Local file: size and mtime in ns. Object store: the store's metadata of the object (size, ETag, mtime, generation).
        Web: ETag, Last-Modified and Content-Length of a HEAD request; empty without ETag and Last-Modified.

        Raises:
            ImageError: as `read`.
        """
        return self._call(uri, lambda source: source.stat(uri))

    def _call(self, uri: str, method: Callable[[LocalFiles | ObjectStores | WebServers], T]) -> T:
        """Call `method` with the source of the URI's scheme. Calls to remote sources are retried, calls to local files are not."""
        scheme = scheme_of(uri)
        if scheme == "file":
            return method(self._files)
        source = self._objects if scheme in OBJECT_STORES else self._web
        return with_retries(lambda: method(source), self.options.retries)
