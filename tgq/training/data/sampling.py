"""Sampling of positive pairs, and the pairs that must not count as negatives."""

from __future__ import annotations

import numpy as np

from tgq.errors import SourceError
from tgq.training.data.dataset import TrainingSet


class PairSampler:
    """Draws batches of positive pairs. A batch is a function of (seed, step), so every process and every restart draws the same.

    All pairs of a batch come from one catalog, because items of other catalogs are easy negatives, and from as many different
    groups as possible. A catalog is drawn with a probability proportional to the square root of its number of groups, so that a
    small catalog is neither neglected nor repeated too often.

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
            raise SourceError(f"{len(set(rows.group.tolist()))} groups for training, but {pairs} a positive pair of two different items",
                              "name a group column in catalog.columns.group_id, or a table of pairs in pairs.path")
        self.first, self.after = first, np.append(first[1:], len(group))
        catalog = rows.catalog[self.pairs[first, 0]]
        self.groups = [np.flatnonzero(catalog == name) for name in np.unique(catalog)]
        weight = np.sqrt([len(groups) for groups in self.groups])
        self.weight = weight / weight.sum()

    def batch(self, step: int, pairs: int) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of the queries `[pairs]` and of their positives `[pairs]`."""
        draw = np.random.default_rng([self.seed, step])
        groups = self.groups[draw.choice(len(self.groups), p=self.weight)]
        rounds = -(-pairs // len(groups))
        chosen = np.concatenate([draw.permutation(groups) for _ in range(rounds)])[:pairs]
        at = self.first[chosen] + (draw.random(pairs) * (self.after - self.first)[chosen]).astype(int)
        return self.pairs[at, 0], self.pairs[at, 1]


class ExcludedNegatives:
    """The pairs of rows that must not count as negatives of each other."""

    def __init__(self, rows: TrainingSet):
        self.rows = rows
        ends = np.concatenate([rows.pairs, rows.pairs[:, ::-1], rows.unjudged, rows.unjudged[:, ::-1]])
        self.codes = np.unique(ends[:, 0] * len(rows) + ends[:, 1])

    def mask(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """`[P, Q]` bool for row numbers `[P]` and `[Q]`: true if the pair must not count as a negative.

        This holds for rows of the same group or with the same image, for a positive or unjudged pair in either direction, and for
        a row with itself.
        """
        rows, image = self.rows, self.rows.image_index
        same_image = (image[left][:, None] == image[right][None]) & (image[left][:, None] >= 0)
        listed = np.isin(left[:, None] * len(rows) + right[None], self.codes)
        return (rows.group[left][:, None] == rows.group[right][None]) | same_image | listed | (left[:, None] == right[None])


def hard_negatives(rows: TrainingSet, queries: np.ndarray, count: int, excluded: ExcludedNegatives) -> np.ndarray:
    """Hard negatives for the row numbers `queries` `[P]`: at most P * count row numbers, without repeats.

    They are, for each query, the first `count` of its published neighbours that may count as negatives.
    """
    neighbors = [row[row >= 0] for row in rows.hard[queries]]
    chosen = [near[~excluded.mask(np.array([row]), near)[0]][:count] for row, near in zip(queries, neighbors, strict=True) if len(near)]
    return np.unique(np.concatenate(chosen)) if chosen else np.zeros(0, int)
