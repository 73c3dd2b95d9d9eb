"""The Arrow columns that the engine reads and writes, and how a batch of rows becomes one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import torch

from tgq.encoder.packing import half
from tgq.images.decode import ImageError
from tgq.inference.batching import Row
from tgq.inference.clock import Clock

KEPT = ("image_tokens", "text_tokens", "text_mask", "title_features")  # see stored.py; only with `keep`, and once per picture and text


OUTPUT_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("status", pa.string()),  # 'embedded' or 'quarantined'
        ("reason", pa.string()),  # why quarantined
        ("detail", pa.string()),
        ("agreement", pa.float32()),  # S_title, null where picture or title is missing
        ("gate_metadata", pa.float32()),
        ("gate_exploratory", pa.float32()),
        ("has_image", pa.bool_()),
        ("decode_wait_s", pa.float64()),  # since the batch before, on the first row; else 0
        ("model_s", pa.float64()),
        ("image_features", pa.binary()),  # f_img, float16 little-endian; null without a picture
        ("text_features", pa.binary()),  # f_txt, likewise; null without metadata
        *((name, pa.binary()) for name in KEPT),
        ("embedding", pa.list_(pa.float32())),
    ]
)


INPUT_COLUMNS = ("item_id", "image_uri", "image_bytes", "image_hash", "metadata_text", "encoder_title")
STORED_COLUMNS = ("image_tokens", "image_features", "text_tokens", "text_mask", "text_features", "title_features")  # may be absent


def input_rows(batches: Iterable[pa.RecordBatch], unfinished: deque[list[Row]]) -> Iterator[Row]:
    """The rows of all batches; each batch is noted in `unfinished` when its first row is asked for."""
    for source in batches:
        if not source.num_rows:
            continue
        columns = {name: source.column(name) for name in (*INPUT_COLUMNS, *STORED_COLUMNS) if name in source.schema.names}
        nothing = [None] * source.num_rows
        has_bytes = columns.pop("image_bytes").is_valid().to_pylist() if "image_bytes" in columns else nothing
        values = {name: column.to_pylist() for name, column in columns.items()}

        def of(name: str, values: dict = values, nothing: list = nothing) -> list:
            return values.get(name, nothing)

        images, words = (_together(*(of(name) for name in names)) for names in (STORED_COLUMNS[:2], STORED_COLUMNS[2:]))
        rows = [
            Row(
                source=source,
                index=i,
                item_id=item_id,
                uri=uri or None,
                has_bytes=bool(stored),
                picture_key=image_hash or (None if stored else uri) or None,
                metadata=metadata or "",
                title=title or "",
                stored_image=image,
                stored_text=text,
            )
            for i, (item_id, uri, stored, image_hash, metadata, title, image, text) in enumerate(
                zip(of("item_id"), of("image_uri"), has_bytes, of("image_hash"), of("metadata_text"), of("encoder_title"), images, words,
                    strict=True)
            )
        ]
        unfinished.append(rows)
        yield from rows


def _together(*columns: list) -> list[tuple | None]:
    """Rows of several columns; None where the first is null."""
    return [row if row[0] is not None else None for row in zip(*columns, strict=True)]


def record_results(rows: list[Row], out) -> None:
    embedding = out.embedding.numpy()
    image, text = half(out.image), half(out.text)
    finite = np.isfinite(embedding).all(1) & np.isfinite(image).all(1) & np.isfinite(text).all(1)
    scalars = torch.stack([out.agreement, out.gate_metadata, out.gate_exploratory], dim=1).numpy()
    for i, row in enumerate(rows):
        if finite[i]:
            row.result = embedding[i], image[i], text[i], scalars[i]
        else:
            row.failure = ImageError(
                "non_finite", "the embedding or a tower's feature is not a finite number"
            )


def output_batch(rows: list[Row], clock: Clock) -> pa.RecordBatch:
    n = len(rows)
    kept = [row.result for row in rows if row.result is not None]
    missing = np.array([row.result is None for row in rows])
    scalars = np.full((n, 3), np.nan, dtype=np.float32)
    values = np.zeros(0, dtype=np.float32)
    lengths = np.zeros(n, dtype=np.int32)
    if kept:
        scalars[~missing] = np.stack([result[3] for result in kept])
        embeddings = np.stack([result[0] for result in kept])
        values, lengths[~missing] = embeddings.ravel(), embeddings.shape[1]
    offsets = np.concatenate([[0], lengths.cumsum(dtype=np.int32)]).astype(np.int32)
    wait, model = clock.tell()
    times = np.zeros((2, n))
    times[:, 0] = wait, model
    features = [
        [row.result[at].tobytes() if row.result is not None and there(row) else None for row in rows]
        for at, there in ((1, lambda row: row.has_image), (2, lambda row: bool(row.metadata)))
    ]
    packed = [(row.image_kept and row.image_kept.result(), *(row.text_kept.result() if row.text_kept else (None,) * 3)) for row in rows]
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
    ]
    return pa.RecordBatch.from_arrays(columns, schema=OUTPUT_SCHEMA)
