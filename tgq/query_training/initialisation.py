"""The closed-form start of a query tower: a ridge regression from text features to item embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tgq.encoder.layers.fusion import PlainFusion
from tgq.query_tower.tower import QueryTower
from tgq.query_training.data.features import TextFeatures
from tgq.query_training.data.judged import Items, JudgedQueries

RIDGES = (0.1, 1.0, 10.0, 1e9)  # in mean variances of the features; with the last one the prior stays as it is
SHARES = {"titles": 1.0, "generated": 1.0, "judged": 2.0}  # weight of each kind of pairs, whatever their number


@torch.no_grad()
def initialise(
    tower: QueryTower, items: Items, asked: Mapping[str, tuple[JudgedQueries, TextFeatures]], value: Callable[[], float], prior: bool, own_text: bool = True
) -> dict[str, float]:
    """Set the tower's linear map, in closed form, to the one of several ridges whose `value` is highest.

    The pairs of the regression are items' metadata texts and embeddings, generated queries and their items' embeddings, and training
    queries and the mean embedding of their judged items, weighted by gain. A ridge draws the map to the prior, or to zero without one. The
    prior itself is a choice, too: with few pairs it may be the best one. Cost: a pass of the checkpoint per query, `Dp^2` per pair, and
    `Dp^3` per ridge.

    Args:
        asked: `generated` and `judged` queries with their features; either may be left out.
        value: the quality of the tower as it is, e.g. on validation queries.
        prior: the tower already has a map, that by which the encoder reads a title (`take_encoder_map`).
        own_text: the items' text features come from the tower's own checkpoint; if not, the items' texts are left out.

    Returns:
        The chosen ridge and its value.
    """
    known = np.flatnonzero(items.has_text & own_text)
    pairs: dict[str, tuple[Tensor, Tensor]] = {"titles": (torch.from_numpy(items.text[known]), torch.from_numpy(items.vectors[known]))}
    for name, (queries, features) in asked.items():
        pairs[name] = features.all(), torch.from_numpy(mean_vectors(items.vectors, queries))
    pairs = {name: pair for name, pair in pairs.items() if len(pair[0])}
    weight = tower.project.weight
    if not prior:
        typed = [pair[0] for name, pair in pairs.items() if name in asked] or [pairs["titles"][0]]
        tower.mean.copy_(torch.stack([features.mean(0) for features in typed]).mean(0))
        weight.zero_()
    unit = {name: F.normalize(inputs - tower.mean.cpu(), dim=-1) for name, (inputs, _) in pairs.items()}
    start = weight.T.cpu().clone()  # [Dp, De]
    if prior:  # at the length of the embeddings that it is to predict
        start /= torch.stack([(x @ start).norm(dim=-1).mean() for x in unit.values()]).mean().clamp(min=1e-12)
    covariance, product = torch.zeros(len(tower.mean), len(tower.mean)), torch.zeros(len(tower.mean), tower.dim)
    for name, x in unit.items():
        share = SHARES[name] / len(x)
        covariance += share * x.T @ x
        product += share * x.T @ pairs[name][1]
    missing = product - covariance @ start
    maps = {}
    for ridge in RIDGES if prior else RIDGES[:-1]:
        maps[ridge] = start + torch.linalg.solve(covariance + ridge * covariance.diagonal().mean() * torch.eye(len(covariance)), missing)
    values: dict[float, float] = {}
    for ridge, found in maps.items():
        weight.copy_(found.T)
        values[ridge] = value()
    best = max(values, key=lambda ridge: values[ridge])
    weight.copy_(maps[best].T)
    return {"ridge": best, "validation_ndcg": values[best]}


@torch.no_grad()
def take_encoder_map(tower: QueryTower, base: PlainFusion) -> None:
    """Give the tower the map by which an encoder's head reads the text of an item, so that it begins as good as the encoder itself.

    The tower's checkpoint must be the encoder's own.
    """
    tower.mean.copy_(base.text_mean)
    tower.project.weight.copy_(base.text)


def mean_vectors(vectors: np.ndarray, queries: JudgedQueries) -> np.ndarray:
    """float32 [Q, De]: the unit mean of each query's judged items, weighted by gain. Every query has an item of a gain."""
    weighted = vectors[queries.items] * queries.gains[:, None].astype(np.float32)
    sums = np.add.reduceat(weighted, queries.offsets[:-1]) if len(queries) else np.zeros((0, vectors.shape[1]), np.float32)
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def side_targets(features: np.ndarray, vectors: np.ndarray, ridge: float = 0.1) -> np.ndarray:
    """What one side of each item, its text or its picture, tells of the item's embedding: float32 [N, De], unit rows; zeros without features.

    A ridge regression from the side's centred unit features `[N, D]` to the embeddings. It puts both sides into the space of the
    items, whatever the encoder, so that queries can be aligned with each of them.
    """
    known = np.any(features, axis=1)
    out = np.zeros_like(vectors)
    if not known.any():
        return out
    x = features[known] - features[known].mean(axis=0)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    covariance = x.T @ x / len(x)
    weight = np.linalg.solve(covariance + ridge * covariance.trace() / len(covariance) * np.eye(len(covariance), dtype=x.dtype), x.T @ vectors[known] / len(x))
    side = x @ weight.astype(np.float32)
    out[known] = side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12)
    return out
