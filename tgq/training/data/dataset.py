"""Items after the frozen towers, as arrays: all that training reads, so that no epoch runs a tower again."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from tgq.encoder.features import Features
from tgq.encoder.model import TGQFormer
from tgq.encoder.packing import CachedImage, CachedText
from tgq.encoder.text import metadata_text

TOWER_BATCH = 64
LOGITS_BATCH = 256
LABELS = ("group", "catalog", "item")  # a row's strings
PER_ROW = ("image_index", "metadata_index", "title_index", *LABELS)


@dataclass(frozen=True)
class Row:
    """An item to train on, with what the towers said of it."""

    item: str  # its id
    group: str  # the unit that is held out as one: its group, or itself
    catalog: str = ""  # a batch's negatives come from the same catalog
    image_hash: str | None = None  # rows with the same one show the same picture
    image: CachedImage | None = None
    text: CachedText | None = None
    metadata: str = ""  # the text that was read
    fields: Mapping[str, object] = field(default_factory=dict)  # title, brand, category, attributes: what it was made of

    def careless(self, draw: random.Random) -> str:
        """The metadata as a careless shop would have written it: fields dropped at random."""
        title, brand, attributes = (self.fields.get(name) for name in ("title", "brand", "attributes"))
        kept = {name: value for name, value in (attributes or {}).items() if draw.random() > 0.4}
        title = title if draw.random() > 0.3 else ""
        brand = brand if draw.random() > 0.4 else ""
        return metadata_text(title or "", brand or "", self.fields.get("category") or "", kept) or self.metadata


@dataclass(frozen=True)
class TrainingSet:
    """R rows over U unique pictures and T unique texts. About N * Dv * 2 bytes per picture (266 kB by default)."""

    image_tokens: np.ndarray  # [U, N, Dv] float16
    image: np.ndarray  # [U, Dg] float32
    text_tokens: np.ndarray  # [T, L, Dt] float16
    text_mask: np.ndarray  # [T, L] bool
    text: np.ndarray  # [T, Dp] float32
    texts: tuple[str, ...]  # T
    title: np.ndarray  # [K, Dp] float32, unique titles
    image_index: np.ndarray  # [R] int, -1 without picture
    metadata_index: np.ndarray  # [R, V] int, views of the metadata, the first as it is
    title_index: np.ndarray  # [R] int
    group: np.ndarray  # [R] str
    catalog: np.ndarray  # [R] str
    item: np.ndarray  # [R] str, ids
    pairs: np.ndarray  # [P, 2] int: row, and a row that answers it
    unjudged: np.ndarray  # [Q, 2] int: row, and one that is neither hit nor miss (weight 0)
    hard: np.ndarray  # [R, H] int: rows that a published model took for this one's neighbours, -1 for none
    attention_logits: np.ndarray | None = None  # [R, up to V, N] float32, see `with_attention_logits`

    def __len__(self) -> int:
        return len(self.group)

    def features(self, rows: np.ndarray, view: np.ndarray | int = 0) -> Features:
        """The tower features of some rows, float32 on CPU; `view` chooses each row's metadata text."""
        at, seen = np.maximum(self.image_index[rows], 0), torch.from_numpy(self.image_index[rows] >= 0)
        said = self.metadata_index[rows, view]
        guided = self.attention_logits is not None and np.max(view, initial=0) < self.attention_logits.shape[1]
        return Features(
            torch.from_numpy(self.image_tokens[at]).float(), torch.from_numpy(self.image[at]) * seen[:, None], seen,
            torch.from_numpy(self.text_tokens[said]).float(), torch.from_numpy(self.text_mask[said]),
            torch.from_numpy(self.text[said]), torch.from_numpy(self.title[self.title_index[rows]]),
            tuple(self.texts[i] for i in said), torch.from_numpy(self.attention_logits[rows, view]) if guided else None,
        )

    @torch.no_grad()
    def with_attention_logits(self, encoder: TGQFormer, views: int | None = None) -> TrainingSet:
        """The same, with what the encoder's anchor says of each row and of the first `views` of its metadata (none: all), which no
        training changes: half the cost of a pass. For encoders with this anchor only."""
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
        """Some of the rows (each once), over the same pictures and texts; pairs and neighbours that lose an end are dropped."""
        place = np.full(len(self) + 1, -1)
        place[rows] = np.arange(len(rows))  # and place[-1] stays -1
        kept: dict = {name: getattr(self, name)[rows] for name in PER_ROW}
        for name in ("pairs", "unjudged"):
            ends = place[getattr(self, name)]
            kept[name] = ends[(ends >= 0).all(1)]
        attention_logits = None if self.attention_logits is None else self.attention_logits[rows]
        return replace(self, **kept, hard=place[self.hard[rows]], attention_logits=attention_logits)

    @classmethod
    def build(
        cls, encoder: TGQFormer, rows: Iterable[Row], pairs: Iterable[tuple[str, str, float]] = (),
        neighbors: Mapping[str, Sequence[str]] = MappingProxyType({}), seed: int = 0,
    ) -> TrainingSet:  # fmt: skip
        """From rows, weighted pairs of ids (weight 0: not judged), and neighbours by id; ids that no row has are left out.

        The text tower runs here for the careless view of each row's metadata, and for what was not kept.
        """
        draw, images, titles = random.Random(seed), {}, {}
        texts: dict[str, CachedText | None] = {"": None}
        columns: dict[str, list] = {name: [] for name in PER_ROW}
        vision, text = encoder.vision, encoder.text
        for row in rows:
            if row.image is not None:
                images.setdefault(row.image_hash, (len(images), row.image))
            title = np.zeros(text.pooled_width, "<f2") if row.text is None else row.text.title
            careless = row.careless(draw)
            texts[row.metadata] = texts.get(row.metadata) or row.text
            texts.setdefault(careless, None)
            columns["image_index"].append(-1 if row.image is None else images[row.image_hash][0])
            columns["metadata_index"].append((row.metadata, careless))
            columns["title_index"].append(titles.setdefault(title.tobytes(), len(titles)))
            for name in LABELS:
                columns[name].append(getattr(row, name))
        place = {name: at for at, name in enumerate(texts)}
        seen = [image for _, image in images.values()]
        blank = CachedImage(np.zeros((vision.tokens_per_image, vision.width), "<f2"), np.zeros(vision.pooled_width, "<f2"))
        at = {item: n for n, item in enumerate(columns["item"])}
        known = [(at[q], at[p], weight) for q, p, weight in pairs if q in at and p in at]
        return cls(
            np.stack([image.tokens for image in seen or [blank]]), np.stack([image.pooled for image in seen or [blank]]).astype(np.float32),
            *_read(encoder, texts), tuple(texts),
            np.stack([np.frombuffer(title, "<f2") for title in titles] or [np.zeros(text.pooled_width)]).astype(np.float32),
            np.array(columns["image_index"], int), np.array([[place[view] for view in views] for views in columns["metadata_index"]], int).reshape(-1, 2),
            np.array(columns["title_index"], int), *(np.array(columns[name], dtype=str) for name in LABELS),
            *(np.array([(q, p) for q, p, weight in known if (weight > 0) == judged], int).reshape(-1, 2) for judged in (True, False)),
            _hard([[at[n] for n in neighbors.get(item, ()) if n in at] for item in columns["item"]]),
        )  # fmt: skip

    @classmethod
    def concatenate(cls, parts: list[TrainingSet]) -> TrainingSet:
        """Several sets as one; pictures and texts are not merged across them."""
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
        return cls(texts=tuple(text for part in parts for text in part.texts), **joined)

    def save(self, path: str | Path) -> None:
        """Write to an uncompressed `.npz`, whole or not at all."""
        partial = Path(path).with_suffix(".partial.npz")
        arrays = {name: value for name, value in self.__dict__.items() if name != "attention_logits"}
        np.savez(partial, **{**arrays, "texts": np.array(self.texts, dtype=str)})
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> TrainingSet:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{**{name: arrays[name] for name in arrays.files}, "texts": tuple(map(str, arrays["texts"]))})


