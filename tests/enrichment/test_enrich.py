"""The enrich step on real Spark and Delta: what readers see, what a second night does, and what is left after kills and failures."""

import json
import socket

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyspark.sql import functions as F

from tests.fixtures.endpoints import asked_item, is_evaluation
from tgq.catalog.enriched import as_read, ingested_version
from tgq.catalog.fields import content_hash, encoder_texts
from tgq.embedding.embed import embed
from tgq.encoder.model import TGQFormer
from tgq.enrichment import enrich as step
from tgq.enrichment import slices as sliced
from tgq.errors import ConfigError, EnrichmentError
from tgq.index.pool import pool_members
from tgq.night.ingestion import ingest
from tgq.night.nightly import Nightly
from tgq.registry.grounding import policy_of
from tgq.registry.loading import versions_of
from tgq.run.records import run_step
from tgq.training_job.query_sets import item_sample
from tgq.training_job.training_set import training_set

NOISY = {"a": "MUG mug FREE SHIPPING", "b": "blue bag bag", "c": "red shoe", "d": "watch 500GR", "e": ""}
CLEAN = {"a": "MUG", "b": "blue bag", "c": "red shoe", "d": "watch 500 g", "e": ""}
RULES = {"text": {"refiner": "rules"}}


def write_catalog(folder, titles, **changed):
    rows = [
        {"item_id": i, "title": title, "brand": "Acme", "category": "Home > Things", "group_id": f"g{n // 2}", "attributes": json.dumps({"colour": "red"})}
        | changed.get(i, {})
        for n, (i, title) in enumerate(titles.items())
    ]
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "catalog.parquet")


@pytest.fixture
def begin(make_night, tmp_path):
    """begin(run_id, enrich={...}): a night over the folder `shop`, which has been ingested."""

    def begin(run_id, enrich=RULES, **sections):
        catalog = {"path": str(tmp_path / "shop"), "columns": {"group_id": "group_id"}, "optional_columns": ["image_uri", "image_bytes"]}
        sections = {"catalog": catalog} | sections
        night = make_night(run_id, enrich=enrich, **sections)
        run_step(night, "ingest", ingest)
        return night

    return begin


def enriched(night):
    return run_step(night, "enrich", step.enrich).figures["text"]


def items(night):
    return {row["item_id"]: row for row in night.warehouse.read("catalog_items").collect()}


def texts(night):
    rows = night.warehouse.read("item_texts").collect()
    assert len({(row["item_id"], row["refiner_version"]) for row in rows}) == len(rows)
    return {row["item_id"]: (row["verdict"], row["reason"], row["title"], row["rounds"], row["tokens"]) for row in rows}


def embedded(night):
    return {row["item_id"]: np.array(row["embedding"]) for row in night.warehouse.read("item_embeddings").collect()}


def test_every_reader_sees_the_refined_titles_and_only_these_items_are_embedded_again(begin, tmp_path):
    write_catalog(tmp_path / "shop", NOISY)
    plain = begin("night-1", enrich={})
    assert not step.is_wanted(plain)
    embed(plain)
    before, vectors = items(plain), embedded(plain)

    night = begin("night-2")
    found = enriched(night)
    assert {k: found[k] for k in ("active", "refined", "kept", "untitled", "refused", "failed", "waiting", "applied", "new")} == {
        "active": 5, "refined": 3, "kept": 1, "untitled": 1, "refused": 0, "failed": 0, "waiting": 0, "applied": 3, "new": 4}  # fmt: skip
    after, changed = items(night), {"a", "b", "d"}
    assert {i for i in after if after[i]["content_hash"] != before[i]["content_hash"]} == changed
    for i, row in after.items():
        assert row["title"] == (NOISY[i] or None), "the shop's title stays"
        text, title = encoder_texts(row.asDict() | {"title": CLEAN[i]}, night.settings.metadata)
        assert (row["metadata_text"], row["encoder_title"]) == (text, title)
        assert row["content_hash"] == content_hash(None, text, title) and row["source_hash"] == before[i]["content_hash"]
    assert {r["item_id"]: r["title"] or "" for r in as_read(night.warehouse.read("catalog_items")).collect()} == CLEAN

    done = embed(night)
    assert (done.embedded, done.unchanged) == (3, 2)
    now = embedded(night)
    assert {i for i in now if not np.array_equal(now[i], vectors[i])} == changed
    members = pool_members(night, night.warehouse.versions("catalog_items", "item_embeddings", "item_features"), versions_of(night.model_folder)[0])
    assert {r["item_id"]: r["title"] or "" for r in members.select("item_id", "title").collect()} == CLEAN, "shards and their words"
    sample = item_sample(night, [], 10)
    assert {i: fields["title"] or "" for i, fields in zip(sample.ids, sample.fields, strict=True)} == CLEAN, "what queries are generated from"
    encoder = TGQFormer.from_pretrained(night.model_folder)
    rows = training_set(night, encoder, night.model_folder, night.warehouse.read("catalog_items"), "shop")
    read = {i: rows.texts[at] for i, at in zip(rows.item.tolist(), rows.metadata_index[:, 0], strict=True)}
    assert read == {i: row["metadata_text"] for i, row in after.items()}
    assert not any(noise in text for text in rows.texts for noise in ("SHIPPING", "bag bag", "500GR")), "in no view of the metadata"


