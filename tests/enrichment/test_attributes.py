"""Generated attributes on real Spark and Delta: who is asked, what the encoder reads then, and what is left after kills, failures and switching off."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.fixtures.endpoints import asked_item
from tgq.attributes.heads import AttributeHeads, HeadsConfig
from tgq.attributes.vocabulary import Vocabulary
from tgq.catalog.enriched import as_read
from tgq.catalog.fields import content_hash, encoder_texts
from tgq.embedding.embed import embed
from tgq.encoder.model import TGQFormer
from tgq.enrichment import enrich as step
from tgq.errors import ConfigError, ModelError
from tgq.night.ingestion import ingest
from tgq.registry.loading import towers_of
from tgq.run.records import run_step
from tgq.training_job.training_set import training_set

VOCABULARY = Vocabulary({"colour": ("Red", "Blue"), "mood": ("Calm", "Wild")}, {"": ("colour",), "Home > Lamps": ("colour", "mood")})
TITLES = {"a": "mug", "b": "bag", "c": "lamp", "d": "old lamp", "e": "cup", "f": ""}
ITEMS = {  # a has its colour, b an empty one, c and d are lamps, f has no text beside its category
    "a": {"attributes": {"colour": "green", "size": "L"}}, "b": {"attributes": {"colour": " ", "size": "M"}}, "c": {"category": "Home > Lamps"},
    "d": {"category": "Home > Lamps", "attributes": {"mood": "Calm"}}, "e": {}, "f": {},
}  # fmt: skip
PICTURES = "acd"
READ = ("metadata_text", "encoder_title", "content_hash", "generated_attributes")


def write_shop(folder, titles=TITLES, **changed):
    folder.mkdir(exist_ok=True)
    rows = []
    for n, (i, title) in enumerate(titles.items()):
        row = {"item_id": i, "title": title, "category": "Home > Things", "group_id": f"g{n // 2}", "attributes": {}, "image": None} | ITEMS.get(i, {})
        row |= {"image": f"{i}.png" if i in PICTURES else None} | changed.get(i, {})
        rows.append(row | {"attributes": json.dumps(row["attributes"])})
        if row["image"]:
            Image.new("RGB", (40, 30), (50 * n, 90, 200 - 20 * n)).save(folder / row["image"])
    pq.write_table(pa.Table.from_pylist(rows), folder / "catalog.parquet")


@pytest.fixture(scope="module")
def heads(tiny_encoder, tmp_path_factory):
    """Heads that say Red of every colour and nothing of a mood."""
    encoder, towers = TGQFormer.from_pretrained(tiny_encoder), towers_of(str(tiny_encoder))
    widths = encoder.vision.pooled_width, encoder.text.pooled_width
    made = AttributeHeads(HeadsConfig(VOCABULARY, towers.vision, towers.text, *widths, thresholds={"colour": 0.6, "mood": None}))
    with torch.no_grad():
        made.linear.bias[made.slices["colour"].start] = 3.0
        made.linear.weight.normal_(std=0.01, generator=torch.Generator().manual_seed(0))
    folder = tmp_path_factory.mktemp("heads")
    made.save(folder)
    return folder


@pytest.fixture
def begin(make_night, tmp_path):
    """begin(run_id, attributes, **sections): a night over the folder `shop`, which has been ingested."""

    def begin(run_id, attributes=None, **sections):
        columns = {"group_id": "group_id", "image_uri": "image", "image_bytes": None, "brand": None}
        enrich = {"attributes": attributes or {}} | sections.pop("enrich", {})
        night = make_night(run_id, enrich=enrich, catalog={"path": str(tmp_path / "shop"), "columns": columns}, **sections)
        run_step(night, "ingest", ingest)
        return night

    return begin


def enriched(night):
    return run_step(night, "enrich", step.enrich).figures["attributes"]


def items(night):
    return {row["item_id"]: row for row in night.warehouse.read("catalog_items").collect()}


def generated(night):
    rows = night.warehouse.read("item_attributes_generated").collect()
    assert len({(row["item_id"], row["key"], row["source_version"]) for row in rows}) == len(rows)
    return {(row["item_id"], row["key"]): row for row in rows}


def read_of(night):
    return {i: [row[name] for name in READ] for i, row in items(night).items()}


def test_heads_fill_in_what_is_missing_until_they_are_switched_off(begin, heads, tmp_path, monkeypatch):
    by_heads = {"source": "heads", "folder": str(heads)}
    write_shop(tmp_path / "shop")
    plain = read_of(begin("night-0"))

    first = begin("night-1", by_heads)
    with monkeypatch.context() as patch:  # killed between the table and what the encoder reads

        def dies(*args):
            raise KeyboardInterrupt

        patch.setattr(step, "apply_enrichment", dies)
        with pytest.raises(KeyboardInterrupt):
            enriched(first)
    before = first.warehouse.version("item_attributes_generated")
    found = enriched(first)
    assert first.warehouse.version("item_attributes_generated") == before, "what was committed is not asked for again"
    assert {k: found[k] for k in ("active", "complete", "asked", "waiting", "said", "silent", "refused", "failed", "applied", "new")} == {
        "active": 6, "complete": 1, "asked": 5, "waiting": 0, "said": 5, "silent": 1, "refused": 0, "failed": 0, "applied": 5, "new": 5}  # fmt: skip
    assert found["by_key"] == {"colour": 5} and found["reasons"] == {} and found["tokens"] == 0
    rows = generated(first)
    assert set(rows) == {("b", "colour"), ("c", "colour"), ("c", "mood"), ("d", "colour"), ("e", "colour"), ("f", "colour")}
    assert all(row["value"] == "Red" and row["score"] > 0.8 and row["verdict"] == "said" for (_, key), row in rows.items() if key == "colour")
    assert rows["c", "mood"]["verdict"] == "silent" and 0 < rows["c", "mood"]["score"] < 0.6

    now = items(first)
    for i, row in now.items():
        own = {key: value for key, value in ITEMS[i].get("attributes", {}).items() if value.strip()}
        wanted = own | ({} if i == "a" else {"colour": "Red"})
        text, title = encoder_texts(row.asDict() | {"attributes": wanted}, first.settings.metadata)
        assert (row["metadata_text"], row["encoder_title"]) == (text, title), i
        assert row["content_hash"] == content_hash(row["image_hash"], text, title) and row["source_hash"] == plain[i][2]
        assert dict(row["attributes"] or {}) == own, "the shop's attributes stay"
    assert {r["item_id"]: dict(r["attributes"] or {}).get("colour") for r in as_read(first.warehouse.read("catalog_items")).collect()} == {
        "a": "green", "b": "Red", "c": "Red", "d": "Red", "e": "Red", "f": "Red"}  # fmt: skip

    for picture in "cd":  # a has its colour, so the heads were not asked about it
        (tmp_path / "shop" / f"{picture}.png").rename(tmp_path / "shop" / f"{picture}.away")
    done = embed(first)
    assert done.embedded == 6 and done.quarantined in (0, None), "the towers have read the pictures for the heads, and are not run again"
    for picture in (tmp_path / "shop").glob("*.away"):
        picture.rename(picture.with_suffix(".png"))
    rows = training_set(first, TGQFormer.from_pretrained(first.model_folder), first.model_folder, first.warehouse.read("catalog_items"), "shop")
    assert {i: "colour: Red" in rows.texts[at] for i, at in zip(rows.item.tolist(), rows.metadata_index[:, 0], strict=True)} == {
        "a": False, "b": True, "c": True, "d": True, "e": True, "f": True}, "training and its attribute-guided loss read them too"  # fmt: skip

    tables = ("catalog_items", "item_attributes_generated", "item_embeddings", "tower_features")
    versions = first.warehouse.versions(*tables)
    second = begin("night-2", by_heads)
    result = run_step(second, "enrich", step.enrich)
    assert result.figures["carried"] and (result.figures["attributes"]["applied"], result.figures["attributes"]["new"], result.unchanged) == (5, 0, 6)
    assert (embed(second).embedded, second.warehouse.versions(*tables)) == (0, versions)

    # c has a mood now, e has a colour, b another title, and g is new
    changed = {"c": {"attributes": {"mood": "Wild"}}, "e": {"attributes": {"colour": "Pink"}}}
    write_shop(tmp_path / "shop", TITLES | {"b": "big bag", "g": "tray"}, **changed)
    third = begin("night-3", by_heads)
    found = enriched(third)
    assert (found["new"], found["complete"], found["applied"], found["said"], found["silent"]) == (3, 2, 5, 5, 0)
    assert {key for key, row in generated(third).items() if row["run_id"] == "night-3"} == {("b", "colour"), ("c", "colour"), ("g", "colour")}
    assert ("c", "mood") not in generated(third), "an attribute that is there now has no row"
    assert {i: row["generated_attributes"] for i, row in items(third).items()}["e"] is None
    assert embed(third).embedded == 4, "b, c, e and g"

    write_shop(tmp_path / "shop")
    begin("night-4", by_heads)
    off = begin("night-5")
    assert step.is_wanted(off) and enriched(off)["applied"] == 0
    undone = read_of(off)
    assert {i: undone[i] for i in plain} == plain, "everything is as before"
    assert not step.is_wanted(begin("night-6")), "undone once"


def by_endpoint(place, folder, **text):
    options = {"url": place.url, "model": "tiny", "allowed_hosts": ["127.0.0.1"], "retries": 0, "parallel": 2}
    return {"source": "model", "folder": str(folder)}, {"text": {"generator": "endpoint", "endpoint": options} | text}


def test_a_language_models_values_are_checked_and_what_it_does_not_answer_is_asked_again(begin, heads, tmp_path, serve):
    write_shop(tmp_path / "shop", {i: title and f"{title} of 3 parts" for i, title in TITLES.items()}, b={"attributes": {}}, f={"title": "no text"})
    broken = [True]

    def answer(body):
        title = asked_item(body)["title"]
        if title.startswith("bag"):
            return (400, {}, b"") if broken[0] else '{"colour": "blue"}'
        return {"lamp": '{"colour": "navy", "mood": null}', "old": '{"colour": "Zorlon", "weight": "3 kg"}', "cup": '{"colour": "Red 4"}',
                "no": "It is red."}[title.split()[0]]  # fmt: skip

    with serve(answer) as endpoint:
        attributes, enrich = by_endpoint(endpoint, heads, slice_items=3)
        night = begin("night-1", attributes, enrich=enrich)
        found = enriched(night)
        assert {k: found[k] for k in ("asked", "said", "silent", "refused", "failed", "applied", "new", "tokens")} == {
            "asked": 5, "said": 1, "silent": 1, "refused": 4, "failed": 1, "applied": 1, "new": 5, "tokens": 400}  # fmt: skip
        assert found["reasons"] == {"failed.refused": 1, "refused.invented_brand": 1, "refused.invented_number": 1, "refused.no_json": 1,
                                    "refused.unknown_key": 1}  # fmt: skip
        assert items(night)["c"]["generated_attributes"] == {"colour": "navy"} and "colour: navy" in items(night)["c"]["metadata_text"]
        assert embed(night).embedded == 6, "the others are embedded as they are"
        asked, broken[0] = len(endpoint.requests), False
        again = begin("night-2", attributes, enrich=enrich)
        found = enriched(again)
        assert (found["said"], found["failed"], found["new"], len(endpoint.requests) - asked) == (2, 0, 1, 1)
        assert generated(again)["b", "colour"]["value"] == "Blue", "in the spelling of the vocabulary"


def test_what_is_missing_is_said_before_any_work(make_night, heads, tmp_path):
    by_heads = {"attributes": {"source": "heads", "folder": str(heads)}}
    config = json.loads((heads / "attributes.json").read_text())
    other = tmp_path / "other"
    AttributeHeads.load(heads).save(other)
    (other / "attributes.json").write_text(json.dumps(config | {"vision": "0" * 16}))
    cases = [
        (ModelError, "has no attributes.json", {"enrich": {"attributes": {"source": "heads", "folder": str(tmp_path)}}}),
        (ModelError, "other towers", {"enrich": {"attributes": {"source": "heads", "folder": str(other)}}}),
        (ConfigError, "features.max_gb is 0: without the feature cache", {"enrich": by_heads, "features": {"max_gb": 0}}),
        (ConfigError, "metadata.fields has no attributes", {"enrich": by_heads, "metadata": {"fields": ["title"]}}),
    ]
    for kind, said, sections in cases:
        with pytest.raises(kind, match=said) as caught:
            step.need_enrichment(make_night("night-1", **sections).settings)
        assert "\n" not in str(caught.value)
    for attributes, said in (({"source": "heads"}, "enrich.attributes.folder: null"), ({"source": "model", "folder": "f"}, "enrich.text.local.model: null")):
        with pytest.raises(ValueError, match=said):
            make_night("night-1", enrich={"attributes": attributes})
    assert list(step.described(make_night("n", enrich=by_heads).settings)) == [f"enrich: missing attributes are generated by the heads in {heads}"]


def test_without_a_picture_that_can_be_read_the_item_is_counted_and_asked_again(begin, heads, tmp_path):
    write_shop(tmp_path / "shop")
    night = begin("night-1", {"source": "heads", "folder": str(heads)})
    (tmp_path / "shop" / "c.png").write_bytes(b"no picture any more")
    found = enriched(night)
    assert (found["asked"], found["failed"], found["reasons"], found["applied"]) == (5, 2, {"failed.no_picture": 2}, 4)
    write_shop(tmp_path / "shop")
    assert enriched(begin("night-2", {"source": "heads", "folder": str(heads)}))["failed"] == 0
    assert np.isfinite(generated(night)["c", "colour"]["score"])
