"""What training reads of a warehouse's tables, beside the features."""

import pytest

from tgq.errors import SourceError
from tgq.index import build, generations, neighbors
from tgq.training_job.training_set import items_of_side, published_neighbors

VERSIONS = {"catalog_items": 1, "item_embeddings": 1, "item_neighbors": 1}


def test_hard_negatives_are_published_neighbours_of_the_same_category_among_the_chosen(make_night, items, warehouse):
    night, data = make_night(neighbors={"k": 20, "block_rows": 64}), items(n=120, styles=12)
    data.write(night)
    chosen = warehouse.read("catalog_items").where("item_id < 'item-0090'").select("item_id")
    assert published_neighbors(night, chosen) == {}, "nothing is published"
    neighbors.build_neighbors(night)
    neighbors.publish_neighbors(night)
    build.build_index(night)
    generations.publish_index(night, VERSIONS)
    found, category = published_neighbors(night, chosen), dict(zip(data.ids, data.category, strict=True))
    near: dict[str, list[str]] = {}
    for row in warehouse.read("item_neighbors").orderBy("item_id", "rank").collect():
        if row.neighbor_id < "item-0090" and category[row.item_id] == category[row.neighbor_id]:
            near.setdefault(row.item_id, []).append(row.neighbor_id)
    assert found == {item: listed[:8] for item, listed in near.items() if item < "item-0090"}
    assert len(found) > 60 and max(map(len, found.values())) == 8


def test_groups_of_one_item_are_not_pairs_and_the_error_says_so(make_night, items, warehouse):
    night, data = make_night(catalog={"columns": {"group_id": "style"}}), items(n=6, styles=6)
    data.write(night)
    with pytest.raises(SourceError, match="no group of .* on the train side has a positive pair of items.*catalog.columns.group_id, now style"):
        items_of_side(night)
    night.spark.sql("UPDATE tgq.catalog_items SET group_id = NULL")
    with pytest.raises(SourceError, match="has no pairs of items on the train side.*name the column of groups"):
        items_of_side(night)
