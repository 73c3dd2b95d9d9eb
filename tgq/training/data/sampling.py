"""Batches of positive pairs, and what counts in them."""

from __future__ import annotations

import numpy as np

from tgq.errors import SourceError
from tgq.training.data.dataset import TrainingSet


class PairSampler:
    """Draws pairs of a training set. A batch follows from (seed, step) alone, so that any process and any restart draws the same.

    A batch comes from one catalog, so that its negatives are worth telling apart, and has as many different groups as there are.
    Catalogs are drawn in proportion to the square root of their groups, so that a small one is heard and not repeated to death.

    Raises:
        SourceError: fewer than two groups have a pair.
    """

    def __init__(self, rows: TrainingSet, seed: int):
        self.seed = seed
        group = np.char.add(np.char.add(rows.catalog, "\0"), rows.group)[rows.pairs[:, 0]]
        order = np.argsort(group, kind="stable")
        self.pairs = rows.pairs[order]
        names, first = np.unique(group[order], return_index=True)
        if len(names) < 2:
            pairs = "1 group has" if len(names) else "no group has"
            raise SourceError(f"{len(set(rows.group.tolist()))} groups for training, but {pairs} two different items that answer each other",
                              "name a group column in catalog.columns.group_id, or a table of pairs in pairs.path")
        self.first, self.after = first, np.append(first[1:], len(group))
        catalog = rows.catalog[self.pairs[first, 0]]
        self.groups = [np.flatnonzero(catalog == name) for name in np.unique(catalog)]
        weight = np.sqrt([len(groups) for groups in self.groups])
        self.weight = weight / weight.sum()

    def batch(self, step: int, pairs: int) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers `[pairs]` and their partners' `[pairs]`."""
        draw = np.random.default_rng([self.seed, step])
        groups = self.groups[draw.choice(len(self.groups), p=self.weight)]
        rounds = -(-pairs // len(groups))
        chosen = np.concatenate([draw.permutation(groups) for _ in range(rounds)])[:pairs]
        at = self.first[chosen] + (draw.random(pairs) * (self.after - self.first)[chosen]).astype(int)
        return self.pairs[at, 0], self.pairs[at, 1]


class Known:
    """Which rows must not count as each other's negatives."""

    def __init__(self, rows: TrainingSet):
        self.rows = rows
        ends = np.concatenate([rows.pairs, rows.pairs[:, ::-1], rows.unjudged, rows.unjudged[:, ::-1]])
        self.codes = np.unique(ends[:, 0] * len(rows) + ends[:, 1])

    def between(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """`[P, Q]` bool: of one group, of one picture, a pair in either direction, not judged, or one and the same row."""
        rows, image = self.rows, self.rows.image_index
        same_image = (image[left][:, None] == image[right][None]) & (image[left][:, None] >= 0)
        together = np.isin(left[:, None] * len(rows) + right[None], self.codes)
        return (rows.group[left][:, None] == rows.group[right][None]) | same_image | together | (left[:, None] == right[None])


def hard_negatives(rows: TrainingSet, left: np.ndarray, count: int, known: Known) -> np.ndarray:
    """`[<= P * count]` rows: of each row's published neighbours the first `count` that are not known to answer it, without repeats."""
    found = [row[row >= 0] for row in rows.hard[left]]
    kept = [near[~known.between(np.array([row]), near)[0]][:count] for row, near in zip(left, found, strict=True) if len(near)]
    return np.unique(np.concatenate(kept)) if kept else np.zeros(0, int)
