"""The embedding engine: fetches, decodes, preprocesses and encodes a stream of items, from Arrow batches to Arrow batches.

    input -----> window of groups -----> batch -----> encode -----> output
      (read and stacked on one thread,          (on the caller's thread)
       decoded on several)

A group is the rows of the window that share an image. Each image is fetched, decoded and encoded once per group. While the
model runs on one batch, the engine stacks the next batch and decodes the images of the batches after it. Memory holds the
window only, never the whole input. A row with cached tower features needs neither its image nor the towers.

With a grounder, a detector finds the product in the pictures of a batch, on the caller's thread, and the parts that are embedded are cut out
of the same decoded pictures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from tgq.encoder.features import Features
from tgq.encoder.packing import CachedImage, half, pack, pack_mask, pack_tokens
from tgq.grounding.box import FAILED, NO_PHRASE, Grounding, cropped, kept_whole
from tgq.images.decode import ImageError, ImageLimits, decode_image, one_line
from tgq.images.phash import fingerprint
from tgq.inference.batching import Batch, Decoded, Group, Row, Window
from tgq.inference.clock import Clock
from tgq.inference.grounder import Grounder, decode_for_crop
from tgq.inference.machine import is_out_of_memory, usable_cores
from tgq.inference.records import input_rows, output_batch, record_results

WINDOW_BATCHES = 4  # the window holds at most this many batches, however small the images


@dataclass(frozen=True)
class EngineOptions:
    """Batch size, parallelism and limits of the engine.

    Attributes:
        batch_tokens: visual plus text tokens in a batch. Every row counts with the full token count of both towers.
        prefetch_bytes: size of the decoded images that may wait for the model, in bytes.
        decode_threads: threads that fetch and decode images; 0: one per core that this process may use.
        model_threads: torch's threads for one operation; 0: torch's default.
        limits: the largest image that is decoded.
        output_tower_features: fill CACHE_COLUMNS of the output, for the feature cache.
    """

    batch_tokens: int = 8192
    prefetch_bytes: int = 512 * 1024 * 1024
    decode_threads: int = 0
    model_threads: int = 0
    limits: ImageLimits = field(default_factory=ImageLimits)
    output_tower_features: bool = False


class EmbeddingEngine:
    """Embeds streams of items with one encoder.

    Args:
        encoder: a TGQFormer in eval mode, on the device to run on.
        read: returns the bytes at a URI or raises ImageError; called on several threads at once.
        options: see EngineOptions.
        grounder: with it, pictures are cropped to what the rows' phrases name, and those of rows without a phrase are kept whole.

    Attributes:
        batch_rows: rows in a batch. An out-of-memory error halves it for the rest of the engine's life.

    The text tower's cost grows with the number of rows, the vision tower's with the number of distinct images. Memory:
    `prefetch_bytes` of decoded images, two batches of pixels, and the input batches that have rows in the window.
    """

    def __init__(self, encoder, read: Callable[[str], bytes], options: EngineOptions = EngineOptions(), grounder: Grounder | None = None):
        self.encoder, self.read, self.options, self.grounder = encoder, read, options, grounder
        self.device = next(encoder.parameters()).device
        tokens = encoder.vision.tokens_per_image + encoder.text.max_length
        self.batch_rows = max(1, options.batch_tokens // tokens)
        self._threads = options.decode_threads or usable_cores()

    def run(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield one output batch (OUTPUT_SCHEMA) per input batch that has rows, with the same rows in the same order.

        A row that cannot be embedded has the status 'quarantined' and a reason: one of ImageError's reasons,
        'no_image_and_no_text', 'out_of_memory' or 'non_finite'. Closing the generator ends its threads.

        Raises:
            Exception: any error of the input iterator, and any error of the model other than out-of-memory, because such an
                error does not belong to a single row.
        """
        if self.options.model_threads:
            torch.set_num_threads(self.options.model_threads)
        clock = Clock()
        unfinished: deque[list[Row]] = deque()
        decoders = self._decoders = ThreadPoolExecutor(self._threads, thread_name_prefix="tgq-decode")
        stacker = ThreadPoolExecutor(1, thread_name_prefix="tgq-stack")
        window = Window(input_rows(batches, unfinished), lambda row: decoders.submit(self._load_image, row))
        try:
            next_batch = stacker.submit(self._next_batch, window)
            while (batch := clock.timed("wait", next_batch.result)) is not None:
                next_batch = stacker.submit(self._next_batch, window)
                clock.timed("model", self._encode, batch)
                # In reverse order, because the last row of an unfinished batch is the least likely to be done.
                while unfinished and all(row.done for row in reversed(unfinished[0])):
                    yield output_batch(unfinished.popleft(), clock)
        finally:
            decoders.shutdown(cancel_futures=True)
            stacker.shutdown(cancel_futures=True)

    def _next_batch(self, window: Window) -> Batch | None:
        """Fill the window and build a batch from its first groups; None at the end of the input. Runs on the stacking thread."""
        image_bytes = 3 * 4 * self.encoder.vision.input_size**2
        capacity = min(self.options.prefetch_bytes // image_bytes, WINDOW_BATCHES * self.batch_rows)
        window.fill(max(capacity, self.batch_rows))
        groups = window.take(self.batch_rows)
        return self._stack(groups) if groups else None

    def _load_image(self, row: Row) -> Decoded | CachedImage | ImageError:
        """The row's picture or its cached features; an error is returned, never raised. Runs on a decode thread."""
        try:
            if row.cached_image:
                return CachedImage.unpack(*row.cached_image, self.encoder.vision.width)
            image_bytes = row.source.column("image_bytes")[row.index] if row.has_bytes else None
            if image_bytes is None:
                assert row.uri is not None  # a row without an image is not submitted
                data = self.read(row.uri)
            else:
                data = image_bytes.as_py()
            size = self.encoder.vision.input_size
            whole = self.grounder is None or row.phrase is None
            image = decode_image(data, self.options.limits, target=size) if whole else decode_for_crop(data, self.options.limits, size)
            code = fingerprint(image) if row.hash_wanted else None
            if self.grounder is None or whole:
                return Decoded(self._pixels(image), fingerprint=code)
            if row.known is None:
                return Decoded(None, image, fingerprint=code)
            grounding = self.grounder.decide(*row.known)
            return Decoded(self._pixels(cropped(image, grounding.crop)), None, grounding, code)
        except ImageError as error:
            return error
        except MemoryError:
            return ImageError("out_of_memory", "not enough memory to decode the image")
        except Exception as error:  # an unforeseen error quarantines this row and not the others
            return ImageError("unreadable", f"{type(error).__name__}: {one_line(error)}")

    def _pixels(self, image) -> np.ndarray:
        return self.encoder.vision.preprocess(image).numpy()

    def _grounding(self, row: Row, image: Decoded | CachedImage | None) -> Grounding | None:
        """What is embedded of the row's picture, as far as it is known before the detector is asked."""
        if self.grounder is None or image is None:
            return None
        if row.phrase is None:
            return kept_whole(NO_PHRASE)
        return image.grounding if isinstance(image, Decoded) else row.known and self.grounder.decide(*row.known)

    def _stack(self, groups: list[Group]) -> Batch:
        """Wait for the groups' images and copy the pixels of the decoded ones into one array."""
        rows: list[Row] = []
        index: list[int] = []
        decoded: list[Decoded] = []
        cached: dict[int, CachedImage] = {}
        undecided: dict[int, Image.Image] = {}
        for group in groups:
            number = -1  # of the group's image: one number, however many rows share the image
            for row, image in self._images(group):
                if isinstance(image, ImageError):
                    row.failure = image
                    continue
                if image is None and not row.metadata:
                    row.failure = ImageError("no_image_and_no_text", "the item has neither an image nor any text")
                    continue
                if image is not None and number < 0:
                    number = len(decoded) + len(cached)
                    if isinstance(image, CachedImage):
                        cached[number] = image
                    else:
                        decoded.append(image)
                        if image.picture is not None:
                            undecided[number] = image.picture
                row.grounding = self._grounding(row, image)
                row.fingerprint = image.fingerprint if isinstance(image, Decoded) else None
                rows.append(row)
                index.append(number)
        pixels = None
        if decoded:
            # Page-locked memory lets the copy to the GPU overlap with the model. numpy copies on this thread, whereas torch
            # would start a second set of threads.
            p = self.encoder.vision.preprocess
            pixels = torch.empty((len(decoded), 3, p.height, p.width), pin_memory=self.device.type == "cuda")
            array = pixels.numpy()
            for n, image in enumerate(decoded):
                if image.pixels is not None:
                    array[n] = image.pixels
        return Batch(rows, np.array(index, dtype=np.int64), pixels, cached, undecided)

    def _ground(self, batch: Batch) -> None:
        """Ask the detector for the undecided pictures of a batch, and fill in their pixels."""
        assert self.grounder is not None and batch.pixels is not None  # otherwise nothing is undecided
        of_number: dict[int, list[Row]] = {}
        for row, number in zip(batch.rows, batch.image_index.tolist(), strict=True):
            if number in batch.undecided:
                of_number.setdefault(number, []).append(row)
        numbers = list(batch.undecided)
        pictures = list(batch.undecided.values())
        decided = self.grounder(pictures, [of_number[number][0].phrase or "" for number in numbers])
        array = batch.pixels.numpy()
        for number, picture, grounding in zip(numbers, pictures, decided, strict=True):
            array[batch.place(number)] = self._pixels(cropped(picture, grounding.crop))
            for row in of_number[number]:
                row.grounding = grounding
        batch.undecided.clear()

    def _images(self, group: Group) -> Iterator[tuple[Row, Decoded | CachedImage | ImageError | None]]:
        """Each row with its image. If the group's URI failed, the URIs of its other rows are tried, each once."""
        if group.image is None:
            yield from ((row, None) for row in group.rows)
            return
        image = group.image.result()
        by_uri = {group.uri: image}
        for row in group.rows:
            if isinstance(image, ImageError) and row.uri not in by_uri and not row.has_bytes:
                by_uri[row.uri] = self._load_image(row)
            yield row, by_uri.get(row.uri, image)

    def _encode(self, batch: Batch) -> None:
        """Give every row of the batch its result or its failure. Out of memory, it goes on with half as many rows at a time."""
        if batch.undecided:
            self._ground(batch)
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
                # The recovery below must run outside this block, because the traceback keeps the failed batch's tensors alive.
                features = out = None
            if out is not None:
                record_results(batch.rows[start:stop], out)
                if self.options.output_tower_features and features is not None:
                    self._pack_features(batch.rows[start:stop], batch.image_index[start:stop], features)
                start = stop
                continue
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            if stop - start > 1:
                self.batch_rows = (stop - start) // 2
            else:
                batch.rows[start].failure = ImageError("out_of_memory", "this item alone does not fit into the device's memory")
                start = stop

    def _pack_features(self, rows: list[Row], image_numbers: np.ndarray, features: Features) -> None:
        """Pack new tower features on the decode threads, once for each image and once for each pair of metadata text and title."""
        image_tokens, text_tokens = half(features.image_tokens), half(features.text_tokens)
        mask, title = features.text_mask.cpu().numpy(), half(features.title)
        images_done, texts_done = set(), set()
        for i, row in enumerate(rows):
            if row.result is None:
                continue
            unsure = row.grounding is not None and row.grounding.reason == FAILED  # next time the detector may find something
            if row.has_image and not row.cached_image and not unsure and image_numbers[i] not in images_done:
                images_done.add(image_numbers[i])
                row.packed_image = self._decoders.submit(pack_tokens, image_tokens[i])
            if row.metadata and not row.cached_text and (row.metadata, row.title) not in texts_done:
                texts_done.add((row.metadata, row.title))
                row.packed_text = self._decoders.submit(_pack_text, text_tokens[i], mask[i], title[i])


def _pack_text(tokens: np.ndarray, mask: np.ndarray, title: np.ndarray) -> tuple[bytes, bytes, bytes]:
    return pack_tokens(tokens[mask]), pack_mask(mask), pack(title)
