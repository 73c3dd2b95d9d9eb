"""Calibration as a job, on a drawn catalog through tiny towers."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from tgq.demo.catalog import draw_catalog
from tgq.encoder.model import TGQFormer
from tgq.errors import UsageError
from tgq.run.progress import Silent
from tgq.training_job.calibration import calibrate_encoder
from tgq.training_job.job import Source


def test_a_shop_without_pairs_calibrates_an_encoder(spark, tiny_encoder, tmp_path):
    draw_catalog(tmp_path / "demo", items=200, seed=3, size=64, workers=1)
    table = pq.read_table(tmp_path / "demo" / "catalog.parquet")
    pq.write_table(table.drop_columns(["group_id"]), tmp_path / "demo" / "catalog.parquet")
    profile = tmp_path / "shop.yaml"
    profile.write_text("catalog: {columns: {group_id: null, variant_id: null}}\n")
    source, out = Source.of_catalog(f"{tmp_path / 'demo'}={profile}", tmp_path / "cache"), tmp_path / "calibrated"
    made = calibrate_encoder(spark, out, [source], tiny_encoder, 1000, 0, Silent())
    loaded, record = TGQFormer.from_pretrained(out), json.loads((out / "calibration.json").read_text())
    assert loaded.model_version == made.model_version == record["model_version"] and loaded.reliability is not None
    assert record["calibrated_from"] == TGQFormer.from_pretrained(tiny_encoder).model_version and record["items"] == made.items > 100
    assert 0 < made.auc < 1, "random towers know little of it"
    with pytest.raises(UsageError, match="already holds an encoder"):
        calibrate_encoder(spark, out, [source], tiny_encoder, 1000, 0, Silent())
    shutil.rmtree(out)
    assert calibrate_encoder(spark, out, [source], tiny_encoder, 1000, 0, Silent()) == made, "the same command gives the same encoder"
