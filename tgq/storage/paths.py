"""Paths of the warehouse and of the local cache."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from tgq.errors import WarehouseError


def ensure_writable(root: str) -> None:
    """Create the folder and check that it is writable; in an object store, write an object and remove it.

    Raises:
        WarehouseError: it is not writable.
        StoreError: the object store does not answer, refuses the credentials, or has no such bucket.
    """
    if "://" in root:
        from tgq.storage.files import Files

        store, name = Files(root), f".writable-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        store.write(name, b"")
        store.remove(name)
        return
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        probe = Path(root) / f".writable-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as e:
        raise WarehouseError(f"the warehouse {root} is not writable ({e.strerror})", "choose another --warehouse or correct its permissions") from e


def absolute(path: str) -> str:
    """The absolute path of a folder or `file:` URI; other URIs are returned unchanged."""
    if path.startswith("file:"):
        path = "/" + path[5:].lstrip("/")
    return path.rstrip("/") if "://" in path else str(Path(path).expanduser().resolve())


def cache_folder() -> Path:
    """The folder that caches JARs and converted tower weights: `$TGQ_CACHE`, or `~/.cache/tgq`."""
    return Path(os.environ.get("TGQ_CACHE") or Path.home() / ".cache" / "tgq")
