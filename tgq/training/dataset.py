"""Items after the frozen towers, as arrays: all that training reads, so that no epoch runs a tower again."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tgq.encoder.features import Features
from tgq.encoder.model import TGQFormer
from tgq.encoder.text import metadata_text

TOWER_BATCH = 64
LABELS = ("group", "variant", "catalog", "item")  # a row's strings, in the order of the fields


@dataclass(frozen=True)
class Row:
    """An item to train on. Items of one group are relevant to each other, items of one variant trivially so."""

    group: str
    image: bytes | None
    title: str = ""
    brand: str = ""
    category: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    variant: str = ""  # rows of the same non-empty variant are never each other's positive
    catalog: str = ""  # a batch's negatives come from the same catalog
    item: str = ""  # its id

    def views(self, draw: random.Random) -> tuple[str, str]:
        """The metadata text as it is, and one that a careless shop would have written: fields dropped at random."""
        kept = {name: value for name, value in self.attributes.items() if draw.random() > 0.4}
        title = self.title if draw.random() > 0.3 else ""
        brand = self.brand if draw.random() > 0.4 else ""
        whole = metadata_text(self.title, self.brand, self.category, self.attributes)
        return whole, metadata_text(title, brand, self.category, kept) or whole


@dataclass(frozen=True)
class TrainingSet:
    """R rows over U unique pictures and T unique texts. About N * Dv * 2 bytes per picture (125 kB by default)."""

    image_tokens: np.ndarray  # [U, N, Dv] float16
    image: np.ndarray  # [U, Dg] float32
    text_tokens: np.ndarray  # [T, L, Dt] float16
    text_mask: np.ndarray  # [T, L] bool
    text: np.ndarray  # [T, Dp] float32
    texts: tuple[str, ...]  # T
    image_index: np.ndarray  # [R] int, -1 without picture
    metadata_index: np.ndarray  # [R, V] int, views of the metadata, the first as it is
    title_index: np.ndarray  # [R] int
    group: np.ndarray  # [R] str
    variant: np.ndarray  # [R] str
    catalog: np.ndarray  # [R] str
    item: np.ndarray  # [R] str, ids

    def __len__(self) -> int:
        return len(self.group)

    def features(self, rows: np.ndarray, view: np.ndarray | int = 0) -> Features:
        """The tower features of some rows, float32 on CPU; `view` chooses each row's metadata text."""
        at, seen = np.maximum(self.image_index[rows], 0), torch.from_numpy(self.image_index[rows] >= 0)
        said, titled = self.metadata_index[rows, view], self.title_index[rows]
        return Features(
            torch.from_numpy(self.image_tokens[at]).float(), torch.from_numpy(self.image[at]) * seen[:, None], seen,
            torch.from_numpy(self.text_tokens[said]).float(), torch.from_numpy(self.text_mask[said]),
            torch.from_numpy(self.text[said]), torch.from_numpy(self.text[titled]),
            tuple(self.texts[i] for i in said),
        )

    def subset(self, rows: np.ndarray) -> TrainingSet:
        """Some of the rows, over the same pictures and texts."""
        per_row = ("image_index", "metadata_index", "title_index", *LABELS)
        kept = {name: getattr(self, name)[rows] for name in per_row}
        return TrainingSet(**{**self.__dict__, **kept})

    @classmethod
    def build(
        cls, encoder: TGQFormer, rows: Iterable[Row], decode: Callable[[bytes], Image.Image], seed: int = 0
    ) -> TrainingSet:
        """Run both towers, once per unique picture and unique text.

        Args:
            decode: bytes to an RGB picture; whatever it raises leaves the row without a picture.
            seed: of the dropped fields in the second view.
        """
        draw, images, texts = random.Random(seed), _Images(encoder, decode), {"": 0}
        columns: dict[str, list] = {name: [] for name in ("image", "views", "title", *LABELS)}
        for row in rows:
            columns["image"].append(images.add(row.image))
            columns["views"].append([texts.setdefault(view, len(texts)) for view in row.views(draw)])
            columns["title"].append(texts.setdefault(metadata_text(row.title, "", "", None), len(texts)))
            for name in LABELS:
                columns[name].append(getattr(row, name))
        tokens, pooled = images.finish()
        return cls(
            tokens, pooled, *_texts(encoder, list(texts)), tuple(texts), np.array(columns["image"]),
            np.array(columns["views"]).reshape(-1, 2), np.array(columns["title"]),
            *(np.array(columns[name], dtype=str) for name in LABELS),
        )

    @classmethod
    def concatenate(cls, parts: list[TrainingSet]) -> TrainingSet:
        """Several sets as one; pictures and texts are not merged across them."""
        joined: dict = {name: np.concatenate([getattr(part, name) for part in parts]) for name in
                        ("image_tokens", "image", "text_tokens", "text_mask", "text", *LABELS)}
        pictures = np.cumsum([0, *(len(part.image) for part in parts)])
        words = np.cumsum([0, *(len(part.texts) for part in parts)])
        joined["image_index"] = np.concatenate(
            [np.where(part.image_index < 0, -1, part.image_index + start) for part, start in zip(parts, pictures, strict=False)])
        for name in ("metadata_index", "title_index"):
            joined[name] = np.concatenate([getattr(part, name) + start for part, start in zip(parts, words, strict=False)])
        return cls(texts=tuple(text for part in parts for text in part.texts), **joined)

    def save(self, path: str | Path) -> None:
        """Write to an uncompressed `.npz`."""
        np.savez(path, **{**self.__dict__, "texts": np.array(self.texts, dtype=str)})

    @classmethod
    def load(cls, path: str | Path) -> TrainingSet:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{**{name: arrays[name] for name in arrays.files}, "texts": tuple(map(str, arrays["texts"]))})


