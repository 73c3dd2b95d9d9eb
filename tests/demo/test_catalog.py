"""The drawn catalog: the same bytes from the same seed, an honest ground truth, and refusal to overwrite real data."""

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tgq.demo import draw_catalog
from tgq.demo.catalog import SCHEMA
from tgq.errors import UsageError


def digest(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn") / "catalog"
    summary = draw_catalog(out, items=120, seed=3, size=96, workers=1)
    return out, summary, pq.read_table(out / "catalog.parquet")


def test_same_seed_same_bytes_with_any_number_of_workers(drawn, tmp_path):
    out, _, _ = drawn
    draw_catalog(tmp_path / "again", items=120, seed=3, size=96, workers=2)
    assert digest(tmp_path / "again") == digest(out)


def test_schema_and_files(drawn):
    out, summary, table = drawn
    assert table.schema.equals(SCHEMA)
    assert table.num_rows == summary.items == 120
    ids = table["item_id"].to_pylist()
    assert len(set(ids)) == 120
    for name in table["image"].to_pylist():
        with Image.open(out / name) as image:
            assert image.format == "JPEG" and image.size == (96, 96)
    assert all(isinstance(json.loads(a), dict) for a in table["attributes"].to_pylist())
    assert "seed: 3" in (out / "SOURCE.md").read_text()


def test_a_real_catalog_is_left_alone(tmp_path):
    (tmp_path / "catalog.parquet").write_bytes(b"precious")
    with pytest.raises(UsageError, match="not drawn by this command"):
        draw_catalog(tmp_path, items=1)
    assert (tmp_path / "catalog.parquet").read_bytes() == b"precious"
