"""Files in a local folder or an object store (s3://, gs://), through fsspec, with atomic writes.

A local write goes to a temporary file in the same folder, then fsync, os.replace, and fsync of the folder. An object store shows
an object only after its upload is complete.
"""

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from tgq.errors import WarehouseError
from tgq.storage.stores import asked, file_system, store_error

TEMPORARY = ".tmp-"
CREATE_TRIES = 3


class Files:
    """Files under a root folder or URI. Paths are relative to it, with forward slashes.

    Every method raises StoreError if an object store does not answer, refuses the credentials or fails.

    Raises:
        StoreError: the package for this kind of store is not installed.
    """

    def __init__(self, root: str | Path):
        self._uri = str(root)
        self.fs, self.root = file_system(self._uri)

    def resolve(self, path: str) -> str:
        """The full path.

        Raises:
            WarehouseError: the path is absolute or leaves the root.
        """
        parts = path.split("/")
        if not path or "\0" in path or "\\" in path or any(part in ("", ".", "..") for part in parts):
            raise WarehouseError(
                f"path {path!r} leaves the warehouse", "publish again; a manifest holds relative paths only"
            )
        return f"{self.root.rstrip('/')}/{path}"

    def read(self, path: str) -> bytes:
        """The file's bytes.

        Raises:
            FileNotFoundError: it does not exist.
        """
        with asked(self._uri):
            content: bytes = self.fs.cat_file(self.resolve(path))
        return content

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Write or replace a file atomically.

        Raises:
            WarehouseError: the local disk is full, or the file is not writable.
        """
        target = self.resolve(path)
        if isinstance(self.fs, LocalFileSystem):
            _place(target, data, os.replace)
        else:
            with asked(self._uri, missing=False):
                self.fs.pipe_file(target, bytes(data))

    def create(self, path: str, data: bytes | memoryview) -> bool:
        """Write a file atomically if there is none; of several processes that create it at once, one does. Returns whether this one did.

        An object store must know conditional writes, as those of Amazon, Google and Microsoft do. If its answer to a write is lost and its client
        repeats it, this says that the file was there: the caller can read whose it is.

        Raises:
            WarehouseError: the local disk is full, or the file is not writable.
        """
        target = self.resolve(path)
        if isinstance(self.fs, LocalFileSystem):
            try:
                _place(target, data, os.link)
            except FileExistsError:
                return False
            return True
        for attempt in range(CREATE_TRIES):
            try:
                self.fs.pipe_file(target, bytes(data), mode="create")
                return True
            except OSError as error:  # stores word a condition that was not met in different ways, and a conflict of two writers in others
                if isinstance(error, FileExistsError) or self.size(path) is not None:
                    return False
                if attempt == CREATE_TRIES - 1:
                    raise store_error(self._uri, error) from error
            except Exception as error:  # without credentials, for example
                raise store_error(self._uri, error) from error
        raise AssertionError("the last try returns or raises")

    def size(self, path: str) -> int | None:
        """Size in bytes; None if the file does not exist."""
        try:
            with asked(self._uri):
                return int(self.fs.info(self.resolve(path))["size"])
        except FileNotFoundError:
            return None

    def list(self, folder: str) -> list[str]:
        """The sorted names directly in `folder`; empty if it does not exist."""
        try:
            with asked(self._uri):
                return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in self.fs.ls(self.resolve(folder), detail=False))
        except FileNotFoundError:
            return []

    def remove(self, path: str) -> None:
        """Remove a file or folder, if it exists."""
        try:
            with asked(self._uri):
                self.fs.rm(self.resolve(path), recursive=True)
        except FileNotFoundError:
            pass


def _place(target: str, data: bytes | memoryview, place: Callable[[str, str], None]) -> None:
    """Write a local file under a temporary name beside `target`, and give it its own by `place`, which may raise FileExistsError."""
    folder = os.path.dirname(target)
    try:
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, TEMPORARY + uuid.uuid4().hex)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            place(temporary, target)
        finally:
            if os.path.exists(temporary):
                os.remove(temporary)
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if isinstance(error, FileExistsError) and place is os.link:
            raise
        raise WarehouseError(f"cannot write {target} ({error.strerror})", "free disk space or correct its permissions") from error


def sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
