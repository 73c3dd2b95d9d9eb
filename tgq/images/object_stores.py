"""Images in object stores, under the URIs that the operator allowed."""

from __future__ import annotations

from contextlib import contextmanager

from tgq.errors import StoreError
from tgq.images.decode import ImageError, one_line
from tgq.images.permitted import FetchOptions, Transient, from_os_error, within_limit
from tgq.storage.stores import file_system


class ObjectStores:
    """Reads objects under the URIs `roots`, with fsspec."""

    def __init__(self, options: FetchOptions, roots: tuple[str, ...]):
        self.options = options
        self._stores = tuple(canonical(root) for root in roots)

    def read(self, uri: str) -> bytes:
        """The object's bytes; raises ImageError or Transient."""
        with self._object(uri) as (fs, path):
            return within_limit(self.options, uri, fs.cat_file(path, start=0, end=self.options.max_bytes + 1))

    def stat(self, uri: str) -> str:
        """fsspec's unique key of the object's version, as a fingerprint; raises ImageError or Transient."""
        with self._object(uri) as (fs, path):
            return f"ukey={fs.ukey(path)}"

    @contextmanager
    def _object(self, uri: str):
        """The fsspec file system and the path in it. Errors of its library become ImageError or Transient; its own timeouts apply."""
        place = canonical(uri)
        if ".." in place.split("/") or not any(place.startswith(f"{root}/") for root in self._stores):
            raise ImageError(
                "path_outside_catalog", f"{uri} is not under {' or '.join(self._stores) or 'any allowed URI'}"
            )
        if "::" in uri:
            raise ImageError("unsupported_scheme", f"{uri} chains several file systems")
        try:
            yield file_system(uri)
        except (ImageError, Transient):
            raise
        except StoreError as error:
            raise ImageError("unsupported_scheme", str(error)) from None
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise from_os_error(uri, error) from None
        except TimeoutError as error:
            raise Transient(ImageError("timeout", f"{uri}: {one_line(error)}")) from None
        except OSError as error:
            raise Transient(from_os_error(uri, error)) from None
        except Exception as error:  # each store's client raises its own classes
            raise ImageError("unreadable", f"{uri}: {type(error).__name__}: {one_line(error)}") from None


def canonical(uri: str) -> str:
    """An object's URI with the canonical scheme of its store: `s3a://b/k` becomes `s3://b/k`."""
    scheme, mark, rest = uri.rstrip("/").partition("://")
    return {"s3a": "s3", "gcs": "gs", "abfss": "abfs"}.get(scheme.lower(), scheme.lower()) + mark + rest
