"""Metrics against ir-measures (trec_eval), and against values worked out by hand."""

import itertools

import ir_measures
import numpy as np
import pytest
from ir_measures import AP, RR, R, Success, nDCG

from tgq.metrics.metrics import CUTOFFS, ann_recall, coverage, query_metrics

POOL = 150


def random_case(seed, weighted):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 9, 40)
    offsets = np.r_[0, np.cumsum(counts)]
    ranks = np.concatenate([rng.permutation(POOL)[:c] + 1 for c in counts])
    gains = rng.integers(1, 5, len(ranks)) if weighted else np.ones(len(ranks), int)
    run = {f"q{q}": {f"d{r}": float(POOL - r) for r in range(1, POOL + 1)} for q in range(len(counts))}
    qrels = {
        f"q{q}": {f"d{r}": int(g) for r, g in zip(ranks[a:b], gains[a:b], strict=True)}
        for q, (a, b) in enumerate(itertools.pairwise(offsets))
    }
    return offsets, ranks, gains, run, qrels


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_every_query_agrees_with_ir_measures(seed, weighted):
    offsets, ranks, gains, run, qrels = random_case(seed, weighted)
    ours = query_metrics(offsets, ranks, gains)
    theirs = {
        **{("hit_rate", k): Success @ k for k in CUTOFFS},
        **{("recall", k): R @ k for k in CUTOFFS},
        ("mrr", None): RR,
        ("map", None): AP,
        ("ndcg", 10): nDCG @ 10,
    }
    assert set(ours.columns) == set(theirs)
    values = {
        (m.query_id, m.measure): m.value for m in ir_measures.iter_calc(list(theirs.values()), qrels, run)
    }
    for (name, k), measure in theirs.items():
        wanted = [values[f"q{q}", measure] for q in range(len(offsets) - 1)]
        np.testing.assert_allclose(ours.column(name, k), wanted, atol=1e-9, err_msg=f"{name}@{k}")


@pytest.mark.parametrize("seed", range(3))
def test_graded_gains_with_a_level_of_relevance_agree_with_ir_measures(seed):
    offsets, ranks, gains, run, qrels = random_case(seed, weighted=True)
    ours = query_metrics(offsets, ranks, gains, ndcg_cutoffs=(1, 5, 10), relevant=gains >= 3)
    theirs = {("ndcg", k): nDCG @ k for k in (1, 5, 10)} | {("recall", k): R(rel=3) @ k for k in CUTOFFS}
    theirs |= {("hit_rate", k): Success(rel=3) @ k for k in CUTOFFS} | {("mrr", None): RR(rel=3), ("map", None): AP(rel=3)}
    assert set(ours.columns) == set(theirs)
    values = {(m.query_id, m.measure): m.value for m in ir_measures.iter_calc(list(theirs.values()), qrels, run)}
    some = np.array([(gains[a:b] >= 3).any() for a, b in itertools.pairwise(offsets)])
    assert 0 < some.sum() < len(some)
    for (name, k), measure in theirs.items():
        wanted = np.array([values[f"q{q}", measure] for q in range(len(offsets) - 1)])
        known = some | (name == "ndcg")  # without a relevant item these metrics say nothing, where trec_eval says 0
        np.testing.assert_allclose(ours.column(name, k), np.where(known, wanted, np.nan), atol=1e-9, err_msg=f"{name}@{k}")


def test_values_by_hand():
    ours = query_metrics(np.array([0, 2, 2, 3]), np.array([4, 2, 200]), None, np.array([3, 1, 7]))
    assert ours.column("map")[0] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert ours.column("mrr").tolist()[::2] == [0.5, 1 / 200]
    assert ours.column("recall", 1)[0] == 0 and ours.column("recall", 5)[0] == 1
    assert ours.column("hit_rate", 100)[2] == 0
    assert ours.column("in_category_hit_rate", 1).tolist()[::2] == [1, 0]
    assert ours.column("in_category_hit_rate", 10)[2] == 1
    assert np.isnan(ours.values[1]).all()  # no positives: no opinion, not a zero
    assert not np.isnan(ours.values[[0, 2]]).any()


def test_bad_ranks_are_refused():
    with pytest.raises(ValueError, match="start at 1"):
        query_metrics(np.array([0, 1]), np.array([0]))
    with pytest.raises(ValueError, match="offsets end at 2"):
        query_metrics(np.array([0, 2]), np.array([1]))


def test_ann_recall_counts_equally_good_items_when_it_knows_scores():
    exact, found = (
        np.array([[1, 2, 3], [4, 5, -1], [-1, -1, -1]]),
        np.array([[3, 1, 9], [5, -1, -1], [-1, -1, -1]]),
    )
    np.testing.assert_allclose(ann_recall(found, exact), [2 / 3, 1 / 2, np.nan])
    exact_scores = np.array([[0.9, 0.8, 0.7], [0.5, 0.4, -np.inf], [-np.inf] * 3])
    tied = np.array([[0.9, 0.8, 0.7], [0.4, -np.inf, -np.inf], [-np.inf] * 3])
    worse = tied - np.array([[0, 0, 0.1]])
    np.testing.assert_allclose(ann_recall(found, exact, tied, exact_scores), [1, 1 / 2, np.nan])
    np.testing.assert_allclose(ann_recall(found, exact, worse, exact_scores), [2 / 3, 1 / 2, np.nan])


def test_coverage():
    assert coverage(3, 4) == 0.75 and coverage(0, 0) == 1.0
