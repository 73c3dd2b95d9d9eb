"""Scenes with several products, composed of tower tokens. No tower runs.

A cell of a scene is approximated by the cell of the same product at the same size in another place (`PartsTower`). A CNN's cell sees
beyond its own part of the image, so cells at the border of a product differ most from those of a rendered scene. With the default tower
the mean cosine is 0.80 over all cells of a product and 0.87 without its border, and 0.2 for cells of another product
(`tests/training/data/test_scenes.py`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SERIAL = 32_000  # values that are copied at once: torch shares larger copies between its threads, which costs more than it saves here
QUARTERS = 4  # in reading order, like the close-ups


@dataclass(frozen=True)
class SceneParts:
    """What the tower says of U pictures at half size, from `PartsTower`. A picture that could not be read is not `known`."""

    half: np.ndarray  # [U, h, h, Dv] float16, the cells of the picture at half size
    closeup: np.ndarray  # [U, Dv] float16, the close-up of a quarter that the picture fills; zeros if the tower has no close-ups
    known: np.ndarray  # [U] bool

    @classmethod
    def of(cls, pictures: Sequence[np.ndarray | None]) -> SceneParts | None:
        """From the tokens `[h * h, Dv]` or `[h * h + 1, Dv]` of each picture, as `PartsTower` returns them; None if there are none at all."""
        shape = next((tokens.shape for tokens in pictures if tokens is not None), None)
        if shape is None:
            return None
        side, blank = math.isqrt(shape[0]), np.zeros(shape, np.float16)
        tokens = np.stack([blank if tokens is None else tokens for tokens in pictures])
        closeup = tokens[:, -1] if shape[0] > side**2 else np.zeros((len(tokens), shape[1]), np.float16)
        known = np.array([tokens is not None for tokens in pictures])
        return cls(tokens[:, : side**2].reshape(-1, side, side, shape[1]), closeup, known)

    @classmethod
    def concatenate(cls, parts: Sequence[SceneParts | None]) -> SceneParts | None:
        """The parts of several sets of pictures, one after the other; None if a set has none."""
        given = [part for part in parts if part is not None]
        return None if len(given) < len(parts) else cls(*(np.concatenate([getattr(part, f.name) for part in given]) for f in fields(cls)))


@dataclass(frozen=True)
class Banks:
    """What else scenes show: K backgrounds and M banners, as cells of whole pictures; n is the side of the tower's grid."""

    backgrounds: np.ndarray  # [K, n, n, Dv] float16
    closeups: np.ndarray  # [K, 4, Dv] float16, of the backgrounds; [K, 0, Dv] if the tower has none
    banners: np.ndarray  # [M, n, n, Dv] float16
    rows: np.ndarray  # [M, 2] int, the first row of cells that a banner covers, and the row after its last one

    def save(self, path: Path) -> None:
        """Write an uncompressed `.npz` file atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(partial, **self.__dict__)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Banks:
        """Read a file that `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in arrays.files})


@dataclass(frozen=True)
class Cast:
    """What each of B scenes shows. Everything that is random about a scene is here."""

    shown: np.ndarray  # [B, 4] int, the picture in each quarter, a row of SceneParts; -1: none
    quarter: np.ndarray  # [B] int, the quarter that shows the item; the other pictures are of other products
    background: np.ndarray  # [B] int, row of Banks.backgrounds
    banner: np.ndarray  # [B] int, row of Banks.banners; -1: none

    def __len__(self) -> int:
        return len(self.quarter)

    def part(self, scenes: np.ndarray | slice) -> Cast:
        """The given scenes only."""
        return Cast(*(getattr(self, f.name)[scenes] for f in fields(self)))


@dataclass(frozen=True)
class Scenes:
    """Vision features of B composed scenes, like those of pictures, and where the item is."""

    tokens: Tensor  # [B, N, Dv] float32: n * n cells row by row, then the close-ups
    pooled: Tensor  # [B, Dv] float32, the mean over the cells, rounded to float16 like all cached features
    box: Tensor  # [B, N] bool, tokens that show the item: its cells, apart from those under a banner, and its close-up


def compose(parts: SceneParts, banks: Banks, cast: Cast) -> Scenes:
    """The scenes of a cast. Scene b depends on the cast's row b alone.

    Each quarter of a scene is the corner of h x h cells that shows a picture at half size; with an odd side n a middle row and
    column show the background. A banner covers whole rows of cells, and whatever is there.
    """
    side, width = banks.backgrounds.shape[1], banks.backgrounds.shape[3]
    tokens = torch.empty(len(cast), side**2 + banks.closeups.shape[1], width)
    return Scenes(tokens, *compose_into(list(tokens), parts, banks, cast))


def compose_into(tokens: Sequence[Tensor], parts: SceneParts, banks: Banks, cast: Cast) -> tuple[Tensor, Tensor]:
    """Write the tokens of a cast's scenes into B tensors `[N, Dv]`, float32, and return `pooled` and `box` of `Scenes`.

    Cost: a copy of each token, 0.5 MB per scene with the default tower. New memory for them would cost twice as much.
    """
    half, closeup = torch.from_numpy(parts.half), torch.from_numpy(parts.closeup)
    backgrounds, banners, background_closeups = map(torch.from_numpy, (banks.backgrounds, banks.banners, banks.closeups))
    side, corner, closeups = backgrounds.shape[1], half.shape[1], background_closeups.shape[1]
    cells, pooled = side**2, torch.empty(len(cast), half.shape[3])
    box = torch.zeros(len(cast), cells + closeups, dtype=torch.bool)
    starts = [(row, column) for row in (0, side - corner) for column in (0, side - corner)]
    at_once = max(1, SERIAL // half.shape[3])
    rows = zip(*(getattr(cast, f.name).tolist() for f in fields(cast)), strict=True)
    for b, (shown, own, background, banner) in enumerate(rows):
        grid, boxed = (x[:cells].unflatten(0, (side, side)) for x in (tokens[b], box[b]))  # views
        for some, same in zip(tokens[b][:cells].split(at_once), backgrounds[background].flatten(0, 1).split(at_once), strict=True):
            some.copy_(same)
        tokens[b][cells:] = background_closeups[background]
        for quarter, (row, column) in enumerate(starts):
            if (picture := shown[quarter]) >= 0:
                grid[row : row + corner, column : column + corner] = half[picture]
                if closeups:
                    tokens[b][cells + quarter] = closeup[picture]
        row, column = starts[own]
        boxed[row : row + corner, column : column + corner] = True
        box[b, cells:][own : own + 1] = True
        if banner >= 0:
            covered = slice(*banks.rows[banner].tolist())
            grid[covered] = banners[banner, covered]
            boxed[covered] = False
        pooled[b] = torch.from_numpy(tokens[b][:cells].numpy().mean(0))  # now, while the scene's tokens are in the core's cache
    return pooled.half().float(), box
