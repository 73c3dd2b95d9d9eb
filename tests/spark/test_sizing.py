"""Whether a session is for little data."""

import pytest

from tgq.settings.sections import Settings
from tgq.spark import sizing


@pytest.fixture
def small(tmp_path, monkeypatch):
    """small(catalog=, **spark): the decision for a warehouse in which catalog_items has 60 of the 100 bytes that are little."""
    monkeypatch.setattr(sizing, "LITTLE", 100)
    items = tmp_path / "warehouse" / "catalog_items"
    items.mkdir(parents=True)
    (items / "part-0.snappy.parquet").write_bytes(b"x" * 60)

    def decide(catalog=None, warehouse=str(tmp_path / "warehouse"), queries=None, **spark):
        sections = {"spark": {"master": "local[2]"} | spark, "warehouse": {"path": warehouse}, "catalog": {"path": catalog and str(catalog)},
                    "queries": queries or {}}
        return sizing.is_small(Settings.model_validate(sections))

    return decide


def test_by_the_size_of_the_tables_and_not_of_the_pictures(small, tmp_path):
    assert small() and small(tmp_path / "absent")
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "catalog.csv").write_bytes(b"x" * 90)
    (shop / "picture.jpg").write_bytes(b"x" * 1000)
    assert small(shop) and small(shop / "catalog.csv")
    (shop / "images").mkdir()
    (shop / "images" / "list.csv").write_bytes(b"x" * 1000)
    assert small(shop), "a folder of pictures is not looked into"
    (shop / "category=007").mkdir()
    (shop / "category=007" / "part.csv").write_bytes(b"x" * 20)
    assert not small(shop), "a partition is"
    (shop / "category=007" / "part.csv").unlink()
    (shop / "more.csv").write_bytes(b"x" * 20)
    assert not small(shop)
    (tmp_path / "warehouse" / "catalog_items" / "part-1.snappy.parquet").write_bytes(b"x" * 60)
    assert not small()


def test_a_click_log_counts_wherever_it_is(small, tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "catalog.csv").write_bytes(b"x")
    (tmp_path / "log" / "clicks.csv").write_bytes(b"x" * 200)
    assert small(tmp_path / "catalog.csv", queries={"path": "queries.csv?"})
    for path in ("log", str(tmp_path / "log" / "clicks.csv"), "log/clicks.csv?"):
        assert not small(tmp_path / "catalog.csv", queries={"clicks": {"path": path}})


def test_only_on_one_machine_unless_it_is_said(small):
    assert not small(master="spark://host:7077") and not small(master=None) and not small(master="local-cluster[2,1,1024]")
    assert not small(warehouse="s3://bucket/warehouse") and not small("s3://bucket/catalog")
    assert small(master="spark://host:7077", sized_for="small") and not small(sized_for="large")
