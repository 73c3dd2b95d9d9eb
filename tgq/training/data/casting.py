"""Draws what composed scenes show: the item, other products of its catalog, a background and perhaps a banner."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tgq.errors import SourceError
from tgq.training.data.dataset import TrainingSet
from tgq.training.data.sampling import ExcludedNegatives
from tgq.training.data.scenes import QUARTERS, Cast, compose

OTHERS = (1, 1, 2, 3)  # other products in a scene, equally likely; as in tgq.nuisances.scenery.scene
BANNERS = 0.3  # share of the scenes that have one
AT_ONCE = 64  # scenes that are composed at once
TRIES = 16  # draws of another product before the wish for its category is dropped, and then before it is left out


class Casting:
    """Casts for the items of a training set.

    The other products are of other groups and are no positives of the item; unjudged ones are left out too.

    Args:
        rows: a training set with parts and banks.
        share: share of the items that are shown in a scene.
        same_category: share of the other products that are of the item's category, as far as there are any; the rest is of other
            categories.

    Raises:
        SourceError: the training set has no parts of scenes.
    """

    def __init__(self, rows: TrainingSet, share: float, same_category: float):
        if rows.parts is None or rows.banks is None:
            raise SourceError("scene_share is above 0, but the training set has no parts of scenes", "build it with parts and banks, or set scene_share=0")
        self.rows, self.share, self.same_category = rows, share, same_category
        self.known, self.codes = rows.parts.known, ExcludedNegatives(rows).codes
        self.backgrounds, self.banners = len(rows.banks.backgrounds), len(rows.banks.banners)
        categories = np.zeros(len(rows), int) if rows.category is None else np.unique(rows.category, return_inverse=True)[1]
        self.group, self.catalog = (np.unique(labels, return_inverse=True)[1] for labels in (rows.group, rows.catalog))
        self.category = np.unique(np.stack([self.catalog, categories], 1), axis=0, return_inverse=True)[1].reshape(-1)
        usable = np.flatnonzero(self._has_parts(np.arange(len(rows))))
        self.of_catalog, self.of_category = (_members(labels, usable) for labels in (self.catalog, self.category))

    def draw(self, items: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, Cast]:
        """Choose items for scenes and cast them.

        Args:
            items: `[B]` row numbers.
            draw: the source of every random choice.

        Returns:
            For each item the number of its scene `[B]`, -1 for items that are shown as they are; and the scenes' cast. Items
            without parts, and those of a catalog without other products, have no scene.
        """
        place: np.ndarray = np.full(len(items), -1)
        shown: list[np.ndarray] = []
        quarters: list[int] = []
        for at in np.flatnonzero((draw.random(len(items)) < self.share) & self._has_parts(items)):
            order, others = draw.permutation(QUARTERS), self._others(int(items[at]), draw)
            if others:
                place[at] = len(shown)
                pictures = np.full(QUARTERS, -1)
                pictures[order[: 1 + len(others)]] = self.rows.image_index[[items[at], *others]]
                shown.append(pictures)
                quarters.append(order[0])
        count = len(shown)
        banner = np.where(draw.random(count) < BANNERS, draw.integers(0, max(1, self.banners), count), -1) if self.banners else np.full(count, -1)
        return place, Cast(np.array(shown, int).reshape(-1, QUARTERS), np.array(quarters, int), draw.integers(0, self.backgrounds, count), banner)

    def applied(self, seed: int) -> TrainingSet:
        """The training set with the chosen share of its items in scenes, each composed once, in place of their pictures.

        It has no parts of scenes and no attention logits. Memory: the tokens of all pictures again, and those of the scenes.
        """
        rows = self.rows
        assert rows.parts is not None and rows.banks is not None  # checked by the constructor
        place, cast = self.draw(np.arange(len(rows)), np.random.default_rng([seed, 0, 3]))
        composed = np.flatnonzero(place >= 0)
        tokens = np.empty((len(composed), *rows.image_tokens.shape[1:]), rows.image_tokens.dtype)
        pooled = np.empty((len(composed), rows.image.shape[1]), rows.image.dtype)
        for start in range(0, len(composed), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            scenes = compose(rows.parts, rows.banks, cast.part(part))
            tokens[part], pooled[part] = scenes.tokens.numpy(), scenes.pooled.numpy()
        index = rows.image_index.copy()
        index[composed] = len(rows.image) + place[composed]
        return replace(rows, image_tokens=np.concatenate([rows.image_tokens, tokens]), image=np.concatenate([rows.image, pooled]), image_index=index,
                       parts=None, attention_logits=None)  # fmt: skip

    def _others(self, item: int, draw: np.random.Generator) -> list[int]:
        """Row numbers of the other products in the item's scene, each with a picture of its own."""
        chosen: list[int] = []
        for _ in range(OTHERS[draw.integers(len(OTHERS))]):
            same = draw.random() < self.same_category
            other = self._other(item, chosen, draw, same) if same else None
            other = self._other(item, chosen, draw, False) if other is None else other
            other = self._other(item, chosen, draw, None) if other is None else other
            if other is not None:
                chosen.append(other)
        return chosen

    def _other(self, item: int, chosen: list[int], draw: np.random.Generator, same: bool | None) -> int | None:
        """One more product: of the item's category, of another one, or of any (None). None if TRIES draws find none."""
        pool = self.of_category[self.category[item]] if same else self.of_catalog[self.catalog[item]]
        image = self.rows.image_index
        pictures = image[[item, *chosen]]
        for other in pool[draw.integers(0, len(pool), TRIES)].tolist():
            fits = same is None or same == (self.category[other] == self.category[item])
            if fits and self.group[other] != self.group[item] and image[other] not in pictures and not self._listed(item, other):
                return other
        return None

    def _listed(self, item: int, other: int) -> bool:
        """Whether the two are a positive or unjudged pair."""
        code = item * len(self.rows) + other
        at = int(self.codes.searchsorted(code))
        return at < len(self.codes) and self.codes[at] == code

    def _has_parts(self, items: np.ndarray) -> np.ndarray:
        """`[B]` bool: the item's picture has parts."""
        image = self.rows.image_index[items]
        return (image >= 0) & self.known[image]


def _members(labels: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """For each label number the given rows that have it."""
    order = rows[np.argsort(labels[rows], kind="stable")]
    return np.split(order, np.searchsorted(labels[order], np.arange(1, labels.max(initial=0) + 1)))
