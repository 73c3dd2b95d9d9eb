"""Batches of positive pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tgq.errors import SourceError
from tgq.training.dataset import TrainingSet


class PairSampler:
    """Pairs of rows of one group that differ in picture and, where variants are known, in variant.

    A batch comes from one catalog, so that its negatives are worth telling apart. Catalogs are drawn in proportion to
    the square root of their groups, so that a small one is heard and not repeated to death.
    """

    def __init__(self, rows: TrainingSet, seed: int):
        self.rows, self.draw = rows, np.random.default_rng(seed)
        members: dict[tuple[str, str], list[int]] = {}
        for i, key in enumerate(zip(rows.catalog.tolist(), rows.group.tolist(), strict=True)):
            members.setdefault(key, []).append(i)
        self.groups: dict[str, list[np.ndarray]] = {}
        for (catalog, _), rows_ in members.items():
            if any(self._partners(i, np.array(rows_)).size for i in rows_):
                self.groups.setdefault(catalog, []).append(np.array(rows_))
        if sum(map(len, self.groups.values())) < 2:
            raise SourceError(f"{len(members)} groups, of which fewer than 2 have two different items",
                              "give a catalog whose group column says which items are relevant to each other")
        self.catalogs = sorted(self.groups)
        weight = np.sqrt([len(self.groups[c]) for c in self.catalogs])
        self.weight = weight / weight.sum()

    def _partners(self, row: int, members: np.ndarray) -> np.ndarray:
        r = self.rows
        other = (members != row) & ((r.image_index[members] != r.image_index[row]) | (r.image_index[row] < 0))
        return members[other & ((r.variant[members] != r.variant[row]) | (r.variant[row] == ""))]

    def batches(self, pairs: int, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """`steps` batches of row numbers `[pairs]` and their partners' `[pairs]`."""
        for _ in range(steps):
            groups = self.groups[self.draw.choice(self.catalogs, p=self.weight)]
            chosen = [self._pair(groups[g]) for g in self._groups(len(groups), pairs)]
            yield np.array([a for a, _ in chosen]), np.array([b for _, b in chosen])

    def _groups(self, count: int, pairs: int) -> np.ndarray:
        rounds = -(-pairs // count)
        return np.concatenate([self.draw.permutation(count) for _ in range(rounds)])[:pairs]

    def _pair(self, members: np.ndarray) -> tuple[int, int]:
        for row in self.draw.permutation(members):
            if (partners := self._partners(row, members)).size:
                return int(row), int(self.draw.choice(partners))
        raise AssertionError("a group without a pair was let in")


def known_pairs(rows: TrainingSet, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`[P, P]` bool: pairs of one group or one picture, which are no negatives."""
    image = rows.image_index
    same_image = (image[left][:, None] == image[right][None]) & (image[left][:, None] >= 0)
    return (rows.group[left][:, None] == rows.group[right][None]) | same_image
