"""The engine's input and output columns in Arrow, and the conversion between Arrow batches and rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tgq.encoder.packing import half
from tgq.grounding.box import Found
from tgq.images.decode import ImageError
from tgq.inference.batching import Row
from tgq.inference.clock import Clock

# Tower features for the feature cache, in the format of tgq.encoder.packing. They are null unless `output_tower_features` is
# set, and then given on one row of each image and of each pair of metadata text and title.
CACHE_COLUMNS = ("image_tokens", "text_tokens", "text_mask", "title_features")

OUTPUT_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("status", pa.string()),  # 'embedded' or 'quarantined'
        ("reason", pa.string()),  # of a quarantined row
        ("detail", pa.string()),  # one line that explains the reason
        ("agreement", pa.float32()),  # S_title, null if image or title is missing
        ("gate_metadata", pa.float32()),
        ("gate_exploratory", pa.float32()),
        ("has_image", pa.bool_()),
        ("decode_wait_s", pa.float64()),  # seconds that the model loop waited since the previous batch, on the first row; 0 on the others
        ("model_s", pa.float64()),  # seconds in the model, likewise
        ("image_features", pa.binary()),  # f_img, float16 little-endian; null without an image
        ("text_features", pa.binary()),  # f_txt, float16 little-endian; null without metadata
        *((name, pa.binary()) for name in CACHE_COLUMNS),
        ("embedding", pa.list_(pa.float32())),
        ("perceptual_hash", pa.int64()),  # of the whole picture, null unless it is wanted and the picture was decoded
        ("colour", pa.int32()),  # likewise
        # of a picture that was grounded, otherwise null
        ("box", pa.list_(pa.float64())),  # x0, y0, x1, y1 that the detector found, as shares of the picture
        ("score", pa.float64()),
        ("kept_whole", pa.bool_()),
        ("whole_reason", pa.string()),  # why the picture was kept whole
        ("whole_detail", pa.string()),  # one line that explains the reason, if there is more to say
    ]
)

INPUT_COLUMNS = ("item_id", "image_uri", "image_bytes", "image_hash", "metadata_text", "encoder_title")
# optional: what a detector looks for, the version of the crop, and what the detector found earlier as {"box", "score"}
GROUNDING_COLUMNS = ("phrase", "detector_version", "known")
HASH_COLUMN = "hash_wanted"  # optional: whether the perceptual hash of a decoded picture is wanted
CACHED_COLUMNS = ("image_tokens", "image_features", "text_tokens", "text_mask", "text_features", "title_features")  # cached tower features; optional


def input_rows(batches: Iterable[pa.RecordBatch], unfinished: deque[list[Row]]) -> Iterator[Row]:
    """The rows of all batches, in order. The rows of a batch are appended to `unfinished` before the first of them is yielded."""
    for source in batches:
        if not source.num_rows:
            continue
        columns = {name: source.column(name) for name in (*INPUT_COLUMNS, *GROUNDING_COLUMNS, HASH_COLUMN, *CACHED_COLUMNS) if name in source.schema.names}
        nulls = [None] * source.num_rows
        bytes_given = columns.pop("image_bytes").is_valid().to_pylist() if "image_bytes" in columns else nulls
        values = {name: column.to_pylist() for name, column in columns.items()}

        def column(name: str, values: dict = values, nulls: list = nulls) -> list:
            return values.get(name, nulls)

        cached_images, cached_texts = (_zip_columns(*(column(name) for name in names)) for names in (CACHED_COLUMNS[:2], CACHED_COLUMNS[2:]))
        rows = [
            Row(
                source=source,
                index=i,
                item_id=item_id,
                uri=uri or None,
                has_bytes=bool(has_bytes),
                image_key=_image_key(image_hash or (None if has_bytes else uri), version),
                metadata=metadata or "",
                title=title or "",
                phrase=phrase,
                known=(_found(known),) if known else None,
                hash_wanted=bool(wanted),
                cached_image=cached_image,
                cached_text=cached_text,
            )
            for i, (item_id, uri, has_bytes, image_hash, metadata, title, phrase, version, known, wanted, cached_image, cached_text) in enumerate(
                zip(column("item_id"), column("image_uri"), bytes_given, column("image_hash"), column("metadata_text"), column("encoder_title"),
                    *map(column, GROUNDING_COLUMNS), column(HASH_COLUMN), cached_images, cached_texts, strict=True)
            )
        ]
        unfinished.append(rows)
        yield from rows


def _image_key(image: str | None, version: str | None) -> str | None:
    """Rows with equal keys have the same image, and the same part of it is embedded."""
    return f"{image}|{version}" if image and version else image or None


def _found(known: dict[str, Any]) -> Found | None:
    return Found(tuple(known["box"]), known["score"]) if known["box"] else None


def _zip_columns(*columns: list) -> list[tuple | None]:
    """One tuple of all columns' values per row; None for a row whose first value is null."""
    return [row if row[0] is not None else None for row in zip(*columns, strict=True)]


