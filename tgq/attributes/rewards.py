"""The reward of generated attributes: Recall@k of the item as a query, against the pool of items under the frozen encoder (arXiv 2604.20135)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from tgq.encoder.features import Features
from tgq.encoder.model import TGQFormer
from tgq.training.data.dataset import TrainingSet
from tgq.training.validation import embed

K = 50  # the best one in the paper
POOL_SHARE = 0.01  # of a small pool, of which 50 items would be a large part
CHUNK = 64  # queries that are embedded together
Compose = Callable[[int, Mapping[str, str]], str]  # the metadata text of a row with these attributes in place of its own


def k_of(pool: int) -> int:
    """K, or POOL_SHARE of a pool in which that is less, at least 1."""
    return max(1, min(K, round(POOL_SHARE * pool)))


class RecallRewards:
    """Recall@k of items that have other attributes than their own, where the pool has its own ones.

    A query's own picture and unjudged items are not in its pool. What was rewarded once is remembered, because samples repeat, and a text's pass through
    the text tower is what costs.

    Args:
        encoder: frozen, in eval mode.
        rows: queries and pool; each row's positives are those of its pairs.
        compose: the text that the encoder reads.
        k: None: `k_of` the pool.
    """

    def __init__(self, encoder: TGQFormer, rows: TrainingSet, compose: Compose, k: int | None = None):
        self.encoder, self.rows, self.compose = encoder, rows, compose
        self.pool = embed(encoder, rows)
        self.k = k_of(len(rows)) if k is None else k
        self.positives = [np.zeros(0, int)] * len(rows)
        for row, ends in _by_first(rows.pairs).items():
            same = (rows.image_index[ends] == rows.image_index[row]) & (rows.image_index[row] >= 0)
            self.positives[row] = np.unique(ends[~same & (ends != row)])
        self._unjudged, self._known = _by_first(rows.unjudged), dict[tuple[int, str], float]()

    @property
    def queries(self) -> np.ndarray:
        """Numbers of the rows that have a positive."""
        return np.flatnonzero([len(ends) > 0 for ends in self.positives])

    def recall(self, queries: Sequence[int], attributes: Sequence[Mapping[str, str]]) -> np.ndarray:
        """`[Q]`: the share of a query's positives, or of k if there are more, that are among the k nearest items.

        Args:
            queries: row numbers, which may repeat.
            attributes: of each query.
        """
        keys = [(row, self.compose(row, own)) for row, own in zip(queries, attributes, strict=True)]
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        for start in range(0, len(new), CHUNK):
            part = new[start : start + CHUNK]
            self._known |= dict(zip(part, self._recall(part), strict=True))
        return np.array([self._known[key] for key in keys])

    def _recall(self, keys: Sequence[tuple[int, str]]) -> list[float]:
        vectors = self._vectors(np.array([row for row, _ in keys]), [text for _, text in keys])
        scores, found = vectors @ self.pool.T, []
        for (row, _), score in zip(keys, scores, strict=True):
            score[row] = -np.inf
            if self.rows.image_index[row] >= 0:
                score[self.rows.image_index == self.rows.image_index[row]] = -np.inf
            score[self._unjudged.get(row, [])] = -np.inf
            positives = self.positives[row]
            near = np.argpartition(-score, self.k - 1)[: self.k] if self.k < len(score) else np.arange(len(score))
            found.append(float(np.isin(positives, near).sum() / max(1, min(self.k, len(positives)))))
        return found

    @torch.no_grad()
    def _vectors(self, at: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Embeddings `[Q, De]` of rows with these metadata texts."""
        rows, unique = self.rows, list(dict.fromkeys(texts))
        place = {text: n for n, text in enumerate(unique)}
        index = torch.tensor([place[text] for text in texts])
        tokens, mask, pooled = (value.cpu()[index] for value in self.encoder.encode_text(unique))
        filled = torch.tensor([bool(text) for text in texts])
        image = np.maximum(rows.image_index[at], 0)
        has_image = torch.from_numpy(rows.image_index[at] >= 0)
        features = Features(
            torch.from_numpy(rows.image_tokens[image].astype(np.float32)), torch.from_numpy(rows.image[image]) * has_image[:, None], has_image,
            tokens * filled[:, None, None], mask & filled[:, None], pooled * filled[:, None], torch.from_numpy(rows.title[rows.title_index[at]]), tuple(texts),
        )  # fmt: skip
        return self.encoder.embed(features.to(self.encoder.null_image.device)).embedding.numpy()


def _by_first(pairs: np.ndarray) -> dict[int, np.ndarray]:
    """Second ends of pairs `[P, 2]` by first end."""
    found: dict[int, list[int]] = {}
    for first, second in pairs.reshape(-1, 2).tolist():
        found.setdefault(first, []).append(second)
    return {first: np.array(ends) for first, ends in found.items()}
