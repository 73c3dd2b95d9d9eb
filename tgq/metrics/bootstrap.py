"""Clustered Poisson bootstrap: confidence intervals for means over queries, computed in parts that add up.

The ordinary bootstrap draws n queries with replacement, which needs all of them in one place. In the Poisson bootstrap (Hanley
and MacGibbon 2006; Chamandy et al. 2012, "Estimating uncertainty for massive data streams") each query has an independent
Poisson(1) weight in each of B replicates instead. Here the weight is a hash of (cluster, replicate, seed). Every worker can
compute it for its own rows and the sums over rows add up, so partitioning and row order cannot change an interval.

The unit of resampling is the cluster, not the query (Field and Welsh 2007, "Bootstrapping clustered data"). The queries of one
product group have each other as positives and share images and titles, so their results are correlated. Resampled one by one
they would count as independent evidence, and the intervals would be too narrow. Without groups the cluster is the query itself.

Cost: rows x B weights of one byte, one matrix product [B, rows] x [rows, M]; the result takes B * (M + 1) doubles.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

REPLICATES = 1000
_CHUNK = 1024
# Poisson(1) by inversion of a uniform 32-bit number: the weight is the number of bounds at or below it.
# Weights above 12 have probability 6e-11, which is below the resolution of 32 bits.
_BOUNDS = np.floor(2.0**32 * np.cumsum(np.exp(-1.0) / np.cumprod(np.r_[1.0, np.arange(1, 12)]))).astype(
    np.uint32
)


@dataclass(frozen=True)
class Sums:
    """Weighted sums over some rows, per replicate. `+` adds the sums of disjoint rows.

    Attributes:
        values: float64 [B, M], sums of weight x value.
        weights: float64 [B, M], sums of the weights; a NaN value has weight 0 in its column.
    """

    values: np.ndarray
    weights: np.ndarray

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.values + other.values, self.weights + other.weights)


def poisson_weights(keys: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """Poisson(1) weights, uint8 [n, B]. Row i depends on keys[i] (uint64) and the seed only."""
    stream = _splitmix64(np.arange(replicates, dtype=np.uint64) + (np.uint64(seed) << np.uint64(32)))
    keys = np.asarray(keys, np.uint64)
    weights = np.zeros((len(keys), replicates), np.uint8)
    for start in range(0, len(keys), _CHUNK):
        rows = slice(start, start + _CHUNK)
        uniform = (_splitmix64(keys[rows, None] ^ stream[None]) >> np.uint64(32)).astype(np.uint32)
        for bound in _BOUNDS:
            weights[rows] += uniform >= bound
    return weights


def partial(values: np.ndarray, keys: np.ndarray, replicates: int = REPLICATES, seed: int = 0) -> Sums:
    """The sums over a part of the queries.

    Args:
        values: float [n, M], M metrics of n queries; NaN where a metric is undefined.
        keys: uint64 [n], hash of each query's cluster.
        replicates: B.
    """
    return weighted(values, poisson_weights(keys, replicates, seed))


def weighted(values: np.ndarray, weights: np.ndarray) -> Sums:
    """Like `partial`, with the weights of `poisson_weights`, uint8 [n, B]."""
    values = np.asarray(values, np.float64)
    sums = np.zeros((2, weights.shape[1], values.shape[1]))
    for start in range(0, len(values), _CHUNK):
        chunk, weight = values[start : start + _CHUNK], weights[start : start + _CHUNK].astype(np.float64).T
        known = ~np.isnan(chunk)
        sums[0] += weight @ np.where(known, chunk, 0.0)
        sums[1] += weight @ known.astype(np.float64)
    return Sums(*sums)


def total(parts: Iterable[Sums]) -> Sums:
    """The sums of all parts. Raises ValueError if there are no parts."""
    parts = list(parts)
    if not parts:
        raise ValueError("no partial sums to add")
    return sum(parts[1:], parts[0])


def interval(sums: Sums, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of each mean: (low, high), float64 [M] each; NaN if no replicate has any weight."""
    return _percentiles(_means(sums), level)


def difference_interval(first: Sums, second: Sums, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Paired percentile interval of mean(first) - mean(second): (low, high), float64 [M] each.

    Both sums must come from the same queries, keys, B and seed. Each replicate then weights both systems equally, and the
    variation that they share cancels.
    """
    return _percentiles(_means(first) - _means(second), level)


def _means(sums: Sums) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums.values / sums.weights


def _percentiles(replicates: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    tail = (1 - level) / 2
    bounds = np.full((2, replicates.shape[1]), np.nan)
    for column in range(replicates.shape[1]):
        known = replicates[:, column][~np.isnan(replicates[:, column])]
        if len(known):
            bounds[:, column] = np.quantile(known, [tail, 1 - tail])
    return bounds[0], bounds[1]


def _splitmix64(x: np.ndarray) -> np.ndarray:
    """The output function of splitmix64 (Steele, Lea and Flood 2014), a bijection on 64 bits. The arithmetic wraps around."""
    x = x + np.uint64(0x9E37_79B9_7F4A_7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return x ^ (x >> np.uint64(31))