def test_a_refined_item_keeps_the_version_of_its_pictures_crop(begin, tmp_path, grounding_dino_dir):
    """Otherwise another threshold would not embed it again."""
    write_catalog(tmp_path / "shop", NOISY, **{i: {"image_uri": f"{i}.png"} for i in "ac"})
    for i, colour in (("a", "red"), ("c", "blue")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / "shop" / f"{i}.png")
    catalog, seen = {"path": str(tmp_path / "shop"), "columns": {"group_id": "group_id", "image_uri": "image_uri", "image_bytes": None}}, {}
    for number, threshold in enumerate((0.3, 0.4)):
        grounding = {"detector": str(grounding_dino_dir), "threshold": threshold}
        night = begin(f"night-{number}", enrich=RULES | {"grounding": grounding}, catalog=catalog)
        enriched(night)
        policy, seen[threshold] = policy_of(night.settings.enrich.grounding, night.model_folder), items(night)
        for row in seen[threshold].values():
            crop = policy.crop(row["category"], row["metadata_text"]) if row["image_hash"] else None
            assert row["content_hash"] == content_hash(row["image_hash"], row["metadata_text"], row["encoder_title"], crop)
    assert seen[0.4]["a"]["refined_title"] == CLEAN["a"] and {i for i, row in seen[0.4].items() if row["image_hash"]} == {"a", "c"}
    assert {i for i in NOISY if seen[0.3][i]["content_hash"] != seen[0.4][i]["content_hash"]} == {"a", "c"}


def test_a_second_night_does_nothing_and_a_third_only_what_changed(begin, tmp_path):
    write_catalog(tmp_path / "shop", NOISY)
    first = begin("night-1")
    enriched(first)
    embed(first)
    tables = ("catalog_items", "item_texts", "item_embeddings", "relevance_pairs")
    versions = first.warehouse.versions(*tables)

    second = begin("night-2")
    result = run_step(second, "enrich", step.enrich)
    assert result.figures["carried"] and (result.figures["text"]["applied"], result.figures["text"]["new"], result.unchanged) == (3, 0, 5)
    assert (embed(second).embedded, second.warehouse.versions(*tables)) == (0, versions), "nothing is written, and pairs are not made again"

    # another noise, another attribute that is read, a group that is not, and a new item
    write_catalog(tmp_path / "shop", NOISY | {"b": "blue bag SALE", "f": "cup cup"}, c={"group_id": "other"}, d={"attributes": '{"colour": "blue"}'})
    third = begin("night-3")
    found = enriched(third)
    assert (found["new"], found["applied"]) == (3, 4), "b, d and f"
    done = embed(third)
    assert (done.embedded, done.unchanged) == (2, 4), "b has another source title and the same refined one, so its vector stays"
    assert {i: row["refined_title"] for i, row in items(third).items() if row["refined_title"]} == {
        "a": "MUG", "b": "blue bag", "d": "watch 500 g", "f": "cup"}  # fmt: skip


def test_a_row_that_changes_beside_its_texts_stays_enriched(begin, tmp_path):
    write_catalog(tmp_path / "shop", NOISY)
    enriched(begin("night-1"))
    write_catalog(tmp_path / "shop", NOISY, a={"group_id": "other"})
    night = begin("night-2", enrich={})
    row = items(night)["a"]
    assert (row["group_id"], row["refined_title"], row["encoder_title"]) == ("other", "MUG", "MUG")


def test_switched_off_every_item_has_its_own_title_again(begin, tmp_path):
    write_catalog(tmp_path / "shop", NOISY)
    plain = items(begin("night-0", enrich={}))
    first = begin("night-1")
    enriched(first)
    assert ingested_version(first.warehouse) < first.warehouse.version("catalog_items")
    off = begin("night-2", enrich={})
    assert step.is_wanted(off)
    assert enriched(off)["applied"] == 0
    read = ("metadata_text", "encoder_title", "content_hash", "refined_title")
    assert {i: [row[c] for c in read] for i, row in items(off).items()} == {i: [row[c] for c in read] for i, row in plain.items()}
    assert not step.is_wanted(begin("night-3", enrich={})), "undone once"


