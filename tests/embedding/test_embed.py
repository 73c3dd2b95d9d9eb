"""The embed step on real Spark and Delta with a tiny encoder: it embeds only what is new, accounts for every item, and survives kills."""

import hashlib
import io
from datetime import datetime, timezone

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyspark.sql import functions as F

from tgq.embedding import committer
from tgq.embedding import embed as step
from tgq.embedding.executor.udf import register_udf
from tgq.embedding.feature_cache import cached_bytes, shrink_cache
from tgq.embedding.plan import Grouping, Slice, next_batch
from tgq.encoder.model import TGQFormer
from tgq.encoder.tiny import write_tiny_encoder
from tgq.errors import ModelError
from tgq.images.decode import decode_image
from tgq.registry.loading import towers_of, versions_of
from tgq.run.opening import open_night
from tgq.settings.load import load_settings
from tgq.storage.warehouse import schema_of


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_tiny_encoder(tmp_path_factory.mktemp("tiny"), seed=3))


def jpeg(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((48, 48)).save(buffer, "JPEG")
    return buffer.getvalue()


def sha(data: bytes | str) -> str:
    return hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()


def item(n: int, folder, data: bytes | None, text: str, run: str, active: bool = True) -> tuple:
    uri = None
    if data is not None:
        path = folder / f"{sha(data)[:12]}.jpg"
        path.write_bytes(data)
        uri = str(path)
    now = datetime.now(timezone.utc)
    picture = sha(data) if data else None
    row = (f"item-{n}", text, None, "Toys > Cars", {}, uri, len(data or b""), picture, text, text, f"g{n // 2}", None, {},
           f"{picture}:{text}", sha(f"{picture}|{text}"), now, now, run, active)  # fmt: skip
    return row + (None,) * (len(schema_of("catalog_items")) - len(row))


@pytest.fixture
def catalog(tmp_path, empty_tables):
    folder = tmp_path / "catalog"
    folder.mkdir()
    return folder


def begin(spark, tmp_path, model, catalog, *sets):
    loaded = load_settings(
        [], [f"warehouse.path={tmp_path / 'warehouse'}", f"catalog.path={catalog}", f"encoder.path={model}",
             "embed.task_items=8", "encoder.device=cpu", *sets], {},
    )  # fmt: skip
    return open_night(spark, loaded.settings)


def put(night, rows) -> None:
    frame = night.spark.createDataFrame(rows, night.warehouse.read("catalog_items").schema)
    night.warehouse.upsert(frame, "catalog_items", ("item_id",))


def vectors(night) -> dict[str, np.ndarray]:
    rows = night.warehouse.read("item_embeddings").select("item_id", "embedding").collect()
    assert len({r["item_id"] for r in rows}) == len(rows), "an id occurs twice"
    return {r["item_id"]: np.array(r["embedding"], dtype=np.float32) for r in rows}


def test_a_run_embeds_everything_once_and_the_next_only_what_changed(spark, tmp_path, model, catalog):
    first = begin(spark, tmp_path, model, catalog)
    pictures = [jpeg(n) for n in range(30)]
    put(first, [item(n, catalog, pictures[n % 25], f"red shoe {n}", first.run_id) for n in range(40)])
    put(first, [item(40, catalog, None, "only text", first.run_id), item(41, catalog, jpeg(99)[:200], "cut off", first.run_id)])
    done = step.embed(first)
    assert (done.rows_in, done.embedded, done.unchanged, done.quarantined) == (42, 41, 0, 1)
    bad = first.warehouse.read("quarantine").collect()
    assert [(r["item_id"], r["stage"], r["reason"]) for r in bad] == [("item-41", "embed", "truncated")]

    got = vectors(first)
    encoder = TGQFormer.from_pretrained(model)
    for n in (0, 7, 39):
        pixels = encoder.vision.preprocess(decode_image(pictures[n % 25], target=encoder.vision.input_size))[None]
        plain = encoder.encode(pixels, torch.tensor([0]), [f"red shoe {n}"], [f"red shoe {n}"]).embedding[0].numpy()
        assert np.abs(plain - got[f"item-{n}"]).max() < 1e-4
    features = {r["item_id"]: r for r in first.warehouse.read("item_features").collect()}
    assert features["item-40"]["image_features"] is None and features["item-0"]["tower_version"] == versions_of(model)[1]

    again = step.embed(first)
    assert (again.embedded, again.quarantined, again.figures["encoded_now"]) == (41, 1, 0), "a second attempt embeds nothing"

    second = begin(spark, tmp_path, model, catalog, "evaluate.seed=1")
    assert second.run_id != first.run_id
    put(second, [item(n, catalog, pictures[29] if n == 5 else pictures[n % 25], f"red shoe {n}", second.run_id) for n in range(40)])
    stale = (second.run_id, "ingest", "item-40", 0, "too_large", "its new row was refused, so its last good version stays", None, "f", second.started_at)
    second.warehouse.append(second.spark.createDataFrame([stale], second.warehouse.read("quarantine").schema), "quarantine")
    done = step.embed(second)
    assert (done.embedded, done.unchanged, done.quarantined) == (1, 40, 1)
    after = vectors(second)
    changed = {k for k in got if not np.array_equal(got[k], after[k])}
    assert changed == {"item-5"} and len(after) == 41
    assert done.figures["snapshot"] == {"embedded": 1, "unchanged": 39, "quarantined": 1, "good": 41}, "item-40's row is counted by ingest"


def test_a_killed_run_continues_and_ends_with_the_same_tables(spark, tmp_path, model, catalog, monkeypatch):
    slices = "embed.slice_items=18"  # three slices, each committed alone
    whole = begin(spark, tmp_path / "whole", model, catalog, slices)
    rows = [item(n, catalog, jpeg(n), f"blue bag {n}", whole.run_id) for n in range(45)]
    put(whole, rows)
    step.embed(whole)
    expected = vectors(whole)

    night = begin(spark, tmp_path / "killed", model, catalog, slices)
    put(night, [(*r[:17], night.run_id, *r[18:]) for r in rows])
    real, calls = committer.commit_slices, []

    def dies_in_the_middle(night, plan, encoded, *rest):
        calls.append(encoded.batch[0].number)
        if len(calls) == 2:
            # killed after the features' commit and before that of the embeddings
            append = night.warehouse.append

            def dies(frame, table, **options):
                if table == "item_embeddings":
                    raise KeyboardInterrupt
                append(frame, table, **options)

            monkeypatch.setattr(night.warehouse, "append", dies)
        real(night, plan, encoded, *rest)

    monkeypatch.setattr(committer, "commit_slices", dies_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        step.embed(night)
    monkeypatch.undo()
    assert 0 < len(vectors(night)) < 45

    resumed = begin(spark, tmp_path / "killed", model, catalog, slices)
    assert resumed.run_id == night.run_id
    done = step.embed(resumed)
    assert (done.embedded, done.unchanged) == (45, 0) and 0 < done.figures["encoded_now"] < 45
    got = vectors(resumed)
    assert got.keys() == expected.keys()
    assert max(np.abs(got[k] - expected[k]).max() for k in got) < 1e-6
    counts = resumed.warehouse.read("item_features").groupBy("item_id").count().agg(F.max("count")).first()[0]
    assert counts == 1, "features that were committed before the kill are not repeated"


def test_another_model_embeds_all_items_again_and_keeps_the_first_models_rows(spark, tmp_path, model, catalog):
    night = begin(spark, tmp_path, model, catalog)
    put(night, [item(n, catalog, jpeg(n), f"toy {n}", night.run_id) for n in range(6)])
    step.embed(night)
    other = str(write_tiny_encoder(tmp_path / "other", seed=4))
    second = begin(spark, tmp_path, other, catalog)
    assert step.embed(second).embedded == 6
    keys = second.warehouse.read("item_embeddings").groupBy("item_id", "model_version").count().collect()
    assert len(keys) == 12 and all(k["count"] == 1 for k in keys)


def test_a_batch_is_a_minute_of_work_of_one_kind():
    slices = [Slice(n, 100, 1, replaced=n == 6, cached=n >= 7) for n in range(9)]

    def sizes(items_per_s, seconds):
        left, found = slices, []
        while left:
            found.append(len(next_batch(left, items_per_s, seconds)))
            left = left[found[-1]:]
        return found

    assert sizes(None, 60) == sizes(100, 0) == [1] * 9, "without a rate, or with slice_items, each slice is committed alone"
    assert sizes(5, 60) == [3, 3, 1, 2] and sizes(1, 60) == [1] * 9
    assert sizes(1000, 60) == [6, 1, 2], "rows that replace others are merged, and cached items are encoded by themselves"


def test_a_task_lasts_seconds_not_minutes():
    def sizes(rate, task_items=128):
        grouping = Grouping.of(rate, 2, task_items)
        return grouping.large, grouping.small

    assert [sizes(rate) for rate in (None, 0.1, 10, 26, 200, 1e4)] == [(1, 1), (1, 1), (2, 1), (4, 1), (31, 3), (32, 32)]
    assert sizes(1e4, task_items=3) == (32, 32), "fewer items than parts"


@given(st.integers(1, 40), st.integers(1, 32), st.integers(1, 32), st.integers(1, 9), st.booleans())
def test_every_part_has_a_task_and_the_last_ones_are_small(parts, large, small, cores, is_last):
    slice_, grouping = Slice(0, parts, parts, 0, False), Grouping(max(large, small), small, cores)
    cut = grouping.large_parts(slice_, is_last)
    assert 0 <= cut <= parts and (cut == parts or cut % grouping.large == 0)
    numbers = [part // grouping.large if part < cut else -(-cut // grouping.large) + (part - cut) // small for part in range(parts)]  # as in `encode_slices`
    assert sorted(set(numbers)) == list(range(grouping.tasks(slice_, is_last))), "no task is empty"
    assert not is_last or parts - cut >= min(parts, cores * grouping.large)


def retrained(model, folder) -> str:
    """An encoder with the same towers and other weights of its own."""
    encoder = TGQFormer.from_pretrained(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in encoder.named_parameters():
            if not name.startswith(("vision.", "text.")):
                value.add_(torch.randn_like(value) * 0.1)
    encoder.save_pretrained(folder)
    return str(folder)


def test_a_new_connector_embeds_from_the_feature_cache(spark, tmp_path, model, catalog):
    first = begin(spark, tmp_path, model, catalog)
    rows = [item(n, catalog, jpeg(n % 12), f"toy {n % 7}", first.run_id) for n in range(20)]
    put(first, [*rows, item(20, catalog, None, "only text", first.run_id)])
    step.embed(first)
    cached = first.warehouse.read("tower_features").groupBy("fingerprint").count().collect()
    towers = towers_of(model)
    assert {r["fingerprint"]: r["count"] for r in cached} == {towers.vision: 12, towers.text: 8}

    other = retrained(model, tmp_path / "other")
    fresh = begin(spark, tmp_path / "fresh", other, catalog, "features.max_gb=0")
    put(fresh, [*rows, item(20, catalog, None, "only text", fresh.run_id)])
    step.embed(fresh)
    assert fresh.warehouse.read("tower_features").count() == 0
    for picture in catalog.glob("*.jpg"):
        picture.unlink()  # so no tower can run
    second = begin(spark, tmp_path, other, catalog)
    done = step.embed(second)
    assert (done.embedded, done.quarantined) == (21, 0) and done.figures["from_kept_features"] == 21
    version = versions_of(other)[0]
    got, expected = (
        {r["item_id"]: np.array(r["embedding"]) for r in night.warehouse.read("item_embeddings").where(F.col("model_version") == version).collect()}
        for night in (second, fresh)
    )
    assert got.keys() == expected.keys() and max(np.abs(got[k] - expected[k]).max() for k in got) < 1e-6
    assert second.warehouse.read("tower_features").count() == 20, "cached features are not appended again"


def test_the_feature_cache_stays_within_its_budget(spark, tmp_path, model, catalog):
    night = begin(spark, tmp_path, model, catalog)
    put(night, [item(n, catalog, jpeg(n), f"toy {n}", night.run_id) for n in range(12)])
    step.embed(night)
    first, size = towers_of(model), sum(cached_bytes(night).values())
    other = str(write_tiny_encoder(tmp_path / "other", seed=4))
    budget = begin(spark, tmp_path, other, catalog, f"features.max_gb={1.5 * size / 2**30}")
    assert shrink_cache(budget, towers_of(other)) == pytest.approx(size / 2, abs=2)
    full = begin(spark, tmp_path, other, catalog, f"features.max_gb={0.9 * size / 2**30}")
    assert cached_bytes(full).keys() == {first.vision, first.text}
    step.embed(full)
    after = cached_bytes(full)
    assert after.keys() <= {towers_of(other).vision, towers_of(other).text} and sum(after.values()) > 0, "features of other towers are deleted first"

    put(full, [item(n, catalog, jpeg(n), f"toy {n}", full.run_id, active=n >= 8) for n in range(12)])
    tight = begin(spark, tmp_path, other, catalog, f"features.max_gb={0.5 * sum(after.values()) / 2**30}")
    assert shrink_cache(tight, towers_of(other)) >= 0
    left = tight.warehouse.read("tower_features").select("source_hash").distinct().count()
    assert 0 < left <= 8 and sum(cached_bytes(tight).values()) <= 0.5 * sum(after.values())


def test_the_udf_returns_the_same_vector(spark, tmp_path, model, catalog):
    night = begin(spark, tmp_path, model, catalog)
    put(night, [item(n, catalog, jpeg(n), f"lamp {n}", night.run_id) for n in range(3)])
    step.embed(night)
    expected = vectors(night)
    register_udf(spark, night.settings, model)
    rows = [(f"item-{n}", jpeg(n), f"lamp {n}") for n in range(3)] + [("none", None, None)]
    spark.createDataFrame(rows, "item_id string, image binary, text string").createOrReplaceTempView("given")
    got = {r[0]: r[1] for r in spark.sql("SELECT item_id, tgq_embed(image, text, text) FROM given").collect()}
    assert got.pop("none") is None
    assert max(np.abs(np.array(got[k]) - expected[k]).max() for k in expected) < 1e-5


def test_a_model_folder_without_weights_fails_before_any_task(spark, tmp_path, model, catalog):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError):
        step.embed(begin(spark, tmp_path, str(tmp_path / "empty"), catalog))
