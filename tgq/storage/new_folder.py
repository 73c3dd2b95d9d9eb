"""A folder of the user's that appears complete or not at all."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tgq.errors import UsageError


@contextlib.contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """A scratch folder beside `place`, which is renamed to it when the block ends. If the block raises, nothing is left.

    `place` must not exist, or be an empty folder.

    Raises:
        UsageError: it cannot be written, or an OSError came out of the block.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    except OSError as error:
        raise UsageError(f"{place} cannot be written ({error.strerror})", "give a folder where you may write") from None
    try:
        yield scratch
        scratch.chmod(0o755)  # mkdtemp makes it private to its owner
        scratch.rename(place)
    except OSError as error:
        raise UsageError(f"{place} cannot be written ({error.strerror})", "choose another folder, or free disk space") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
