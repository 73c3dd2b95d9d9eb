"""Language models that see pictures, on real Spark and Delta: what they are shown, who is asked again, and what becomes of pictures that cannot be read."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.fixtures.endpoints import asked_item, is_evaluation, picture_of
from tests.fixtures.vision import encoded
from tgq.attributes.heads import AttributeHeads, HeadsConfig
from tgq.attributes.vocabulary import Vocabulary
from tgq.embedding.embed import embed
from tgq.enrichment import enrich as step
from tgq.enrichment.pictures import Pictures
from tgq.errors import ConfigError
from tgq.images.decode import ImageError
from tgq.night.ingestion import ingest
from tgq.run.records import run_step

COLOURS = {"a": "red", "b": "blue", "c": "red", "d": None}  # of the pictures; all items have one title
TITLE = "coffee mug large"


def write_shop(folder, colours=COLOURS, titles=None):
    folder.mkdir(exist_ok=True)
    rows = []
    for i, colour in colours.items():
        title = (titles or {}).get(i, TITLE)
        rows.append({"item_id": i, "title": title, "category": None, "group_id": "g", "attributes": "{}", "image": f"{i}.png" if colour else None})
        if colour:
            draw(folder, i, colour)
    pq.write_table(pa.Table.from_pylist(rows), folder / "catalog.parquet")


def draw(folder, i, colour):
    Image.new("RGB", (900, 600), colour).save(folder / f"{i}.png")


def colour_of(body):
    """The colour of a request's picture; None without one."""
    image = picture_of(body)
    if image is None:
        return None
    assert image.size == (448, 299) and image.format == "JPEG"
    red, _, blue = image.getpixel((200, 150))
    return "red" if red > blue else "blue"


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """A folder whose vocabulary asks for the colour of each item."""
    folder = tmp_path_factory.mktemp("vocabulary")
    AttributeHeads(HeadsConfig(Vocabulary({"colour": ("Red", "Blue")}, {"": ("colour",)}), "v", "t", 2, 2)).save(folder)
    return folder


@pytest.fixture
def begin(make_night, tmp_path):
    """begin(run_id, enrich): a night over the folder `shop`, which has been ingested."""

    def begin(run_id, enrich, **sections):
        columns = {"group_id": "group_id", "image_uri": "image", "image_bytes": None, "brand": None}
        night = make_night(run_id, enrich=enrich, catalog={"path": str(tmp_path / "shop"), "columns": columns}, **sections)
        run_step(night, "ingest", ingest)
        return night

    return begin


def enriched(night):
    return run_step(night, "enrich", step.enrich).figures


def items(night):
    return {row["item_id"]: row for row in night.warehouse.read("catalog_items").collect()}


def by_endpoint(place, **text):
    options = {"url": place.url, "model": "tiny", "allowed_hosts": ["127.0.0.1"], "retries": 0, "parallel": 2}
    return {"generator": "endpoint", "endpoint": options, "pictures": True} | text


def test_titles_follow_pictures_and_only_items_with_another_picture_are_asked_again(begin, tmp_path, serve):
    def answer(body):
        return "<STOP>" if is_evaluation(body) else json.dumps({"title": " ".join(filter(None, (colour_of(body), TITLE)))})

    shop = tmp_path / "shop"
    write_shop(shop)
    with serve(answer) as endpoint:
        enrich = {"text": by_endpoint(endpoint, refiner="model")}

        def asked():
            """What was asked since the last call: the colours of proposals."""
            found = sorted(str(colour_of(body)) for _, body in endpoint.requests if not is_evaluation(body))
            assert all(colour_of(body) for _, body in endpoint.requests if is_evaluation(body) and asked_item(body)["title"] != TITLE)
            endpoint.requests.clear()
            return found

        first = begin("night-1", enrich)
        (shop / "c.png").write_bytes(b"no picture any more")
        found = enriched(first)["text"]
        assert asked() == ["None", "blue", "red"], "c is not asked about, d has no picture"
        assert {k: found[k] for k in ("refined", "kept", "failed", "waiting", "applied", "reasons")} == {
            "refined": 2, "kept": 1, "failed": 1, "waiting": 0, "applied": 2, "reasons": {"failed.no_picture": 1}}  # fmt: skip
        assert {i: row["refined_title"] for i, row in items(first).items()} == {"a": f"red {TITLE}", "b": f"blue {TITLE}", "c": None, "d": None}
        row = first.warehouse.read("item_texts").where("item_id = 'c'").collect()[0]
        assert (row["verdict"], row["reason"], row["detail"]) == ("failed", "no_picture", "its picture cannot be read: not_an_image")

        draw(shop, "c", COLOURS["c"])
        second = begin("night-2", enrich)
        assert enriched(second)["text"]["failed"] == 0 and asked() == ["red"], "c alone"
        assert embed(second).embedded == 4
        third = begin("night-3", enrich)
        assert enriched(third)["carried"] and asked() == []

        draw(shop, "a", "blue")
        fourth = begin("night-4", enrich)
        assert enriched(fourth)["text"]["new"] == 1 and asked() == ["blue"], "a alone"
        assert items(fourth)["a"]["refined_title"] == f"blue {TITLE}" and embed(fourth).embedded == 1

        unseeing = begin("night-5", {"text": by_endpoint(endpoint, refiner="model", pictures=False)})
        found = enriched(unseeing)["text"]
        assert asked() == ["None"] * 4 and (found["kept"], found["applied"]) == (4, 0), "the other version sees no picture"
        draw(shop, "b", "red")
        assert enriched(begin("night-6", {"text": by_endpoint(endpoint, refiner="model", pictures=False)}))["text"]["new"] == 0 and asked() == []


