"""Arrow batches of items in, of embeddings out: fetch, decode, preprocess and encode as one stream.

    input -----> window of groups -----> batch -----> encode -----> output
      (read and stacked on one thread,          (on the caller's thread)
       decoded on several)

A group is the rows that share a picture, so each picture is fetched and decoded once per window, and encoded
once. While the model runs on one batch, the next is being stacked and those after it are being decoded. Only
the window is held. A row that comes with the towers' features, kept by an earlier run, needs neither picture nor towers.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch

from tgq.encoder.features import Features
from tgq.encoder.packing import StoredImage, StoredText, half, pack, pack_mask, pack_tokens
from tgq.images.decode import ImageError, ImageLimits, decode_image

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
WINDOW_BATCHES = 4  # the window never holds more than this many batches, however small the pictures


@dataclass(frozen=True)
class EngineOptions:
    """How much is done at once.

    Attributes:
        batch_tokens: a batch is filled to this many visual plus text tokens; a row counts as many as the
            towers give.
        prefetch_bytes: decoded pictures that may wait for the model, in bytes.
        decode_threads: threads that fetch and decode; 0: one per core that this process may use.
        model_threads: torch's threads for one operation; 0 leaves torch's own choice.
        limits: what a picture may weigh.
        keep: give out what the towers said too, for those who keep it (KEPT).
    """

    batch_tokens: int = 8192
    prefetch_bytes: int = 512 * 1024 * 1024
    decode_threads: int = 0
    model_threads: int = 0
    limits: ImageLimits = field(default_factory=ImageLimits)
    keep: bool = False


@dataclass
class Row:
    """One input row, and what became of it."""

    source: pa.RecordBatch
    index: int
    item_id: str
    uri: str | None
    has_bytes: bool
    picture_key: str | None  # rows with the same key show the same picture
    metadata: str
    title: str
    stored_image: tuple[bytes, bytes] | None = None  # tokens and pooled feature as they were kept
    stored_text: tuple[bytes, bytes, bytes, bytes] | None = None
    failure: ImageError | None = None
    result: tuple | None = None  # one row of each array of EncoderOutput
    image_kept: Future | None = None  # bytes to be kept, being packed
    text_kept: Future | None = None

    @property
    def has_image(self) -> bool:
        return self.has_bytes or self.uri is not None or self.stored_image is not None

    @property
    def done(self) -> bool:
        return self.failure is not None or self.result is not None


@dataclass
class Group:
    """Rows that share one picture."""

    rows: list[Row]
    picture: Future | None  # of float32 [3, H, W], or of the reason why not; None: a row without a picture
    uri: str | None  # where it is being read from


@dataclass
class Batch:
    """Rows to encode, those of one picture side by side: `image_index` ascends, but for the -1 of none.

    Pictures are numbered as they come; those that were decoded lie in `pixels`, the others in `stored`.
    """

    rows: list[Row]
    image_index: np.ndarray
    pixels: torch.Tensor | None
    stored: dict[int, StoredImage]

    def features(self, encoder, start: int, stop: int) -> Features:
        """The towers' features of some of the rows."""
        rows, index = self.rows[start:stop], self.image_index[start:stop]
        used = np.unique(index[index >= 0])
        fresh = [i for i in used.tolist() if i not in self.stored]
        parts = []
        if fresh:  # their pixels lie side by side, in the order of their numbers
            before = sum(i not in self.stored for i in range(fresh[0]))
            parts.append((fresh, *encoder.see(self.pixels[before : before + len(fresh)])))
        if kept := [i for i in used.tolist() if i in self.stored]:
            parts.append((kept, *(torch.from_numpy(np.stack([getattr(self.stored[i], name) for i in kept])).to(encoder.null_image.device).float()
                                  for name in ("tokens", "pooled"))))  # fmt: skip
        seen = tuple(torch.cat([part[n] for part in parts]) for n in (1, 2)) if parts else None
        place = {number: at for at, number in enumerate(number for part in parts for number in part[0])}
        at = torch.tensor([place.get(i, -1) for i in index.tolist()], dtype=torch.long)
        width = encoder.text.width
        known = {i: StoredText.unpack(*row.stored_text, width) for i, row in enumerate(rows) if row.stored_text}
        return encoder.features(seen, at, [row.metadata for row in rows], [row.title for row in rows], known)


