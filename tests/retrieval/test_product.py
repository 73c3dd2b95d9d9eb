import sys

import numpy as np
import pytest
import torch

from tgq.retrieval.product import LEAST_QUERIES, product_tiles


@pytest.mark.parametrize("queries", [1, LEAST_QUERIES, 700])
@pytest.mark.parametrize("writeable", [True, False])
def test_tiles_are_the_inner_products_with_and_without_torch(monkeypatch, queries, writeable):
    draw = np.random.default_rng(0)
    asked, pool = (draw.standard_normal((n, 160), np.float32) for n in (queries, 1000))
    for matrix in (asked, pool):
        matrix.flags.writeable = writeable
    meant = asked.astype(np.float64) @ pool.T
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        found = [(first, tile.copy()) for first, tile in product_tiles(asked, pool, 300)]
    assert [first for first, _ in found] == [0, 300, 600, 900]
    np.testing.assert_allclose(np.concatenate([tile for _, tile in found], axis=1), meant, atol=1e-4)
    assert any("convolution" in event.key for event in profile.key_averages()) == (queries >= LEAST_QUERIES)
    for _, tile in product_tiles(asked, pool, 300):
        assert tile.flags.c_contiguous and tile.flags.writeable, "FAISS reads its memory, and ranks are counted in it"

    monkeypatch.setitem(sys.modules, "torch", None)
    alone = np.concatenate([tile.copy() for _, tile in product_tiles(asked, pool, 300)], axis=1)
    np.testing.assert_allclose(alone, meant, atol=1e-4)
