"""Images in local files, in the folders that the operator allowed."""

from __future__ import annotations

import os
import stat as stat_bits
from urllib.parse import unquote

from tgq.images.decode import ImageError
from tgq.images.permitted import FetchOptions, from_os_error, too_large, within_limit


class LocalFiles:
    """Reads regular files whose path is in one of the `roots` after symlinks are resolved."""

    def __init__(self, options: FetchOptions, roots: tuple[str, ...]):
        self.options = options
        self._named = tuple(os.path.normpath(local_path(root)) for root in roots)
        self._roots = tuple(os.path.realpath(root) for root in self._named)

    def stat(self, uri: str) -> str:
        """Size in bytes and mtime in ns, as a fingerprint; raises ImageError."""
        found = self._local(uri)[1]
        return f"size={found.st_size} mtime_ns={found.st_mtime_ns}"

    def read(self, uri: str) -> bytes:
        """The file's bytes; raises ImageError."""
        path, found = self._local(uri)
        if found.st_size > self.options.max_bytes:
            raise too_large(self.options, uri, found.st_size)
        try:
            with open(path, "rb") as file:
                data = file.read(self.options.max_bytes + 1)
        except OSError as error:
            raise from_os_error(path, error) from None
        return within_limit(self.options, uri, data)

    def _local(self, uri: str) -> tuple[str, os.stat_result]:
        """The resolved path and its stat result, if the path is allowed and a regular file."""
        path = uri
        if uri[:5].lower() == "file:":
            rest = uri[5:]
            host, slash, after = rest[2:].partition("/") if rest.startswith("//") else ("", "", rest)
            if host not in ("", "localhost"):
                raise ImageError("unsupported_scheme", f"{uri} names a file on another machine ({host})")
            path = unquote(slash + after)
        if not os.path.isabs(path):
            raise ImageError("path_outside_catalog", f"{path} is a relative path; only absolute paths can be read")
        try:
            real = os.path.realpath(path)
            # Before the file is accessed, so that the error does not reveal whether a file outside of the roots exists.
            if not any(os.path.commonpath((root, real)) == root for root in self._roots):
                raise ImageError("path_outside_catalog", self._outside(path, real))
            found = os.stat(real)
        except (OSError, ValueError) as error:
            raise from_os_error(path, error) from None
        if not stat_bits.S_ISREG(found.st_mode):  # reading a pipe or a device could never end
            raise ImageError("unreadable", f"{path} is not a regular file")
        return real, found

    def _outside(self, path: str, real: str) -> str:
        """The detail for a path outside of the roots: a link that lies inside of them is named with what it leads to."""
        plain = os.path.normpath(path)
        found = f"{path} is not in {' or '.join(self._roots) or 'any allowed folder'}"
        if any(os.path.commonpath((root, plain)) == root for root in self._named if os.path.isabs(root)):
            found = f"{path} leads through a link to {real}, outside of the allowed folders"
        return f"{found}: name its folder in images.allowed_roots if it may be read"


def local_path(root: str) -> str:
    """A `file:` URI as a path; a path is returned unchanged."""
    return "/" + root[5:].lstrip("/") if root.startswith("file:") else root
