import numpy as np
import pytest

from tgq.errors import UsageError
from tgq.index import neighbors
from tgq.index.pool import gather_items, write_pool


def brute_force(data, order, k, same_image):
    """item -> [(neighbour, score)], by numpy; ties by the pool's order."""
    place = {item: i for i, item in enumerate(order)}
    rows = [data.ids.index(item) for item in order]
    scores = np.round(data.vectors[rows].astype(np.float64) @ data.vectors[rows].T.astype(np.float64), 6)
    result = {}
    for item, row in place.items():
        found = [j for j in np.lexsort((np.arange(len(order)), -scores[row])) if j != row]
        if same_image:
            own = data.image_hash[rows[row]]
            found = [j for j in found if data.image_hash[rows[j]] != own]
        result[item] = [(order[j], scores[row, j]) for j in found[:k]]
    return result


def table_rows(frame):
    rows = {}
    for row in frame.orderBy("item_id", "rank").collect():
        rows.setdefault(row.item_id, []).append((row.neighbor_id, row.score, row["rank"]))
    return rows


def test_neighbours_are_those_of_brute_force_and_are_searched_once(make_night, items, warehouse):
    night, data = make_night(neighbors={"k": 5, "block_rows": 64}), items(n=200)
    data.write(night)
    result = neighbors.build_neighbors(night)
    assert (result.rows_in, result.rows_out, result.figures["carried"]) == (200, 1000, False)
    pool = write_pool(night)
    order = gather_items(pool, ("item_id",), np.arange(200))["item_id"].to_pylist()

    staged = table_rows(night.spark.read.parquet(night.staging("neighbors")))
    expected = brute_force(data, order, 5, same_image=True)
    assert set(staged) == set(data.ids)
    for item, found in staged.items():
        assert [rank for _, _, rank in found] == [1, 2, 3, 4, 5]
        assert np.allclose([score for _, score, _ in found], [score for _, score in expected[item]], atol=2e-6)
    agree = [[n for n, _, _ in staged[i]] == [n for n, _ in expected[i]] for i in data.ids]
    assert np.mean(agree) > 0.99  # numpy's own rounding may turn a near-tie round
    assert data.ids[1] not in [n for n, _, _ in staged[data.ids[0]]]  # the same picture

    # published in one commit, and only once; nothing before that
    assert warehouse.read("item_neighbors").count() == 0
    neighbors.publish_neighbors(night)
    version = warehouse.version("item_neighbors")
    neighbors.publish_neighbors(night)
    assert warehouse.version("item_neighbors") == version == 1
    assert table_rows(warehouse.read("item_neighbors")) == staged

    # the next night with the same pool carries them over, with another option it searches again
    later = make_night("night-2", neighbors={"k": 5, "block_rows": 64})
    carried = neighbors.build_neighbors(later)
    assert carried.figures["carried"] and carried.rows_out == 1000
    neighbors.publish_neighbors(later)
    assert warehouse.version("item_neighbors") == version

    wider = make_night("night-3", neighbors={"k": 3, "exclude_same_image": False, "block_rows": 64})
    assert not neighbors.build_neighbors(wider).figures["carried"]
    neighbors.publish_neighbors(wider)
    rows = table_rows(warehouse.read("item_neighbors"))
    expected = brute_force(data, order, 3, same_image=False)
    assert all(np.allclose([s for _, s, _ in rows[i]], [s for _, s in expected[i]], atol=2e-6) for i in data.ids)

    # a carried result is searched after all when the table moved on in between
    neighbors.publish_neighbors(later)
    assert {i: [n for n, _, _ in f] for i, f in table_rows(warehouse.read("item_neighbors")).items()} == {
        i: [n for n, _, _ in f] for i, f in staged.items()
    }


def test_a_pool_smaller_than_k_and_nothing_staged(make_night, items, warehouse):
    night = make_night()
    with pytest.raises(UsageError, match="no staged neighbours"):
        neighbors.publish_neighbors(night)
    items(n=3, styles=3).write(night)
    assert neighbors.build_neighbors(night).rows_out == 4  # items 0 and 1 share a picture
    empty = make_night("night-2")
    night.spark.sql("UPDATE tgq.catalog_items SET is_active = false")
    assert neighbors.build_neighbors(empty).rows_out == 0
    neighbors.publish_neighbors(empty)
    assert warehouse.read("item_neighbors").count() == 0
