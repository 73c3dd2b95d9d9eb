"""The encoder as an object: pictures, texts or whole items in, unit vectors out, equal to a night's."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
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

    Picture = str | Path | bytes | Image.Image

KEYS = ("title", "brand", "category", "attributes", "image")


class Encoder:
    """A TGQ-Former encoder.

    Attributes:
        model_version: 16 hex digits, as in the tables.
        dim: De, the width of its vectors.
    """

    def __init__(self, model: TGQFormer, metadata: MetadataSettings | None = None):
        self._model, self._metadata = model, metadata or MetadataSettings()
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
            images: pictures as a path, encoded bytes, or a PIL image; None for an item without one. A JPEG given by path or bytes is
                decoded as in a night, at a reduced scale where the tower needs no more; a PIL image has all its pixels.
            texts: titles. With `images`, the i-th title belongs to the i-th picture.
            items: dicts with any of title, brand, category ('a > b' or a list of levels), attributes (a dict or JSON text) and
                image, in place of images and texts. They become the same vectors as in a night with the same `metadata` settings.
            batch_size: items that the model runs on at once.

        Raises:
            UsageError: nothing to encode, lists of different lengths, an unknown key, an unreadable picture, or an item
                with neither picture nor text; names the position.
        """
        from tgq.inference.engine import EmbeddingEngine, EngineOptions

        rows = self._rows(images, texts, items)
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}", "give a number above 0")
        tokens = self._model.vision.tokens_per_image + self._model.text.max_length
        engine = EmbeddingEngine(self._model, _no_uri, EngineOptions(batch_tokens=batch_size * tokens))
        vectors = np.empty((len(rows), self.dim), np.float32)
        done = 0
        for out in engine.run(_batches(rows, batch_size)):
            for status, reason, detail in zip(*(out[name].to_pylist() for name in ("status", "reason", "detail")), strict=True):
                if status != "embedded":
                    raise UsageError(f"item {done} cannot be encoded: {reason.replace('_', ' ')} ({detail})", "leave it out, or mend it")
                done += 1
            block = out["embedding"].flatten().to_numpy(zero_copy_only=False).reshape(out.num_rows, self.dim)
            vectors[done - out.num_rows : done] = block
        return vectors

    def _rows(self, images: Sequence[Any] | None, texts: Sequence[Any] | None, items: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
        if items is not None:
            if images is not None or texts is not None:
                raise UsageError("items were given beside images or texts", "put title and image into the items")
            return [self._row(n, item) for n, item in enumerate(items)]
        if images is None and texts is None:
            raise UsageError("there is nothing to encode", "give images, texts or items")
        if images is not None and texts is not None and len(images) != len(texts):
            raise UsageError(f"there are {len(images)} images and {len(texts)} texts", "give lists of one length, with None where an item has none")
        n = len(images if images is not None else texts or ())
        pairs = zip(images if images is not None else [None] * n, texts if texts is not None else [None] * n, strict=True)
        return [self._row(i, {"image": image, "title": text}) for i, (image, text) in enumerate(pairs)]

    def _row(self, n: int, item: Mapping[str, Any]) -> dict[str, Any]:
        if unknown := [key for key in item if key not in KEYS]:
            raise UsageError(f"item {n} has the key '{unknown[0]}'", f"known keys are {', '.join(KEYS)}")
        try:
            fields = {
                "title": item.get("title"), "brand": item.get("brand"), "category": values.category(item.get("category"), ">")[0],
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
            raise UsageError(f"the picture {image} of item {n} cannot be read ({error.strerror})", "name a picture file") from None
    if hasattr(image, "save") and hasattr(image, "mode"):
        data = io.BytesIO()
        image.save(data, "PNG")  # lossless, so that the pixels stay as they are
        return data.getvalue()
    raise UsageError(f"the picture of item {n} is a {type(image).__name__}", "give a path, bytes, or a PIL image")


def _batches(rows: list[dict[str, Any]], size: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        columns = {"item_id": pa.array([str(start + i) for i in range(len(part))]), "image_uri": pa.nulls(len(part), pa.string()),
                   "image_hash": pa.nulls(len(part), pa.string()), "image_bytes": pa.array([row["image_bytes"] for row in part], pa.binary())}  # fmt: skip
        texts = {name: pa.array([row[name] for row in part], pa.string()) for name in ("metadata_text", "encoder_title")}
        yield pa.RecordBatch.from_pydict(columns | texts)


def _no_uri(uri: str) -> bytes:
    raise AssertionError(f"{uri}: pictures come as bytes here")


def load_encoder(
    path: str | Path = "default", *, device: str = "auto", dtype: str = "auto", metadata: MetadataSettings | Mapping[str, Any] | None = None
) -> Encoder:
    """Load an encoder.

    Args:
        path: `default` for the bundled one, an encoder's folder (as `tgq train` writes it), or a warehouse: then the encoder that
            its published vectors were made with, or its champion before the first night.
        device: auto, cpu, cuda or cuda:<index>.
        dtype: auto, float32 or bfloat16.
        metadata: which metadata fields the encoder reads, as the section `metadata` of the night's settings; all by default.

    Raises:
        ModelError: there is no encoder at `path`.
        DeviceError: the GPU that was asked for is absent.

    >>> import tgq
    >>> tgq.load_encoder().encode(texts=["red running shoe"]).shape
    (1, 768)
    """
    from tgq.registry.loading import load_encoder as load
    from tgq.registry.selection import named_folder, published_folder
    from tgq.retrieval.manifest import load_current

    place = str(path)
    if place != "default" and "://" not in place and not (Path(place).expanduser() / "config.json").is_file():
        root = str(Path(place).expanduser().resolve())
        if not Path(root, "index").is_dir() and not Path(root, "catalog_items").is_dir():
            raise ModelError(f"{place} holds neither an encoder nor a warehouse", "name an encoder's folder, a warehouse, or 'default'")
        settings = Settings(warehouse=WarehouseSettings(path=root), encoder=EncoderSettings(path="champion"))
        folder = published_folder(settings, load_current(root))
    else:
        folder = named_folder(place)
    chosen = metadata if isinstance(metadata, MetadataSettings) or metadata is None else MetadataSettings.model_validate(dict(metadata))
    return Encoder(load(folder, device, dtype), chosen)
