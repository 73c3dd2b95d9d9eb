"""One source row's verdict: new, changed, touched, unchanged, or refused with a reason. Runs on the executors."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tgq.catalog.fields import content_hash, encoder_texts
from tgq.catalog.reading.location import Location, fetch_options
from tgq.grounding.policy import Policy
from tgq.images.decode import ImageError, ImageLimits, verify_header, verify_image
from tgq.images.fetch import Fetcher
from tgq.images.permitted import is_web_address
from tgq.settings.sections import MetadataSettings, Settings

MISSING = "(missing)"
FETCH_THREADS = 16  # per task: reading waits for disks and servers, and Pillow decodes outside Python's lock
NONE, UNKNOWN = "-", "?"  # picture part of a fingerprint: no picture; a picture whose version is unknown until it is read
LONGEST_FIELD = 2000  # characters of a field that the quarantine keeps
_TEXT, _MAP = pa.string(), pa.map_(pa.string(), pa.string())
FIELDS = ("title", "brand", "category", "attributes", "image_uri", "group_id", "variant_id", "slices")


VERDICT = pa.schema([
    ("item_id", _TEXT), ("occurrence", pa.int32()), ("reason", _TEXT), ("detail", _TEXT), ("fields", _TEXT),
    ("change", _TEXT), ("reactivated", pa.bool_()), ("bytes_read", pa.int64()),
    ("title", _TEXT), ("brand", _TEXT), ("category", _TEXT), ("attributes", _MAP), ("image_uri", _TEXT), ("image_size", pa.int64()),
    ("image_hash", _TEXT), ("metadata_text", _TEXT), ("encoder_title", _TEXT), ("group_id", _TEXT), ("variant_id", _TEXT),
    ("slices", _MAP), ("source_fingerprint", _TEXT), ("content_hash", _TEXT), ("image_bytes", pa.binary()),
    ("additional_images", pa.list_(_TEXT)), ("missing_words", pa.int32()), ("was_active", pa.bool_()),
])  # fmt: skip


@dataclass(frozen=True)
class Examiner:
    """Gives a source row its verdict. Holds plain values only, so it can be sent to the executors. Never raises."""

    location: Location
    fetcher: Fetcher
    limits: ImageLimits
    verify: str
    metadata: MetadataSettings
    retry: bool
    grounding: Policy | None = None

    @classmethod
    def of(cls, settings: Settings, location: Location, grounding: Policy | None = None) -> Examiner:
        """With the settings' limits, for a catalog that was found.

        Args:
            grounding: decides which part of a picture is embedded; None: all of it.
        """
        images = settings.images
        return cls(
            location=location,
            fetcher=Fetcher(fetch_options(location.folder, images)),
            limits=ImageLimits(images.max_bytes, images.max_pixels),
            verify=images.verify,
            metadata=settings.metadata,
            retry=settings.embed.retry_quarantined,
            grounding=grounding,
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of VERDICT for a row of the source that is joined with the known item of its id (`known_*`, `refused_*`)."""
        row["attributes"], row["slices"] = _as_dict(row["attributes"]), _as_dict(row["slices"])
        more = row.get("additional_images")
        fields = _digest(*(row[f] for f in FIELDS), *([more] if more else []))
        out: dict[str, Any] = {name: row.get(name) for name in VERDICT.names}
        out.update(image_bytes=None, bytes_read=0, was_active=row["known_active"], source_fingerprint=f"{fields}:{NONE}")
        if row["reason"]:
            return self._refused(row, out)
        text, title = encoder_texts(row, self.metadata)
        out.update(metadata_text=text, encoder_title=title)
        try:
            self._picture(row, out, fields)
        except ImageError as error:
            out.update(reason=error.reason, detail=error.detail)
            return self._refused(row, out)
        if not out["image_hash"] and not text and not title:
            out.update(reason="no_image_and_no_text", detail=f"no image, and nothing in {', '.join(self.metadata.fields) or 'the text'}")
            return self._refused(row, out)
        crop = self.grounding.crop(row["category"], text) if self.grounding and out["image_hash"] else None
        out["content_hash"] = content_hash(out["image_hash"], text, title, crop)
        out["change"] = _change(row, out)
        out["reactivated"] = row["known_active"] is False
        if row["image_bytes"] and out["change"] != "unchanged":
            out["image_bytes"] = row["image_bytes"]
        return out

    def looked_for(self, row: dict[str, Any]) -> dict[str, Any]:
        """Whether the row's picture is there, without reading it: `picture`, and `reason` and `detail` where the row would be refused."""
        if row["reason"]:
            return {"picture": "not looked for"}
        if row["image_bytes"]:
            return {"picture": f"{len(row['image_bytes']):,} bytes"}
        if not row["image_uri"]:
            text, title = encoder_texts(row | {"attributes": _as_dict(row["attributes"])}, self.metadata)
            bare = {"reason": "no_image_and_no_text", "detail": "no image and no text"} if not text and not title else {}
            return {"picture": "none", **bare}
        try:
            self._stat(self.location.resolve(row["image_uri"]))
        except ImageError as error:
            return {"picture": "not found", "reason": error.reason, "detail": error.detail}
        return {"picture": "found"}

    def _picture(self, row: dict[str, Any], out: dict[str, Any], fields: str) -> None:
        """Fill image_uri, image_size, image_hash and the fingerprint, reading no more than is needed.

        Raises:
            ImageError: the picture cannot be used.
        """
        data = row["image_bytes"]
        out.update(image_uri=None, image_hash=None, image_size=0)
        if data:
            digest = hashlib.sha256(data).hexdigest()
            version = f"bytes {digest}"
        elif row["image_uri"]:
            out["image_uri"] = uri = self.location.resolve(row["image_uri"])
            version = self._stat(uri)
        else:
            return
        known = _digest(out["image_uri"], version) if version else UNKNOWN
        fingerprint = out["source_fingerprint"] = f"{fields}:{known}"
        if version and known == _picture_part(row["known_fingerprint"]):
            out.update(image_hash=row["known_hash"], image_size=row["known_size"])
            return
        if version and not self.retry and row["refused_fingerprint"] == self._refusal(fingerprint):
            raise ImageError(row["refused_reason"], row["refused_detail"])
        if not data:
            out["source_fingerprint"] = f"{fields}:{UNKNOWN}"  # not reading it is no verdict on it: try again next time
            data = self.fetcher.read(uri)
            out["source_fingerprint"] = fingerprint
            digest = hashlib.sha256(data).hexdigest()
        out["bytes_read"] = len(data)
        (verify_image if self.verify == "decode" else verify_header)(data, self.limits)
        out.update(image_hash=digest, image_size=len(data))

    def _stat(self, uri: str) -> str:
        try:
            return self.fetcher.stat(uri)
        except ImageError as error:
            if error.reason == "unreadable" and is_web_address(uri):
                return ""  # some servers refuse HEAD and give the picture all the same
            raise

    def _refusal(self, fingerprint: str) -> str:
        """The fingerprint of a refused row. It contains the limits, so that the row is tried again under other limits."""
        return f"{fingerprint}:{_digest(self.limits.max_bytes, self.limits.max_pixels, self.verify)[:8]}"

    def _refused(self, row: dict[str, Any], out: dict[str, Any]) -> dict[str, Any]:
        shown = {"item_id": row["item_id"], **{f: row[f] for f in FIELDS}}
        shown["image_bytes"] = len(row["image_bytes"]) if row["image_bytes"] else None
        shown["raw"] = row.get("raw")
        shown = {k: v[:LONGEST_FIELD] if isinstance(v, str) else v for k, v in shown.items() if v not in (None, {})}
        return dict.fromkeys(VERDICT.names) | {
            "item_id": out["item_id"], "occurrence": out["occurrence"], "reason": out["reason"], "detail": out["detail"],
            "fields": json.dumps(shown, ensure_ascii=False), "bytes_read": out["bytes_read"], "was_active": out["was_active"],
            "source_fingerprint": self._refusal(out["source_fingerprint"]), "change": "quarantined",
        }  # fmt: skip

    def batches(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Verdicts for record batches, computed on threads. One batch is read ahead, so that a slow picture delays few others."""
        with ThreadPoolExecutor(FETCH_THREADS, "fetch") as pool:
            waiting: deque = deque()
            for batch in batches:
                waiting.append([pool.submit(self, row) for row in batch.to_pylist()])
                if len(waiting) > 1:
                    yield _verdicts(waiting.popleft())
            while waiting:
                yield _verdicts(waiting.popleft())


def _verdicts(futures: list) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([future.result() for future in futures], VERDICT)


def _as_dict(value: Any) -> dict[str, str] | None:
    return None if value is None else dict(value)  # Arrow gives a map as a list of pairs


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


def _picture_part(fingerprint: str | None) -> str | None:
    return fingerprint.rpartition(":")[2] if fingerprint else None


def _change(row: dict[str, Any], out: dict[str, Any]) -> str:
    """new, changed (embed again), touched (other columns differ) or unchanged."""
    if row["known_content"] is None:
        return "new"
    if row["known_content"] != out["content_hash"]:
        return "changed"
    # a picture of unknown version was read and has the same bytes: the row stays as it is
    return "unchanged" if row["known_fingerprint"] == out["source_fingerprint"] else "touched"
