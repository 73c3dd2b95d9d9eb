"""The candidates of a batch hold what its queries are judged for, with the right gains."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tgq.query_training.config import QueryTrainConfig
from tgq.query_training.data.batches import Batches
from tgq.query_training.data.judged import JudgedQueries

N = 30


@st.composite
def judged(draw):
    lists = draw(st.lists(st.dictionaries(st.integers(0, N - 1), st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=12), min_size=1, max_size=9))
    items = np.array([i for each in lists for i in each], np.int64)
    gains = np.array([g for each in lists for g in each.values()])
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in lists])])
    hard = np.array([[draw(st.integers(-1, N - 1)) for _ in range(3)] for _ in lists], np.int64)
    return JudgedQueries([f"query {i}" for i in range(len(lists))], offsets, items, gains, np.full_like(hard, -1)).with_hard(hard)


@settings(max_examples=60, deadline=None)
@given(judged(), st.integers(0, 3), st.sets(st.integers(0, N - 1), min_size=1))
def test_candidates_are_judged_hard_and_random_items_with_the_gains_of_each_query(queries, seed, allowed):
    config = QueryTrainConfig(seed=seed, batch=4, judged=5, hard=2, others=6)
    mask = np.isin(np.arange(N), list(allowed))
    for given_mask in (None, mask):
        batches = Batches(queries, N, config, given_mask)
        seen = []
        for _ in range(-(-len(queries) // 4)):
            batch = batches.draw()
            seen += batch.queries.tolist()
            assert np.all(np.diff(batch.candidates) > 0) and batch.candidates.min() >= 0
            assert given_mask is None or mask[batch.candidates].all()
            assert batch.texts == [queries.texts[q] for q in batch.queries]
            for row, query in enumerate(batch.queries):
                own = slice(queries.offsets[query], queries.offsets[query + 1])
                known = dict(zip(queries.items[own].tolist(), queries.gains[own].tolist(), strict=True))
                assert batch.gains[row].tolist() == [known.get(item, 0.0) for item in batch.candidates.tolist()]
                if given_mask is None:
                    best = max(known.values())
                    assert max(batch.gains[row]) == best, "an item of the highest grade is always a candidate"
        assert set(range(len(queries))) <= set(seen) or len(queries) < 4, "each query once before any comes again"


def test_hard_negatives_are_never_judged_items():
    queries = JudgedQueries(["a", "b"], np.array([0, 2, 3]), np.array([1, 2, 3]), np.array([1.0, 0.0, 1.0]), np.full((2, 0), -1))
    assert queries.with_hard(np.array([[1, 2, 5], [1, 3, -1]])).hard.tolist() == [[-1, -1, 5], [1, -1, -1]]
