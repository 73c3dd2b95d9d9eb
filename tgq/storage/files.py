"""The only place in tgq.retrieval that touches a file system, through fsspec: a folder (local) or an object
store (s3://, gs://).

A file appears whole or not at all. Locally that is a temporary file beside it, fsync, os.replace, fsync of
the folder; an object store shows an object only once its upload is complete, so one put does the same.
"""

import hashlib
import os
import uuid
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tgq.errors import WarehouseError

TEMPORARY = ".tmp-"


class Files:
    """Files under one root; every path is relative to it, with forward slashes."""

    def __init__(self, root: str | Path):
        self.fs, self.root = fsspec.core.url_to_fs(str(root))

    def resolve(self, path: str) -> str:
        """The full path. Raises WarehouseError for one that is absolute or steps out of the root."""
        parts = path.split("/")
        if not path or "\0" in path or "\\" in path or any(part in ("", ".", "..") for part in parts):
            raise WarehouseError(
                f"path {path!r} leaves the warehouse", "publish again; a manifest holds relative paths only"
            )
        return f"{self.root.rstrip('/')}/{path}"

    def read(self, path: str) -> bytes:
        """Raises FileNotFoundError when it is not there."""
        content: bytes = self.fs.cat_file(self.resolve(path))
        return content

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Writes a file whole or not at all; replaces what was there."""
        target = self.resolve(path)
        if not isinstance(self.fs, LocalFileSystem):
            self.fs.pipe_file(target, bytes(data))
            return
        folder = os.path.dirname(target)
        try:
            os.makedirs(folder, exist_ok=True)
            temporary = os.path.join(folder, TEMPORARY + uuid.uuid4().hex)
            try:
                with open(temporary, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, target)
            except BaseException:
                if os.path.exists(temporary):
                    os.remove(temporary)
                raise
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise WarehouseError(
                f"cannot write {target}: {error.strerror}", "free space or fix its permissions"
            ) from error

    def size(self, path: str) -> int | None:
        """Bytes, or None when there is no such file."""
        try:
            return int(self.fs.info(self.resolve(path))["size"])
        except FileNotFoundError:
            return None

    def list(self, folder: str) -> list[str]:
        """Sorted names directly under `folder`; [] when it is not there."""
        try:
            self.fs.invalidate_cache()
            return sorted(
                str(path).rstrip("/").rsplit("/", 1)[-1]
                for path in self.fs.ls(self.resolve(folder), detail=False)
            )
        except FileNotFoundError:
            return []

    def remove(self, path: str) -> None:
        """Removes a file or a folder; nothing happens when it is not there."""
        try:
            self.fs.rm(self.resolve(path), recursive=True)
        except FileNotFoundError:
            pass


def sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
