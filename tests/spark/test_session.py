"""The Spark session in the environments that schedulers start it in."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import tgq

CHECKOUT = Path(__file__).parents[2]


def test_in_a_locale_of_ascii_titles_and_paths_keep_their_letters(tmp_path):
    """Cron and containers start programs with such a locale; C is another name of it."""
    catalog, warehouse = tmp_path / "Möbel 商品", tmp_path / "Lager é"
    (catalog / "bilder").mkdir(parents=True)
    Image.new("RGB", (30, 20), "teal").save(catalog / "bilder" / "stühle 椅子.png")
    row = {"item_id": "ä-1", "title": "Stühle 椅子", "image": "bilder/stühle 椅子.png"}
    pq.write_table(pa.Table.from_pylist([row]), catalog / "catalog.parquet")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONUTF8", "PYTHONIOENCODING", "PYSPARK_"))}
    command = [sys.executable, "-m", "tgq.cli.app", "ingest", "--catalog", catalog, "--warehouse", warehouse, "--set", "spark.master=local[1]"]
    environment |= {"LC_ALL": "POSIX", "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, timeout=900)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    (found,) = tgq.open_warehouse(warehouse).sql("SELECT item_id, title, image_uri, image_size FROM catalog_items").to_pylist()
    assert found == {
        "item_id": "ä-1", "title": "Stühle 椅子", "image_uri": str(catalog / row["image"]), "image_size": (catalog / row["image"]).stat().st_size,
    }  # fmt: skip