class _Images:
    """Unique pictures by their bytes' hash, through the vision tower a batch at a time."""

    def __init__(self, encoder: TGQFormer, decode: Callable[[bytes], Image.Image]):
        self.encoder, self.decode = encoder, decode
        self.place: dict[bytes, int] = {}
        self.waiting: list[torch.Tensor] = []
        self.tokens: list[np.ndarray] = []
        self.pooled: list[np.ndarray] = []

    def add(self, data: bytes | None) -> int:
        if data is None:
            return -1
        key = hashlib.sha256(data).digest()
        if key not in self.place:
            try:
                pixels = self.encoder.vision.preprocess(self.decode(data))
            except Exception:
                self.place[key] = -1
                return -1
            self.place[key] = sum(map(len, self.pooled)) + len(self.waiting)
            self.waiting.append(pixels)
            if len(self.waiting) == TOWER_BATCH:
                self._run()
        return self.place[key]

    def _run(self) -> None:
        device = self.encoder.null_image.device
        tokens, pooled = self.encoder.vision(torch.stack(self.waiting).to(device))
        self.tokens.append(tokens.cpu().numpy().astype(np.float16))
        self.pooled.append(pooled.float().cpu().numpy())
        self.waiting = []

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        if self.waiting:
            self._run()
        vision = self.encoder.vision
        if not self.pooled:
            return np.zeros((1, vision.tokens_per_image, vision.width), np.float16), np.zeros((1, vision.pooled_width), np.float32)
        return np.concatenate(self.tokens), np.concatenate(self.pooled)


def _texts(encoder: TGQFormer, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unique texts through the text tower, longest last, so that a batch is padded little."""
    tower, order = encoder.text, sorted(range(len(texts)), key=lambda i: len(texts[i]))
    tokens = np.zeros((len(texts), tower.max_length, tower.width), np.float16)
    mask = np.zeros((len(texts), tower.max_length), bool)
    pooled = np.zeros((len(texts), tower.pooled_width), np.float32)
    for start in range(0, len(order), TOWER_BATCH):
        part = order[start : start + TOWER_BATCH]
        token, kept, summary = (x.cpu().numpy() for x in tower([texts[i] for i in part]))
        tokens[part], mask[part], pooled[part] = token, kept, summary
    return tokens, mask, pooled