def test_what_the_encoder_may_not_read_is_neither_refined_nor_shown_to_the_refiner(begin, tmp_path, serve):
    write_catalog(tmp_path / "shop", NOISY)
    untitled = begin("night-1", metadata={"fields": ["category", "attributes"]})
    assert enriched(untitled)["untitled"] == 5

    def answer(body):
        assert set(asked_item(body)) <= {"title", "category"} and asked_item(body)["category"] == "Home"
        return "<STOP>" if is_evaluation(body) else json.dumps({"title": asked_item(body)["title"]})

    with serve(answer) as endpoint:
        night = begin("night-2", enrich=by_endpoint(endpoint), metadata={"fields": ["title", "category"], "category_levels": 1})
        assert enriched(night)["kept"] == 4 and endpoint.requests


def by_endpoint(place, on_failure="continue", **text):
    options = {"url": place if isinstance(place, str) else place.url, "model": "tiny", "allowed_hosts": ["127.0.0.1"], "retries": 0, "parallel": 2}
    options |= text.pop("endpoint", {})
    return {"on_failure": on_failure, "text": {"refiner": "model", "generator": "endpoint", "endpoint": options} | text}


def first_words(body):
    """A language model that proposes the first two words, and is content with them."""
    return "<STOP>" if is_evaluation(body) else json.dumps({"title": " ".join(asked_item(body)["title"].split()[:2])})


MANY = {f"i{n:02d}": f"blue bag number {n}" for n in range(24)}


def test_a_killed_run_continues_and_ends_with_the_result_of_one_run(begin, tmp_path, tables_in, serve, monkeypatch):
    def answer(body):
        text = asked_item(body)["title"]
        return '{"title": "Nike bag"}' if text.endswith("7") else first_words(body)

    write_catalog(tmp_path / "shop", MANY)
    with serve(answer) as endpoint:
        settings = by_endpoint(endpoint, slice_items=8, rounds=2)
        killed = begin("night-1", enrich=settings)
        real, slices = sliced._run_slice, []

        def dies(*args):
            if len(slices) == 1:
                raise KeyboardInterrupt
            slices.append(real(*args))
            return slices[-1]

        with monkeypatch.context() as patch:
            patch.setattr(sliced, "_run_slice", dies)
            with pytest.raises(KeyboardInterrupt):
                enriched(killed)
        done, asked = set(texts(killed)), len(endpoint.requests)
        assert 0 < len(done) < 24 and not any(row["refined_title"] for row in items(killed).values())

        resumed = begin("night-1", enrich=settings)
        found = enriched(resumed)
        again = {asked_item(body)["title"] for _, body in endpoint.requests[asked:]}
        assert again == {MANY[i] for i in MANY if i not in done}, "what was committed is not asked for again"
        result = texts(resumed)
    assert (found["refined"], found["refused"], found["new"], found["reasons"]) == (22, 2, 24, {"refused.invented_brand": 2})
    assert result["i00"] == ("refined", None, "blue bag", 1, 200) and result["i07"][:2] == ("refused", "invented_brand") and result["i07"][3:] == (2, 200)
    assert found["tokens"] == 24 * 200 and found["applied"] == 22
    assert {row["refined_title"] for i, row in items(resumed).items()} == {"blue bag", None}
    assert enriched(resumed) == found, "a third attempt of the run says the same"