class EmbeddingEngine:
    """Embeds streams of items with one encoder.

    Args:
        encoder: a TGQFormer in eval mode, on the device where it is to run.
        read: URI to bytes, raising ImageError; called on many threads.
        options: see EngineOptions.

    Attributes:
        batch_rows: rows in a batch. Out of memory halves it, and it stays so for the life of the engine.

    Cost grows with rows for the text side and with distinct pictures for the image side. Memory:
    `prefetch_bytes` of decoded pictures, two batches of pixels, and the input batches that the window reaches
    into.
    """

    def __init__(self, encoder, read: Callable[[str], bytes], options: EngineOptions = EngineOptions()):
        self.encoder, self.read, self.options = encoder, read, options
        self.device = next(encoder.parameters()).device
        tokens = encoder.vision.tokens_per_image + encoder.text.max_length
        self.batch_rows = max(1, options.batch_tokens // tokens)
        self._threads = options.decode_threads or _cores()

    def run(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """One output batch (OUTPUT_SCHEMA) per input batch that has rows: the same rows in the same order.

        A row that cannot be embedded comes out as 'quarantined' with a reason: those of ImageError, and
        'no_image_and_no_text', 'out_of_memory', 'non_finite'. Closing the generator ends its threads.

        Raises:
            Whatever the input iterator raises, and errors of the model other than out-of-memory: they are
            nobody's row.
        """
        if self.options.model_threads:
            torch.set_num_threads(self.options.model_threads)
        clock = _Clock()
        unfinished: deque[list[Row]] = deque()
        decoders = self._decoders = ThreadPoolExecutor(self._threads, thread_name_prefix="tgq-decode")
        stacker = ThreadPoolExecutor(1, thread_name_prefix="tgq-stack")
        window = _Window(_rows(batches, unfinished), lambda row: decoders.submit(self._picture, row))
        try:
            coming = stacker.submit(self._next, window)
            while (batch := clock.timed("wait", coming.result)) is not None:
                coming = stacker.submit(self._next, window)
                clock.timed("model", self._encode, batch)
                # From the end: its last row tells of an unfinished batch at once.
                while unfinished and all(row.done for row in reversed(unfinished[0])):
                    yield _output(unfinished.popleft(), clock)
        finally:
            decoders.shutdown(cancel_futures=True)
            stacker.shutdown(cancel_futures=True)

    def _next(self, window: _Window) -> Batch | None:
        """On the stacking thread: fill the window, lay out the batch at its head; None at the input's end."""
        picture_bytes = 3 * 4 * self.encoder.vision.input_size**2
        room = min(self.options.prefetch_bytes // picture_bytes, WINDOW_BATCHES * self.batch_rows)
        window.fill(max(room, self.batch_rows))
        groups = window.take(self.batch_rows)
        return self._stack(groups) if groups else None

    def _picture(self, row: Row) -> np.ndarray | StoredImage | ImageError:
        """On a decode thread: the row's pixels or kept features, or what is wrong; never raises."""
        try:
            if row.stored_image:
                return StoredImage.unpack(*row.stored_image, self.encoder.vision.width)
            stored = row.source.column("image_bytes")[row.index] if row.has_bytes else None
            data = self.read(row.uri) if stored is None else stored.as_py()
            image = decode_image(data, self.options.limits, target=self.encoder.vision.input_size)
            return self.encoder.vision.preprocess(image).numpy()
        except ImageError as error:
            return error
        except MemoryError:
            return ImageError("out_of_memory", "no memory left to decode the picture")
        except Exception as error:  # a row's trouble stays with the row
            return ImageError("unreadable", f"{type(error).__name__}: {' '.join(str(error).split())}"[:300])

    def _stack(self, groups: list[Group]) -> Batch:
        """Wait for the groups' pictures, and lay them side by side."""
        rows: list[Row] = []
        index: list[int] = []
        pictures: list[np.ndarray] = []
        kept: dict[int, StoredImage] = {}
        for group in groups:
            used = -1  # a group's picture has one place, however many rows show it
            for row, picture in self._shown(group):
                if isinstance(picture, ImageError):
                    row.failure = picture
                    continue
                if picture is None and not row.metadata:
                    row.failure = ImageError("no_image_and_no_text", "neither a picture nor any text")
                    continue
                if picture is not None and used < 0:
                    used = len(pictures) + len(kept)
                    if isinstance(picture, StoredImage):
                        kept[used] = picture
                    else:
                        pictures.append(picture)
                rows.append(row)
                index.append(used)
        pixels = None
        if pictures:
            # Page-locked memory lets the copy to the GPU run beside the model. numpy copies on this thread
            # alone, where torch would start a second set of threads.
            pixels = torch.empty((len(pictures), *pictures[0].shape), pin_memory=self.device.type == "cuda")
            np.stack(pictures, out=pixels.numpy())
        return Batch(rows, np.array(index, dtype=np.int64), pixels, kept)

    def _shown(self, group: Group) -> Iterator[tuple[Row, np.ndarray | StoredImage | ImageError | None]]:
        """Each row with its picture; one that could not be read is looked for where the other rows keep it."""
        if group.picture is None:
            yield from ((row, None) for row in group.rows)
            return
        picture = group.picture.result()
        tried = {group.uri: picture}
        for row in group.rows:
            if isinstance(picture, ImageError) and row.uri not in tried and not row.has_bytes:
                tried[row.uri] = self._picture(row)
            yield row, tried.get(row.uri, picture)

    def _encode(self, batch: Batch) -> None:
        start, n = 0, len(batch.rows)
        while start < n:
            stop = min(n, start + self.batch_rows)
            try:
                features = batch.features(self.encoder, start, stop)
                out = self.encoder.embed(features)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                features = out = None  # and leave this block: the traceback keeps the failed batch's tensors alive
            if out is not None:
                _record(batch.rows[start:stop], out)
                if self.options.keep:
                    self._keep(batch.rows[start:stop], batch.image_index[start:stop], features)
                start = stop
                continue
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            if stop - start > 1:
                self.batch_rows = (stop - start) // 2
            else:
                batch.rows[start].failure = ImageError("out_of_memory", "does not fit the device by itself")
                start = stop

    def _keep(self, rows: list[Row], pictures: np.ndarray, features: Features) -> None:
        """Have the decode threads pack what the towers said, of each picture and each pair of texts once."""
        tokens, said = half(features.image_tokens), half(features.text_tokens)
        mask, title = features.text_mask.cpu().numpy(), half(features.title)
        seen, read = set(), set()
        for i, row in enumerate(rows):
            if row.result is None:
                continue
            if row.has_image and not row.stored_image and pictures[i] not in seen:
                seen.add(pictures[i])
                row.image_kept = self._decoders.submit(pack_tokens, tokens[i])
            if row.metadata and not row.stored_text and (row.metadata, row.title) not in read:
                read.add((row.metadata, row.title))
                row.text_kept = self._decoders.submit(_packed_text, said[i], mask[i], title[i])


def _packed_text(tokens: np.ndarray, mask: np.ndarray, title: np.ndarray) -> tuple[bytes, bytes, bytes]:
    return pack_tokens(tokens[mask]), pack_mask(mask), pack(title)


def _cores() -> int:
    """Cores that this process may use, which a container or a scheduler can make fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Window:
    """Groups whose pictures are being decoded, in the order of their first rows."""

    def __init__(self, rows: Iterator[Row], submit: Callable[[Row], Future]):
        self._rows, self._submit = rows, submit
        self._groups: deque[tuple[str | None, Group]] = deque()
        self._by_key: dict[str, Group] = {}
        self._held = 0

    def fill(self, room: int) -> None:
        """Take in rows until `room` are held or the input ends."""
        while self._held < room and (row := next(self._rows, None)) is not None:
            self._held += 1
            key = row.picture_key
            if key is not None and key in self._by_key:
                self._by_key[key].rows.append(row)
                continue
            group = Group([row], self._submit(row) if row.has_image else None, row.uri)
            self._groups.append((key, group))
            if key is not None:
                self._by_key[key] = group

    def take(self, n: int) -> list[Group]:
        """Remove up to `n` rows from the head, whole groups as far as they fit."""
        taken: list[Group] = []
        while self._groups and n:
            key, group = self._groups[0]
            part = Group(group.rows[:n], group.picture, group.uri)
            taken.append(part)
            del group.rows[:n]
            n -= len(part.rows)
            self._held -= len(part.rows)
            if not group.rows:
                self._groups.popleft()
                self._by_key.pop(key, None)
        return taken


class _Clock:
    """Seconds that the model loop waited for its input, and seconds in the model, since last told."""

    def __init__(self):
        self.wait = self.model = 0.0

    def timed(self, name: str, act: Callable, *args):
        began = time.perf_counter()
        try:
            return act(*args)
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - began)

    def tell(self) -> tuple[float, float]:
        told = self.wait, self.model
        self.wait = self.model = 0.0
        return told


def _rows(batches: Iterable[pa.RecordBatch], unfinished: deque[list[Row]]) -> Iterator[Row]:
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


def _record(rows: list[Row], out) -> None:
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


def _output(rows: list[Row], clock: _Clock) -> pa.RecordBatch:
    n = len(rows)
    kept = [row for row in rows if row.result is not None]
    missing = np.array([row.result is None for row in rows])
    scalars = np.full((n, 3), np.nan, dtype=np.float32)
    values = np.zeros(0, dtype=np.float32)
    lengths = np.zeros(n, dtype=np.int32)
    if kept:
        scalars[~missing] = np.stack([row.result[3] for row in kept])
        embeddings = np.stack([row.result[0] for row in kept])
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


def _out_of_memory(error: BaseException) -> bool:
    said = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in said
        for words in ("out of memory", "not enough memory", "can't allocate memory", "status_alloc_failed")
    )
