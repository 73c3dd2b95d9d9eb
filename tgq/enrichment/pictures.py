"""The pictures of items, read in a task as the embed step reads them, for a language model that sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tgq.catalog.reading.location import folder_of
from tgq.embedding.executor.worker import EmbedWorker, task_cores
from tgq.images.decode import ImageError, ImageLimits
from tgq.images.fetch import Fetcher
from tgq.refinement.picture import shown
from tgq.run.night import Night

COLUMNS = ("image_uri", "image_bytes", "image_hash")  # of `catalog_items`
NO_PICTURE = "no_picture"  # the reason of an item whose picture cannot be read, which the embed step quarantines


@dataclass(frozen=True)
class Pictures:
    """Reads pictures from where the embed step may, within its limits. It can be sent to the executors."""

    fetcher: Fetcher
    limits: ImageLimits
    threads: int  # 0: one per core of the task

    @classmethod
    def of(cls, night: Night) -> Pictures:
        """Those of the night's catalog."""
        worker = EmbedWorker.of(night.settings, night.model_folder, folder_of(night.spark, night.settings.catalog))
        return cls(Fetcher(worker.fetch), worker.limits, worker.decode_threads)

    def read(self, rows: Sequence[Mapping[str, Any]]) -> list[bytes | ImageError | None]:
        """What a language model sees of each row with COLUMNS: a small JPEG, None without a picture, or why it cannot be read."""
        with ThreadPoolExecutor(self.threads or task_cores(), "pictures") as pool:
            return list(pool.map(self._one, rows))

    def _one(self, row: Mapping[str, Any]) -> bytes | ImageError | None:
        if row["image_hash"] is None:
            return None
        try:
            return shown(row["image_bytes"] or self.fetcher.read(row["image_uri"]), self.limits)
        except ImageError as error:
            return error


def unread(error: ImageError) -> str:
    """One line on a picture that cannot be read. The quarantine has more about it."""
    return f"its picture cannot be read: {error.reason}"
