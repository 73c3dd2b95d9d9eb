"""The training set: cached tower features, groups and pairs of items as arrays. Training reads nothing else and runs no tower."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from tgq.encoder.features import Features
from tgq.encoder.model import TGQFormer
from tgq.encoder.packing import CachedImage, CachedText
from tgq.encoder.text import metadata_text
from tgq.training.data.scenes import Banks, SceneParts

TOWER_BATCH = 64
LOGITS_BATCH = 256
LABELS = ("group", "catalog", "item")  # a row's strings
PER_ROW = ("image_index", "metadata_index", "title_index", *LABELS)
OPTIONAL_PER_ROW = ("attention_logits", "category")
NESTED: dict[str, type] = {"parts": SceneParts, "banks": Banks}  # fields that are groups of arrays


@dataclass(frozen=True)
class Row:
    """An item to train on, with its cached tower features."""

    item: str  # item id
    group: str  # the unit of the split into training and validation: the item's group id, or its item id without a group
    catalog: str = ""  # the negatives of a batch come from the same catalog
    image_hash: str | None = None  # rows with the same hash have the same image
    image: CachedImage | None = None
    text: CachedText | None = None
    metadata: str = ""  # the metadata text
    fields: Mapping[str, Any] = field(default_factory=dict)  # title, brand, category, attributes, from which the text was made
    parts: np.ndarray | None = None  # float16 tokens of the image as a part of scenes, see PartsTower; None: unknown

    def incomplete_metadata(self, draw: random.Random) -> str:
        """A metadata text with randomly dropped fields, as in a carelessly kept catalog."""
        title, brand, attributes = (self.fields.get(name) for name in ("title", "brand", "attributes"))
        attributes = {name: value for name, value in (attributes or {}).items() if draw.random() > 0.4}
        title = title if draw.random() > 0.3 else ""
        brand = brand if draw.random() > 0.4 else ""
        return metadata_text(title or "", brand or "", self.fields.get("category") or "", attributes) or self.metadata


@dataclass(frozen=True)
class TrainingSet:
    """R rows over U unique images, T unique texts and K unique titles. Memory: N * Dv * 2 bytes per image (266 kB by default)."""

    image_tokens: np.ndarray  # [U, N, Dv] float16
    image: np.ndarray  # [U, Dg] float32
    text_tokens: np.ndarray  # [T, L, Dt] float16
    text_mask: np.ndarray  # [T, L] bool
    text: np.ndarray  # [T, Dp] float32
    texts: tuple[str, ...]  # T metadata texts
    title: np.ndarray  # [K, Dp] float32
    image_index: np.ndarray  # [R] int, row of `image`; -1: no image
    metadata_index: np.ndarray  # [R, V] int, rows of `text`; V views of the metadata, the first is the unchanged one
    title_index: np.ndarray  # [R] int, row of `title`
    group: np.ndarray  # [R] str
    catalog: np.ndarray  # [R] str
    item: np.ndarray  # [R] str, ids
    pairs: np.ndarray  # [P, 2] int: query row and positive row
    unjudged: np.ndarray  # [Q, 2] int: query row and a row that is neither positive nor negative (weight 0)
    hard: np.ndarray  # [R, H] int: neighbours of the row under the published model, padded with -1
    attention_logits: np.ndarray | None = None  # [R, up to V, N] float32; not saved, see `with_attention_logits`
    category: np.ndarray | None = None  # [R] str; composed scenes choose other products by it
    parts: SceneParts | None = None  # of the U images; None: no scenes can be composed
    banks: Banks | None = None  # backgrounds and banners of scenes

    def __len__(self) -> int:
        return len(self.group)

    def features(self, rows: np.ndarray, view: np.ndarray | int = 0, metadata_of: np.ndarray | None = None) -> Features:
        """Tower features of B rows, float32 on CPU.

        Args:
            rows: `[B]`, row numbers.
            view: the metadata view of each row.
            metadata_of: `[B]`, the rows whose metadata and title are shown with each picture; None: its own. Precomputed attention logits
                are those of the own metadata.
        """
        told = rows if metadata_of is None else metadata_of
        image_at, has_image = np.maximum(self.image_index[rows], 0), torch.from_numpy(self.image_index[rows] >= 0)
        text_at = self.metadata_index[told, view]
        logits = self.attention_logits
        if logits is not None and np.max(view, initial=0) >= logits.shape[1]:
            logits = None
        return Features(
            torch.from_numpy(self.image_tokens[image_at]).float(), torch.from_numpy(self.image[image_at]) * has_image[:, None], has_image,
            torch.from_numpy(self.text_tokens[text_at]).float(), torch.from_numpy(self.text_mask[text_at]),
            torch.from_numpy(self.text[text_at]), torch.from_numpy(self.title[self.title_index[told]]),
            tuple(self.texts[i] for i in text_at), None if logits is None else torch.from_numpy(logits[rows, view]),
        )

    @torch.no_grad()
    def with_attention_logits(self, encoder: TGQFormer, views: int | None = None) -> TrainingSet:
        """A copy with precomputed attention logits of the encoder's anchor, for the first `views` metadata views (None: all).

        Training does not change the anchor, and computing its logits is half the cost of a pass of the encoder. The copy is
        valid only for encoders with the same anchor.
        """
        if encoder.anchor is None:
            return replace(self, attention_logits=None)
        views = views or self.metadata_index.shape[1]
        logits = np.zeros((len(self), views, encoder.vision.tokens_per_image), np.float32)
        fresh = replace(self, attention_logits=None)
        for rows in np.array_split(np.arange(len(self)), -(-len(self) // LOGITS_BATCH)):
            for view in range(views):
                logits[rows, view] = encoder.attention_logits(fresh.features(rows, view).to(encoder.null_image.device)).cpu()
        return replace(self, attention_logits=logits)

    def subset(self, rows: np.ndarray) -> TrainingSet:
        """The given row numbers (each once) as a training set over the same images and texts.

        Pairs and neighbours with an end outside of the subset are dropped.
        """
        place = np.full(len(self) + 1, -1)
        place[rows] = np.arange(len(rows))  # place[-1] stays -1
        changed: dict = {name: getattr(self, name)[rows] for name in PER_ROW}
        for name in ("pairs", "unjudged"):
            ends = place[getattr(self, name)]
            changed[name] = ends[(ends >= 0).all(1)]
        for name in OPTIONAL_PER_ROW:
            changed[name] = None if getattr(self, name) is None else getattr(self, name)[rows]
        return replace(self, **changed, hard=place[self.hard[rows]])

    @classmethod
    def build(
        cls, encoder: TGQFormer, rows: Iterable[Row], pairs: Iterable[tuple[str, str, float]] = (),
        neighbors: Mapping[str, Sequence[str]] = MappingProxyType({}), seed: int = 0,
    ) -> TrainingSet:  # fmt: skip
        """Build a training set. The text tower runs on the second metadata view of each row and on texts that are not cached.

        Args:
            encoder: the encoder whose text tower runs.
            rows: the items.
            pairs: (query id, positive id, weight); weight 0 means unjudged. Pairs with an id of no row are left out.
            neighbors: ids of the published neighbours by item id; ids of no row are left out.
            seed: of the fields that are dropped in the second metadata view.
        """
        draw = random.Random(seed)
        images: dict[str | None, tuple[int, CachedImage, np.ndarray | None]] = {}
        titles: dict[bytes, int] = {}
        texts: dict[str, CachedText | None] = {"": None}
        columns: dict[str, list] = {name: [] for name in (*PER_ROW, "category")}
        vision, text = encoder.vision, encoder.text
        for row in rows:
            if row.image is not None:
                images.setdefault(row.image_hash, (len(images), row.image, row.parts))
            title = np.zeros(text.pooled_width, "<f2") if row.text is None else row.text.title
            incomplete = row.incomplete_metadata(draw)
            texts[row.metadata] = texts.get(row.metadata) or row.text
            texts.setdefault(incomplete, None)
            columns["image_index"].append(-1 if row.image is None else images[row.image_hash][0])
            columns["metadata_index"].append((row.metadata, incomplete))
            columns["title_index"].append(titles.setdefault(title.tobytes(), len(titles)))
            for name in LABELS:
                columns[name].append(getattr(row, name))
            columns["category"].append(row.fields.get("category") or "")
        place = {name: at for at, name in enumerate(texts)}
        unique_images = [image for _, image, _ in images.values()]
        blank = CachedImage(np.zeros((vision.tokens_per_image, vision.width), "<f2"), np.zeros(vision.pooled_width, "<f2"))
        at = {item: n for n, item in enumerate(columns["item"])}
        rows_of_pairs = [(at[q], at[p], weight) for q, p, weight in pairs if q in at and p in at]
        labels = {name: np.array(columns[name], dtype=str) for name in LABELS}
        judged, unjudged = (np.array([(q, p) for q, p, weight in rows_of_pairs if (weight > 0) == kept], int).reshape(-1, 2) for kept in (True, False))
        return cls(
            np.stack([image.tokens for image in unique_images or [blank]]),
            np.stack([image.pooled for image in unique_images or [blank]]).astype(np.float32),
            *text_features(encoder, texts), tuple(texts),
            np.stack([np.frombuffer(title, "<f2") for title in titles] or [np.zeros(text.pooled_width)]).astype(np.float32),
            np.array(columns["image_index"], int), np.array([[place[view] for view in views] for views in columns["metadata_index"]], int).reshape(-1, 2),
            np.array(columns["title_index"], int), labels["group"], labels["catalog"], labels["item"], judged, unjudged,
            _padded([[at[n] for n in neighbors.get(item, ()) if n in at] for item in columns["item"]]),
            category=np.array(columns["category"], dtype=str), parts=SceneParts.of([parts for _, _, parts in images.values()]),
        )  # fmt: skip

    @classmethod
    def concatenate(cls, parts: list[TrainingSet]) -> TrainingSet:
        """Several training sets as one. Images and texts that occur in several sets are not merged.

        Categories and parts of scenes are kept if all sets have them; banks are those of the first set.
        """
        joined: dict = {name: np.concatenate([getattr(part, name) for part in parts]) for name in
                        ("image_tokens", "image", "text_tokens", "text_mask", "text", "title", *LABELS)}
        first = {of: np.cumsum([0, *(len(getattr(part, of)) for part in parts)]) for of in ("image", "texts", "title", "group")}
        indices = {"image_index": "image", "metadata_index": "texts", "title_index": "title", "pairs": "group", "unjudged": "group", "hard": "group"}
        width = max(part.hard.shape[1] for part in parts)
        for name, of in indices.items():
            values = [getattr(part, name) for part in parts]
            if name == "hard":
                values = [np.pad(value, ((0, 0), (0, width - value.shape[1])), constant_values=-1) for value in values]
            joined[name] = np.concatenate([np.where(value < 0, -1, value + start) for value, start in zip(values, first[of], strict=False)])
        categories = [part.category for part in parts if part.category is not None]
        return cls(
            texts=tuple(text for part in parts for text in part.texts), category=np.concatenate(categories) if len(categories) == len(parts) else None,
            parts=SceneParts.concatenate([part.parts for part in parts]), banks=parts[0].banks, **joined,
        )  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write an uncompressed `.npz` file atomically. Attention logits are not written."""
        partial = Path(path).with_suffix(".partial.npz")
        arrays = {name: value for name, value in self.__dict__.items() if name not in ("attention_logits", *NESTED) and value is not None}
        for name in NESTED:
            if (value := getattr(self, name)) is not None:
                arrays |= {f"{name}.{inner}": array for inner, array in vars(value).items()}
        np.savez(partial, **{**arrays, "texts": np.array(self.texts, dtype=str)})
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> TrainingSet:
        """Read a file that `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            values: dict[str, Any] = {name: arrays[name] for name in arrays.files if "." not in name}
            for name, kind in NESTED.items():
                inner = {key.partition(".")[2]: arrays[key] for key in arrays.files if key.startswith(f"{name}.")}
                values[name] = kind(**inner) if inner else None
            return cls(**{**values, "texts": tuple(map(str, values["texts"]))})


def _padded(neighbors: list[list[int]]) -> np.ndarray:
    """Lists of row numbers as one array `[R, H]`, padded with -1."""
    width = max(map(len, neighbors), default=0)
    return np.array([row + [-1] * (width - len(row)) for row in neighbors], int).reshape(len(neighbors), width)


def text_features(encoder: TGQFormer, texts: Mapping[str, CachedText | None]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens `[T, L, Dt]`, mask `[T, L]` and pooled feature `[T, Dp]` of each text.

    Texts without cached features go through the text tower, sorted by length so that a batch has little padding.
    """
    tower = encoder.text
    tokens = np.zeros((len(texts), tower.max_length, tower.width), np.float16)
    mask = np.zeros((len(texts), tower.max_length), bool)
    pooled = np.zeros((len(texts), tower.pooled_width), np.float32)
    names = list(texts)
    for i, cached in enumerate(texts.values()):
        if cached is not None:
            mask[i], pooled[i] = cached.mask, cached.pooled
            tokens[i, cached.mask] = cached.tokens
    uncached = sorted((i for i, cached in enumerate(texts.values()) if cached is None), key=lambda i: len(names[i]))
    for start in range(0, len(uncached), TOWER_BATCH):
        part = uncached[start : start + TOWER_BATCH]
        tokens[part], mask[part], pooled[part] = (x.cpu().numpy() for x in encoder.encode_text([names[i] for i in part]))
    return tokens, mask, pooled
