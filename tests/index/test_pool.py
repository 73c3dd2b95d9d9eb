from pathlib import Path

import numpy as np
import pytest

from tgq.errors import WarehouseError
from tgq.index import pool as pools
from tgq.registry.loading import versions_of


def by_id(pool, kind):
    ids = pools.gather_items(pool, ("item_id",), np.arange(pool.rows))["item_id"].to_pylist()
    return dict(zip(ids, pools.gather_vectors(pool, kind, np.arange(pool.rows)), strict=True))


def test_pool_holds_the_active_items_with_an_embedding_of_their_present_content(make_night, items):
    night, data = make_night(), items(n=300)
    data.active[5] = False
    data.write(night, range(290))
    stale = items(n=300)
    stale.content[291] = "stale"
    stale.write(night, [291])  # embedded under other content ...
    night.spark.sql(f"UPDATE tgq.catalog_items SET content_hash = 'new' WHERE item_id = '{data.ids[291]}'")
    night.spark.sql("INSERT INTO tgq.item_embeddings SELECT item_id, 'other-model', 'x', category, has_image, agreement, gate_metadata, "
                    "gate_exploratory, run_id, embedded_at, embedding FROM tgq.item_embeddings LIMIT 3")  # fmt: skip

    pool = pools.write_pool(night)

    expected = {data.ids[i] for i in range(290) if i != 5}
    assert (pool.rows, pool.active) == (289, 290)
    vectors = by_id(pool, "embedding")
    assert set(vectors) == expected
    assert all(np.array_equal(vectors[data.ids[i]], data.vectors[i]) for i in range(290) if i != 5)

    # blocks are bounded, contiguous, and in an order that is the ids' alone
    assert max(b.rows for b in pool.blocks) <= 64 and len(pool.blocks) >= 5
    assert [b.start for b in pool.blocks] == np.cumsum([0] + [b.rows for b in pool.blocks])[:-1].tolist()
    read = list(pools.read_blocks(pool))
    assert np.concatenate([b.positions for b in read]).tolist() == list(range(289))
    order = pools.gather_items(pool, ("item_id",), np.arange(289))["item_id"].to_pylist()
    by_hash = night.spark.createDataFrame([(i,) for i in order], "item_id string").selectExpr("item_id", "xxhash64(item_id) AS h").collect()
    assert order == [r.item_id for r in sorted(by_hash, key=lambda r: r.h % 2**64)]

    # same picture, same code; frozen features come back as unit vectors
    table = pools.gather_items(pool, ("item_id", "image_code", "category"), np.arange(289)).to_pylist()
    row = {r["item_id"]: r for r in table}
    assert row[data.ids[0]]["image_code"] == row[data.ids[1]]["image_code"] != row[data.ids[2]]["image_code"]
    image = data.image.astype(np.float32)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    text = data.text.astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    concat = by_id(pool, "concat")
    assert np.allclose(by_id(pool, "image")[data.ids[7]], image[7], atol=1e-6)
    score = concat[data.ids[7]] @ concat[data.ids[8]]
    assert score == pytest.approx((image[7] @ image[8] + text[7] @ text[8]) / 2, abs=1e-5)
    block = read[2]
    gathered = pools.gather_vectors(pool, "embedding", block.positions[::-1])
    assert np.array_equal(gathered, block.vectors[::-1])


def test_pool_is_written_once_and_again_only_when_a_table_moved(make_night, items):
    night, data = make_night(), items(n=40)
    data.write(night, range(30))
    first = pools.write_pool(night)
    assert pools.write_pool(night) == first
    again = pools.write_pool(make_night("night-2"))
    assert again.digest == first.digest and again.folder != first.folder
    data.write(night, range(30, 40))
    moved = pools.write_pool(night)
    assert moved.rows == 40 and moved.digest != first.digest


def test_pool_without_items_and_without_features(make_night, items):
    night = make_night()
    empty = pools.write_pool(night)
    assert (empty.rows, empty.blocks, empty.coverage) == (0, (), 1.0)
    items(n=10).write(night, features=False)
    pool = pools.write_pool(night)
    assert pool.rows == 10 and set(pool.widths) == {"embedding"}
    assert pools.item_frame(night, pool).count() == 10


def test_vectors_of_two_widths_are_an_error_that_names_them(make_night, items):
    night = make_night()
    items(n=4, dim=16).write(night, range(2))
    items(n=4, dim=8).write(night, [2, 3])
    with pytest.raises(Exception) as e:
        pools.write_pool(night)
    assert isinstance(e.value, WarehouseError) or "differ in width" in str(e.value)


def test_a_rival_of_the_same_model_has_the_same_vectors_which_are_written_once(make_night, items):
    night, data = make_night(evaluate={"baselines": False}), items(n=100)
    data.write(night)
    data.write_vectors(night, "0" * 16, data.vectors[:, ::-1])
    own = versions_of(night.model_folder)[0]
    pool = pools.write_pool(night, rival=own)
    assert pools.write_pool(night, rival=own) == pool and pool.rows == 100 and not list(Path(pool.folder).glob("*.rival.arrow"))
    at = np.array([7, 99, 0])
    assert np.array_equal(pools.gather_vectors(pool, "rival", at), pools.gather_vectors(pool, "embedding", at))
    assert all(np.array_equal(a.vectors, b.vectors) for a, b in zip(pools.read_blocks(pool, "rival"), pools.read_blocks(pool), strict=True))
    other = pools.write_pool(night, rival="0" * 16)
    assert len(list(Path(other.folder).glob("*.rival.arrow"))) == len(other.blocks)
    assert np.array_equal(pools.gather_vectors(other, "rival", at), pools.gather_vectors(other, "embedding", at)[:, ::-1])