def _hard(neighbors: list[list[int]]) -> np.ndarray:
    """Lists of rows as one array, -1 where a list has ended."""
    width = max(map(len, neighbors), default=0)
    return np.array([row + [-1] * (width - len(row)) for row in neighbors], int).reshape(len(neighbors), width)


def _read(encoder: TGQFormer, texts: Mapping[str, CachedText | None]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, mask and pooled feature of each text; what was not kept goes through the tower, longest last, so that a batch is padded little."""
    tower = encoder.text
    tokens = np.zeros((len(texts), tower.max_length, tower.width), np.float16)
    mask = np.zeros((len(texts), tower.max_length), bool)
    pooled = np.zeros((len(texts), tower.pooled_width), np.float32)
    names = list(texts)
    for i, kept in enumerate(texts.values()):
        if kept is not None:
            mask[i], pooled[i] = kept.mask, kept.pooled
            tokens[i, kept.mask] = kept.tokens
    fresh = sorted((i for i, kept in enumerate(texts.values()) if kept is None), key=lambda i: len(names[i]))
    for start in range(0, len(fresh), TOWER_BATCH):
        part = fresh[start : start + TOWER_BATCH]
        tokens[part], mask[part], pooled[part] = (x.cpu().numpy() for x in encoder.encode_text([names[i] for i in part]))
    return tokens, mask, pooled
