"""Vectors of search queries on an executor: the night's own, and the frozen text tower's as a baseline.

Models are loaded once per worker process. Cost: a pass of the text checkpoint over at most its length in tokens a query, and without a
query tower a pass of the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tgq.encoder.text import metadata_text, normalise
from tgq.index.pool import MAIN
from tgq.query_tower.batching import by_length
from tgq.registry.loading import load_encoder, load_query_tower, load_text_tower, need_query_tower, shared_text_tower
from tgq.run.night import Night

if TYPE_CHECKING:
    from tgq.encoder.towers.text import TextTower

TEXT = "text"
TEXT_BATCH, ENCODER_BATCH = 256, 64


@dataclass(frozen=True)
class QueryEncoder:
    """Encodes queries with the models of an encoder's folder. It holds plain values only, so pickling it sends no weights."""

    folder: str
    device: str
    dtype: str

    @classmethod
    def of(cls, night: Night) -> QueryEncoder:
        """The encoder of the night's queries.

        Raises:
            ModelError: see `need_query_tower`.
        """
        need_query_tower(night.model_folder)
        return cls(night.model_folder, night.settings.encoder.device, night.settings.encoder.dtype)

    def all_vectors(self, kinds: Sequence[str], texts: Sequence[str]) -> dict[str, np.ndarray]:
        """As `vectors`, for several kinds. A query tower over the frozen text tower's own checkpoint takes its pooled features, so that each text
        goes through the checkpoint once."""
        frozen = shared_text_tower(self.folder, self.device) if texts and MAIN in kinds and TEXT in kinds else None
        tower = load_query_tower(self.folder, self.device) if frozen else None
        if frozen is None or tower is None:
            return {kind: self.vectors(kind, texts) for kind in kinds}
        pooled, same = _pooled(frozen, texts), tower.reads_as(frozen, texts)
        main = tower.encode_pooled(pooled)
        if len(others := np.flatnonzero(~same)):
            main[others] = tower.encode_queries([texts[int(at)] for at in others])
        return {kind: main if kind == MAIN else _unit(pooled) if kind == TEXT else self.vectors(kind, texts) for kind in kinds}

    def vectors(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, D], to be compared with the pool's vectors of this kind by inner product.

        kind: embedding: of the query tower, or without one of the encoder that reads the query as a title; text: of the frozen text tower.
        """
        if kind != MAIN:
            return _unit(_pooled(load_text_tower(self.folder, self.device), texts))
        tower = load_query_tower(self.folder, self.device)
        return self._of_encoder(texts) if tower is None else tower.encode_queries(list(texts))

    def _of_encoder(self, texts: Sequence[str]) -> np.ndarray:
        import torch

        encoder = load_encoder(self.folder, self.device, self.dtype)

        def encode(part: list[str]) -> np.ndarray:
            none = torch.full((len(part),), -1)
            return encoder.encode(None, none, [metadata_text(text, None, None, None) for text in part], [""] * len(part)).embedding.numpy()

        return by_length(texts, encode, ENCODER_BATCH)


def _pooled(tower: TextTower, texts: Sequence[str]) -> np.ndarray:
    """Pooled features of the texts as items have them, normalised; float32 [n, Dp]."""
    import torch

    def encode(part: list[str]) -> np.ndarray:
        with torch.no_grad():
            return tower.pooled([normalise(text) for text in part]).float().cpu().numpy()

    return by_length(texts, encode, TEXT_BATCH)


def _unit(pooled: np.ndarray) -> np.ndarray:
    import torch
    import torch.nn.functional as F

    return F.normalize(torch.from_numpy(pooled), dim=-1).numpy()
