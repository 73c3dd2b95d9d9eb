"""Folders and URIs: a warehouse as every process sees it, and the local cache."""

from __future__ import annotations

import os
from pathlib import Path

from tgq.errors import WarehouseError


def ensure_writable(root: str) -> None:
    """Create the folder and prove that a file can be written in it.

    Raises:
        WarehouseError: it cannot.
    """
    if "://" in root:
        return  # an object store answers at the first table
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        probe = Path(root) / f".writable-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as e:
        raise WarehouseError(f"the warehouse {root} is not writable ({e.strerror})", "choose another --warehouse or mend its permissions") from e


def absolute(path: str) -> str:
    """A folder or URI as every process sees it: URIs as they are, local folders (also as `file:` URIs) resolved."""
    if path.startswith("file:"):
        path = "/" + path[5:].lstrip("/")
    return path.rstrip("/") if "://" in path else str(Path(path).expanduser().resolve())


def cache_folder() -> Path:
    """Where JARs and converted tower weights are kept: `$TGQ_CACHE`, else `~/.cache/tgq`."""
    return Path(os.environ.get("TGQ_CACHE") or Path.home() / ".cache" / "tgq")
