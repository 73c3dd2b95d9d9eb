"""Two small runs, the second of them published. It has a changed, a new and a missing item, so that the tables have deletion vectors."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@dataclass(frozen=True)
class Published:
    root: Path
    catalog: Path
    encoder: Path
    spark: object
    warehouse: object


@pytest.fixture(scope="session")
def published(spark, tiny_encoder, mlflow_in, tables_in, tmp_path_factory):
    from tgq.demo.catalog import draw_catalog
    from tgq.night.nightly import STEPS, Nightly
    from tgq.run.opening import open_night
    from tgq.settings.load import load_settings

    folder = tmp_path_factory.mktemp("client")
    catalog, root = folder / "demo", folder / "warehouse"
    draw_catalog(catalog, items=60, seed=7, size=64, workers=1, bad_rows=3)
    tables_in(root)
    mlflow_in(root)
    overrides = [f"warehouse.path={root}", f"catalog.path={catalog}", f"encoder.path={tiny_encoder}", "gate.enabled=false", "report.strips=0"]
    settings = load_settings(["local", "catalogs/demo"], overrides, {}).settings
    Nightly(open_night(spark, settings, "first")).run(["ingest", "embed"])
    table = pq.read_table(catalog / "catalog.parquet")
    rows = table.to_pylist()[1:]  # one item vanishes
    rows[0]["title"] = "something else entirely"
    rows.append(rows[1] | {"item_id": "new-item", "category": "Caf\u00e9 > Th\u00e9"})
    pq.write_table(pa.Table.from_pylist(rows, table.schema), catalog / "catalog.parquet")
    night = open_night(spark, settings, "second")
    Nightly(night).run(list(STEPS))
    return Published(root, catalog, tiny_encoder, spark, night.warehouse)


@pytest.fixture
def warehouse_of(published):
    """The warehouse as Spark sees it: its tables registered in this session again, which other tests may have replaced."""
    from tgq.publishing.views import define_views
    from tgq.settings.sections import WarehouseSettings
    from tgq.storage.warehouse import Warehouse

    opened = Warehouse(published.spark, WarehouseSettings(path=str(published.root)))
    define_views(published.spark, opened)
    return opened