def test_attributes_follow_pictures_and_only_items_with_another_picture_are_asked_again(begin, vocabulary, tmp_path, serve):
    shop = tmp_path / "shop"
    write_shop(shop, titles={"b": ""})  # b has a picture alone

    with serve(lambda body: json.dumps({"colour": colour_of(body)})) as endpoint:
        enrich = {"text": by_endpoint(endpoint), "attributes": {"source": "model", "folder": str(vocabulary)}}
        first = begin("night-1", enrich)
        (shop / "c.png").write_bytes(b"no picture any more")
        found = enriched(first)["attributes"]
        assert {k: found[k] for k in ("asked", "said", "silent", "failed", "reasons")} == {
            "asked": 4, "said": 2, "silent": 1, "failed": 1, "reasons": {"failed.no_picture": 1}}  # fmt: skip
        assert len(endpoint.requests) == 3
        said = {i: row["generated_attributes"] for i, row in items(first).items()}
        assert said == {"a": {"colour": "Red"}, "b": {"colour": "Blue"}, "c": None, "d": None}

        draw(shop, "c", "red")
        assert enriched(begin("night-2", enrich))["attributes"]["said"] == 3 and len(endpoint.requests) == 4
        assert enriched(begin("night-3", enrich))["carried"] and len(endpoint.requests) == 4
        draw(shop, "b", "red")
        fourth = begin("night-4", enrich)
        assert enriched(fourth)["attributes"]["new"] == 1 and len(endpoint.requests) == 5
        assert items(fourth)["b"]["generated_attributes"] == {"colour": "Red"}


def test_a_vision_language_model_in_the_workers_answers_for_both_parts(begin, vocabulary, qwen_vl_dir, tmp_path):
    write_shop(tmp_path / "shop")
    text = {"refiner": "model", "rounds": 1, "answer_tokens": 16, "local": {"model": str(qwen_vl_dir), "batch": 2}}
    tokens = {}
    for pictures in (False, True):
        night = begin(f"night-{pictures}", {"text": text | {"pictures": pictures}, "attributes": {"source": "model", "folder": str(vocabulary)}})
        found = enriched(night)
        assert found["text"]["reasons"] == {"refused.no_json": 4} and found["attributes"]["reasons"] == {"refused.no_json": 4}
        rows = {row["item_id"]: row["tokens"] for row in night.warehouse.read("item_attributes_generated").where("run_id = '" + night.run_id + "'").collect()}
        tokens[pictures] = rows
    assert all(tokens[True][i] > tokens[False][i] for i in "abc"), "pictures have tokens"
    assert tokens[True]["d"] < tokens[True]["a"]


def test_pictures_are_read_from_where_the_embed_step_may(begin, tmp_path):
    write_shop(tmp_path / "shop", {"a": "red"})
    pictures = Pictures.of(begin("night-1", {}, images={"max_pixels": 1_000_000}))
    inside = str(tmp_path / "shop" / "a.png")
    large = encoded(Image.new("RGB", (1001, 1000)))
    given = [(inside, None), (None, encoded(Image.new("RGB", (5, 5)))), ("/etc/hostname", None), ("http://127.0.0.1:9/x.png", None), (None, large)]
    rows = [{"image_hash": "h", "image_uri": uri, "image_bytes": data} for uri, data in given]
    read = pictures.read([*rows, {"image_hash": None, "image_uri": None, "image_bytes": None}])
    assert [one.reason if isinstance(one, ImageError) else one and one[:2] for one in read] == [
        b"\xff\xd8", b"\xff\xd8", "path_outside_catalog", "host_not_allowed", "decompression_bomb", None]  # fmt: skip


def test_a_model_of_texts_that_is_to_see_pictures_is_named_before_any_work(make_night, vocabulary, tmp_path):
    from tests.refinement.test_local import written

    local = {"pictures": True, "local": {"model": str(written(tmp_path / "llm"))}}
    for enrich in ({"text": {"refiner": "model"} | local}, {"text": local, "attributes": {"source": "model", "folder": str(vocabulary)}}):
        with pytest.raises(ConfigError, match="enrich.text.pictures is true, but the model .* reads no pictures") as caught:
            step.need_enrichment(make_night("night-1", enrich=enrich).settings)
        assert "\n" not in str(caught.value)
    step.need_enrichment(make_night("night-1", enrich={"text": {"refiner": "rules"} | local}).settings)


def test_a_dry_run_says_that_pictures_are_seen(make_night):
    enrich = {"text": {"refiner": "model", "pictures": True, "local": {"model": "models/seeing"}}}
    assert list(step.described(make_night("night-1", enrich=enrich).settings)) == [
        "enrich: titles are refined by the language model models/seeing in the workers, which sees the pictures, in up to 5 rounds"]  # fmt: skip