def test_items_without_an_answer_are_embedded_as_they_are_and_asked_for_again(begin, tmp_path, serve):
    write_catalog(tmp_path / "shop", MANY)
    broken = [True]

    def answer(body):
        return (400, {}, b"") if broken[0] and asked_item(body)["title"].endswith("7") else first_words(body)

    with serve(answer) as endpoint:
        night = begin("night-1", enrich=by_endpoint(endpoint, "stop"))  # the endpoint is not down, so the night goes on
        found = enriched(night)
        assert (found["refined"], found["failed"], found["reasons"]) == (22, 2, {"failed.refused": 2})
        assert texts(night)["i07"][:3] == ("failed", "refused", None) and items(night)["i07"]["encoder_title"] == MANY["i07"]
        assert embed(night).embedded == 24
        asked, broken[0] = len(endpoint.requests), False
        again = begin("night-2", enrich=by_endpoint(endpoint))
        found = enriched(again)
        assert (found["refined"], found["failed"], found["new"], len(endpoint.requests) - asked) == (24, 0, 2, 4)
        assert embed(again).embedded == 2


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def test_an_endpoint_that_is_down_stops_the_night_or_not_as_configured(begin, tmp_path):
    write_catalog(tmp_path / "shop", MANY)
    url, said = closed_port(), []
    going = begin("night-1", enrich=by_endpoint(url, slice_items=6))

    class Listening(type(going.progress)):
        def say(self, line):
            said.append(line)

    object.__setattr__(going, "progress", Listening())
    found = enriched(going)
    [line] = said
    assert "they keep their titles; the others are not tried" in line and "\n" not in line
    assert found["failed"] + found["waiting"] == 24 and found["failed"] > 0 and found["waiting"] > 0 and found["applied"] == 0
    assert found["reasons"] == {"failed.unreachable": found["failed"]}
    assert embed(going).embedded == 24

    stopping = begin("night-2", enrich=by_endpoint(url, "stop"))
    with pytest.raises(EnrichmentError, match="no answer for 24 of 24 items .*set enrich.on_failure=continue") as stopped:
        enriched(stopping)
    assert "\n" not in str(stopped.value)


def test_a_run_spends_no_more_tokens_than_allowed_and_the_next_goes_on(begin, tmp_path, serve):
    write_catalog(tmp_path / "shop", MANY)
    with serve(first_words) as endpoint:
        limited = by_endpoint(endpoint, slice_items=8, endpoint={"max_tokens": 2000, "parallel": 1})
        first = begin("night-1", enrich=limited)
        found = enriched(first)
        assert len(endpoint.requests) <= 21 and 0 < found["refined"] < 24 and found["refined"] + found["waiting"] == 24
        assert len(texts(first)) == found["refined"], "an item that waits has no row"
        for n in range(2, 5):
            found = enriched(begin(f"night-{n}", enrich=limited))
    assert found["refined"] == 24


def test_a_model_in_the_workers_refines_in_spark(begin, tmp_path):
    from tests.refinement.test_local import written

    write_catalog(tmp_path / "shop", NOISY)
    local = {"model": str(written(tmp_path / "llm")), "batch": 2}
    night = begin("night-1", enrich={"text": {"refiner": "model", "local": local, "rounds": 2, "answer_tokens": 16}})
    found = enriched(night)
    assert (found["refused"], found["reasons"], found["rounds"]) == (4, {"refused.no_json": 4}, 8) and found["tokens"] > 1000
    assert embed(night).embedded == 5


def test_what_is_missing_is_said_before_any_work(begin, make_night, tmp_path, monkeypatch):
    monkeypatch.delenv("SHOP_LLM", raising=False)
    (tmp_path / "empty").mkdir()
    cases = {
        "model folder .* has no weights": {"text": {"refiner": "model", "local": {"model": str(tmp_path / "empty")}}},
        "SHOP_LLM holds no key": by_endpoint("http://127.0.0.1:9/v1", endpoint={"key_variable": "SHOP_LLM"}),
        "evil.test is not one of the allowed hosts": by_endpoint("http://evil.test/v1"),
    }
    for said, enrich in cases.items():
        night = make_night("night-1", enrich=enrich)
        with pytest.raises(Exception, match=said) as caught:
            Nightly(night).run(list(step_names()))
        assert isinstance(caught.value, ConfigError) or type(caught.value).__name__ == "ModelError"
    assert night.warehouse.read("pipeline_runs").where(F.col("step") == "ingest").isEmpty()


def step_names():
    from tgq.night.nightly import STEPS

    return STEPS


def test_a_step_with_nothing_to_do_says_so_and_leaves_no_record(make_night):
    night, said = make_night("night-1"), []

    class Listening(type(night.progress)):
        def say(self, line):
            said.append(line)

    object.__setattr__(night, "progress", Listening())
    Nightly(night).run(["enrich"])
    assert said == ["nothing to enrich: enrich.text.refiner and enrich.attributes.source are none"]
    assert not night.warehouse.rows("pipeline_runs", {"step": "enrich"})
    assert list(step.described(night.settings)) == []


def test_a_dry_run_says_how_titles_would_be_refined(make_night):
    assert list(step.described(make_night("n", enrich=RULES).settings)) == ["enrich: titles are refined by rules"]
    endpoint = by_endpoint("http://127.0.0.1:9/v1", endpoint={"max_tokens": 5000})
    assert list(step.described(make_night("n", enrich=endpoint).settings)) == [
        "enrich: titles are refined by the language model tiny at http://127.0.0.1:9/v1, in up to 5 rounds, at most 5,000 tokens a run"]  # fmt: skip
