"""Pictures in object stores, under the URIs that the operator named."""

from __future__ import annotations

from contextlib import contextmanager

import fsspec

from tgq.images.decode import ImageError
from tgq.images.permitted import FetchOptions, Transient, of_system, one_line, within_limit


class ObjectStores:
    """Reads objects that lie under `roots`, through fsspec."""

    def __init__(self, options: FetchOptions, roots: tuple[str, ...]):
        self.options = options
        self._stores = tuple(canonical(root) for root in roots)

    def read(self, uri: str) -> bytes:
        with self._object(uri) as (fs, path):
            return within_limit(self.options, uri, fs.cat_file(path, start=0, end=self.options.max_bytes + 1))

    def stat(self, uri: str) -> str:
        with self._object(uri) as (fs, path):
            return f"ukey={fs.ukey(path)}"

    @contextmanager
    def _object(self, uri: str):
        """The file system and the path in it; what its library raises gets a name. Its own timeouts hold."""
        place = canonical(uri)
        if ".." in place.split("/") or not any(place.startswith(f"{root}/") for root in self._stores):
            raise ImageError(
                "path_outside_catalog", f"{uri} does not lie under {' or '.join(self._stores) or 'any root'}"
            )
        if "::" in uri:
            raise ImageError("unsupported_scheme", f"{uri} is a chain of file systems")
        try:
            yield fsspec.core.url_to_fs(uri)
        except (ImageError, Transient):
            raise
        except ImportError as error:
            raise ImageError(
                "unsupported_scheme", f"{uri} needs a package that is not installed: {error}"
            ) from None
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise of_system(uri, error) from None
        except TimeoutError as error:
            raise Transient(ImageError("timeout", f"{uri}: {one_line(error)}")) from None
        except OSError as error:
            raise Transient(of_system(uri, error)) from None
        except Exception as error:  # each store's client has classes of its own
            raise ImageError("unreadable", f"{uri}: {type(error).__name__}: {one_line(error)}") from None


def canonical(uri: str) -> str:
    """An object's URI with one name per store: `s3a://b/k` is `s3://b/k`."""
    scheme, mark, rest = uri.rstrip("/").partition("://")
    return {"s3a": "s3", "gcs": "gs", "abfss": "abfs"}.get(scheme.lower(), scheme.lower()) + mark + rest
