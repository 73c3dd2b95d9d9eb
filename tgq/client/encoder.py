"""The encoder from Python: pictures, texts or items in, unit vectors out. The vectors equal those of the nightly run."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tgq.catalog.fields import encoder_texts
from tgq.errors import ModelError, UsageError
from tgq.feeds import values
from tgq.settings.sections import EncoderSettings, MetadataSettings, Settings, WarehouseSettings

if TYPE_CHECKING:
    from PIL import Image

    from tgq.encoder.model import TGQFormer
    from tgq.query_tower.tower import QueryTower

    Picture = str | Path | bytes | Image.Image

KEYS = ("title", "brand", "category", "attributes", "image")


class Encoder:
    """A TGQ-Former encoder.

    Attributes:
        model_version: 16 hex digits, as in the tables.
        dim: De, the width of its vectors.
    """

    def __init__(self, model: TGQFormer, metadata: MetadataSettings | None = None, query_tower: Callable[[], QueryTower | None] = lambda: None):
        self._model, self._metadata, self._query_tower = model, metadata or MetadataSettings(), query_tower
        self.model_version, self.dim = model.model_version, model.config.dim

    def __repr__(self) -> str:
        return f"Encoder(model_version='{self.model_version}', dim={self.dim})"

    def encode(
        self,
        images: Sequence[Picture | None] | None = None,
        texts: Sequence[str | None] | None = None,
        items: Sequence[Mapping[str, Any]] | None = None,
        batch_size: int = 64,
    ) -> np.ndarray:
        """Unit vectors, float32 [n, De], in the order of the input.

        Args:
            images: pictures as paths, encoded bytes or PIL images; None for an item without one. As in the nightly run, a JPEG file is
                decoded at a reduced scale if the tower needs no more pixels. A PIL image is used with all its pixels.
            texts: titles. With `images`, the i-th title belongs to the i-th picture.
            items: dicts with any of title, brand, category ('a > b' or a list of levels), attributes (a dict or JSON text) and
                image, instead of images and texts. The vectors equal those of a nightly run with the same `metadata` settings.
            batch_size: items per forward pass.

        Raises:
            UsageError: there is nothing to encode, the lists differ in length, a key is unknown, a picture cannot be read, or an item
                has neither a picture nor a text. The message names the item's position.
        """
        from tgq.inference.engine import EmbeddingEngine, EngineOptions

        rows = self._rows(images, texts, items)
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}", "give at least 1")
        tokens = self._model.vision.tokens_per_image + self._model.text.max_length
        engine = EmbeddingEngine(self._model, _no_uri, EngineOptions(batch_tokens=batch_size * tokens))
        vectors = np.empty((len(rows), self.dim), np.float32)
        done = 0
        for out in engine.run(_batches(rows, batch_size)):
            for status, reason, detail in zip(*(out[name].to_pylist() for name in ("status", "reason", "detail")), strict=True):
                if status != "embedded":
                    raise UsageError(f"item {done} cannot be encoded: {reason.replace('_', ' ')} ({detail})", "correct it or leave it out")
                done += 1
            block = out["embedding"].flatten().to_numpy(zero_copy_only=False).reshape(out.num_rows, self.dim)
            vectors[done - out.num_rows : done] = block
        return vectors

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of what shoppers type, float32 [n, De], in the order of the input; compare them with item embeddings by inner product.

        The encoder's query tower embeds them, as `Warehouse.search` does. An encoder without one encodes each text as a title.

        Raises:
            UsageError: a query is no text, or is empty. The message names its position.
            ModelError: the query tower is incomplete, or was trained for another encoder.
        """
        if isinstance(texts, str):
            raise UsageError("the queries are one text", "give a list of texts")
        queries = list(texts)
        for n, text in enumerate(queries):
            if not isinstance(text, str):
                raise UsageError(f"query {n} has the type {type(text).__name__}", "give texts")
            if not text.strip():
                raise UsageError(f"query {n} is empty", "leave it out, or give at least a word")
        tower = self._query_tower()
        if tower is None:
            return self.encode(texts=queries)
        tower.config.need_fit(self.model_version)
        return tower.encode_queries(queries)

    def _rows(self, images: Sequence[Any] | None, texts: Sequence[Any] | None, items: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
        if items is not None:
            if images is not None or texts is not None:
                raise UsageError("items were given together with images or texts", "put title and image into the items")
            return [self._row(n, item) for n, item in enumerate(items)]
        if images is None and texts is None:
            raise UsageError("there is nothing to encode", "give images, texts or items")
        if images is not None and texts is not None and len(images) != len(texts):
            raise UsageError(f"there are {len(images)} images and {len(texts)} texts", "give lists of the same length, with None for a missing picture or text")
        n = len(images if images is not None else texts or ())
        pairs = zip(images if images is not None else [None] * n, texts if texts is not None else [None] * n, strict=True)
        return [self._row(i, {"image": image, "title": text}) for i, (image, text) in enumerate(pairs)]

    def _row(self, n: int, item: Mapping[str, Any]) -> dict[str, Any]:
        if unknown := [key for key in item if key not in KEYS]:
            raise UsageError(f"item {n} has the unknown key '{unknown[0]}'", f"use the keys {', '.join(KEYS)}")
        try:
            fields = {
                "title": item.get("title"), "brand": item.get("brand"), "category": values.category(item.get("category"), ">"),
                "attributes": values.attributes(item.get("attributes")),
            }  # fmt: skip
        except values.BadValue as e:
            raise UsageError(f"item {n}: {e}", "give text, or a list of category levels") from e
        metadata, title = encoder_texts(fields, self._metadata)
        return {"image_bytes": _image_bytes(n, item.get("image")), "metadata_text": metadata, "encoder_title": title}


def _image_bytes(n: int, image: Any) -> bytes | None:
    if image is None or isinstance(image, bytes):
        return image
    if isinstance(image, (str, Path)):
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise UsageError(f"the picture {image} of item {n} cannot be read ({error.strerror})", "give the path of a picture file") from None
    if hasattr(image, "save") and hasattr(image, "mode"):
        data = io.BytesIO()
        image.save(data, "PNG")  # lossless, so that the pixels stay as they are
        return data.getvalue()
    raise UsageError(f"the picture of item {n} has the type {type(image).__name__}", "give a path, bytes or a PIL image")


def _batches(rows: list[dict[str, Any]], size: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        columns = {"item_id": pa.array([str(start + i) for i in range(len(part))]), "image_uri": pa.nulls(len(part), pa.string()),
                   "image_hash": pa.nulls(len(part), pa.string()), "image_bytes": pa.array([row["image_bytes"] for row in part], pa.binary())}  # fmt: skip
        texts = {name: pa.array([row[name] for row in part], pa.string()) for name in ("metadata_text", "encoder_title")}
        yield pa.RecordBatch.from_pydict(columns | texts)


def _no_uri(uri: str) -> bytes:
    raise AssertionError(f"{uri} was requested, but all pictures are passed as bytes")


def load_encoder(
    path: str | Path = "default", *, device: str = "auto", dtype: str = "auto", metadata: MetadataSettings | Mapping[str, Any] | None = None
) -> Encoder:
    """Load an encoder.

    Args:
        path: `default` for the bundled encoder, an encoder's folder as `tgq train` writes it, or a warehouse. For a warehouse it is
            the encoder of the published vectors, or the champion if nothing is published.
        device: auto, cpu, cuda or `cuda:<index>`.
        dtype: auto, float32 or bfloat16.
        metadata: the metadata fields that the encoder reads, as in the section `metadata` of the settings; all by default.

    Raises:
        ModelError: there is no encoder at `path`.
        DeviceError: `device` is a GPU, and it is absent.

    Examples:
        >>> import tgq
        >>> tgq.load_encoder().encode(texts=["red running shoe"]).shape
        (1, 768)
    """
    from tgq.registry.loading import load_encoder as load
    from tgq.registry.loading import load_query_tower
    from tgq.registry.selection import named_folder, published_folder
    from tgq.retrieval.manifest import load_current

    name = str(path)
    if name != "default" and "://" not in name and not (Path(name).expanduser() / "config.json").is_file():
        root = str(Path(name).expanduser().resolve())
        if not Path(root, "index").is_dir() and not Path(root, "catalog_items").is_dir():
            raise ModelError(f"{name} is neither an encoder nor a warehouse", "give an encoder's folder, a warehouse, or 'default'")
        settings = Settings(warehouse=WarehouseSettings(path=root), encoder=EncoderSettings(path="champion"))
        folder = published_folder(settings, load_current(root))
    else:
        folder = named_folder(name)
    chosen = metadata if isinstance(metadata, MetadataSettings) or metadata is None else MetadataSettings.model_validate(dict(metadata))
    return Encoder(load(folder, device, dtype), chosen, lambda: load_query_tower(folder, device))
