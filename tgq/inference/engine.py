"""Arrow batches of items in, of embeddings out: fetch, decode, preprocess and encode as one stream.

    input -----> window of groups -----> batch -----> encode -----> output
      (read and stacked on one thread,          (on the caller's thread)
       decoded on several)

A group is the rows that share a picture, so each picture is fetched and decoded once per window, and encoded
once. While the model runs on one batch, the next is being stacked and those after it are being decoded. Only
the window is held. A row that comes with the towers' features, kept by an earlier run, needs neither picture nor towers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch

from tgq.encoder.features import Features
from tgq.encoder.packing import StoredImage, half, pack, pack_mask, pack_tokens
from tgq.images.decode import ImageError, ImageLimits, decode_image
from tgq.inference.batching import Batch, Group, Row, Window
from tgq.inference.clock import Clock
from tgq.inference.machine import is_out_of_memory, usable_cores
from tgq.inference.records import input_rows, output_batch, record_results

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
        self._threads = options.decode_threads or usable_cores()

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
        clock = Clock()
        unfinished: deque[list[Row]] = deque()
        decoders = self._decoders = ThreadPoolExecutor(self._threads, thread_name_prefix="tgq-decode")
        stacker = ThreadPoolExecutor(1, thread_name_prefix="tgq-stack")
        window = Window(input_rows(batches, unfinished), lambda row: decoders.submit(self._picture, row))
        try:
            coming = stacker.submit(self._next, window)
            while (batch := clock.timed("wait", coming.result)) is not None:
                coming = stacker.submit(self._next, window)
                clock.timed("model", self._encode, batch)
                # From the end: its last row tells of an unfinished batch at once.
                while unfinished and all(row.done for row in reversed(unfinished[0])):
                    yield output_batch(unfinished.popleft(), clock)
        finally:
            decoders.shutdown(cancel_futures=True)
            stacker.shutdown(cancel_futures=True)

    def _next(self, window: Window) -> Batch | None:
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
            if stored is None:
                assert row.uri is not None  # a row without a picture is not submitted
                data = self.read(row.uri)
            else:
                data = stored.as_py()
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
            features: Features | None
            try:
                features = batch.features(self.encoder, start, stop)
                out = self.encoder.embed(features)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                features = out = None  # and leave this block: the traceback keeps the failed batch's tensors alive
            if out is not None:
                record_results(batch.rows[start:stop], out)
                if self.options.keep and features is not None:
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