def record_results(rows: list[Row], out) -> None:
    """Give each row its part of an EncoderOutput, or the failure 'non_finite' if a value of it is infinite or not a number."""
    embedding = out.embedding.numpy()
    image, text = half(out.image), half(out.text)
    finite = np.isfinite(embedding).all(1) & np.isfinite(image).all(1) & np.isfinite(text).all(1)
    scalars = torch.stack([out.agreement, out.gate_metadata, out.gate_exploratory], dim=1).numpy()
    for i, row in enumerate(rows):
        if finite[i]:
            row.result = embedding[i], image[i], text[i], scalars[i]
        else:
            row.failure = ImageError("non_finite", "the embedding or a tower's feature is not a finite number")


def output_batch(rows: list[Row], clock: Clock) -> pa.RecordBatch:
    """Finished rows as a batch of OUTPUT_SCHEMA; resets the clock."""
    n = len(rows)
    embedded = [row.result for row in rows if row.result is not None]
    missing = np.array([row.result is None for row in rows])
    scalars = np.full((n, 3), np.nan, dtype=np.float32)
    values = np.zeros(0, dtype=np.float32)
    lengths = np.zeros(n, dtype=np.int32)
    if embedded:
        scalars[~missing] = np.stack([result[3] for result in embedded])
        embeddings = np.stack([result[0] for result in embedded])
        values, lengths[~missing] = embeddings.ravel(), embeddings.shape[1]
    offsets = np.concatenate([[0], lengths.cumsum(dtype=np.int32)]).astype(np.int32)
    wait, model = clock.read_and_reset()
    times = np.zeros((2, n))
    times[:, 0] = wait, model
    features = [
        [row.result[at].tobytes() if row.result is not None and present(row) else None for row in rows]
        for at, present in ((1, lambda row: row.has_image), (2, lambda row: bool(row.metadata)))
    ]
    packed = [(row.packed_image and row.packed_image.result(), *(row.packed_text.result() if row.packed_text else (None,) * 3)) for row in rows]
    columns = [
        pa.array([row.item_id for row in rows], pa.string()),
        pa.array(np.where(missing, "quarantined", "embedded"), pa.string()),
        pa.array([row.failure and row.failure.reason for row in rows], pa.string()),
        pa.array([row.failure and row.failure.detail for row in rows], pa.string()),
        *(pa.array(scalars[:, i], pa.float32(), mask=np.isnan(scalars[:, i])) for i in range(3)),
        pa.array([row.has_image for row in rows], pa.bool_()),
        pa.array(times[0]),
        pa.array(times[1]),
        *(pa.array(column, pa.binary()) for column in (*features, *zip(*packed, strict=True))),
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=pa.array(missing)),
        *(pa.array([row.fingerprint and row.fingerprint[n] for row in rows], kind) for n, kind in enumerate((pa.int64(), pa.int32()))),
        *_grounding_columns(rows),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=OUTPUT_SCHEMA)


def _grounding_columns(rows: list[Row]) -> list[pa.Array]:
    """The last columns of OUTPUT_SCHEMA."""
    values = [(None,) * 5 if g is None else (g.found and list(g.found.box), g.found and g.found.score, g.kept_whole, g.reason, g.detail)
              for g in (row.grounding for row in rows)]  # fmt: skip
    kinds = [field.type for field in OUTPUT_SCHEMA][-5:]
    return [pa.array([value[n] for value in values], kind) for n, kind in enumerate(kinds)]
