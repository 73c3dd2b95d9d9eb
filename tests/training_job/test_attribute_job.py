"""Training of attribute heads as a job, on a drawn catalog through tiny towers."""

import json

import pytest

from tests.refinement.test_local import written
from tgq.attributes.heads import AttributeHeads, need_towers
from tgq.attributes.reinforce import ReinforceConfig
from tgq.attributes.reinforce_model import ModelReinforceConfig
from tgq.attributes.source import Asked
from tgq.attributes.training import AttributeTrainConfig
from tgq.demo.catalog import draw_catalog
from tgq.enrichment.attributes import head_features
from tgq.enrichment.attributes.plan import AttributePlan, need_attributes
from tgq.errors import SourceError, UsageError
from tgq.refinement.generators.local import LocalModel
from tgq.refinement.refiner import ItemText
from tgq.registry.loading import towers_of
from tgq.run.progress import Silent
from tgq.settings.sections import Settings
from tgq.training_job.attribute_job import LANGUAGE_MODEL, planned, train_attributes
from tgq.training_job.job import Source

FEW = AttributeTrainConfig(steps=20, min_items=5, min_groups=2)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop") / "demo"
    draw_catalog(folder, items=160, seed=3, size=64, workers=1)
    return folder


def test_a_catalog_trains_heads_and_its_attributes_never_reach_their_text(spark, tiny_encoder, demo, tmp_path, monkeypatch):
    source, out, read = Source.of_catalog(f"{demo}=catalogs/demo", tmp_path / "cache"), tmp_path / "heads", []
    real = head_features.as_asked

    def watched(items):
        asked = real(items)
        read.extend(asked.select("metadata_text", "texts").collect())
        return asked

    monkeypatch.setattr("tgq.training_job.attribute_job.as_asked", watched)
    made = train_attributes(spark, out, [source], str(tiny_encoder), FEW, 1000, Silent())
    heads, record = AttributeHeads.load(out), json.loads((out / "training.json").read_text())
    assert heads.version == made.version == record["version"] and record["items"] == made.items == len(read) > 50
    towers = towers_of(str(tiny_encoder))
    need_towers(heads.config, towers.vision, towers.text)
    assert set(made.values) == set(heads.keys) == {f.key for f in made.figures} and len(heads.keys) >= 2
    for row in read:
        texts = row["texts"]
        assert row["metadata_text"] == " | ".join(part for part in (texts["title"], texts["brand"], texts["category"]) if part)
    with pytest.raises(UsageError, match="already holds attribute heads"):
        train_attributes(spark, out, [source], str(tiny_encoder), FEW, 1000, Silent())
    monkeypatch.undo()
    again = train_attributes(spark, tmp_path / "again", [source], str(tiny_encoder), FEW, 1000, Silent())
    assert again == made, "the same command gives the same heads, from cached features"
    lines = list(planned(spark, [source], FEW, 1000, Silent()))
    assert lines[0] == f"items with attributes on the train side: {made.items}" and {line.split(":")[0] for line in lines[1:]} == set(heads.keys)


def test_reinforced_heads_are_judged_on_groups_that_neither_training_saw(spark, tiny_encoder, demo, tmp_path):
    source, how = Source.of_catalog(f"{demo}=catalogs/demo", tmp_path / "cache"), ReinforceConfig(steps=4, every=2, items=8, samples=4, lr=1e-3)
    made = train_attributes(spark, tmp_path / "heads", [source], str(tiny_encoder), FEW, 1000, Silent(), how)
    record = json.loads((tmp_path / "heads" / "training.json").read_text())["reinforcement"]
    assert [point["step"] for point in record["curve"]] == [0, 2, 4] and record["k"] == made.k == 1 and record["curve"][0]["reward"] is None
    assert AttributeHeads.load(tmp_path / "heads").version == made.version == made.reinforced.heads.version
    assert all(0 <= point.held_out_recall <= 1 and 0 <= point.train_recall <= 1 for point in made.reinforced.curve)
    whole = train_attributes(spark, tmp_path / "whole", [source], str(tiny_encoder), FEW, 1000, Silent())
    assert 0.6 * whole.items < made.items < 0.95 * whole.items
    with pytest.raises(UsageError, match="several sources are to reinforce the heads"):
        train_attributes(spark, tmp_path / "two", [source, source], str(tiny_encoder), FEW, 1000, Silent(), how)


def test_a_reinforced_language_model_stands_beside_the_heads_and_nights_ask_it(spark, tiny_encoder, demo, tmp_path):
    pytest.importorskip("trl", reason="trl is not installed: pip install 'tgq[reinforce]'")
    source, local = Source.of_catalog(f"{demo}=catalogs/demo", tmp_path / "cache"), LocalModel(str(written(tmp_path / "llm")), "cpu", answer_tokens=16)
    how, out = ModelReinforceConfig(steps=2, every=1, items=2, samples=2, evaluated=3), tmp_path / "heads"
    made = train_attributes(spark, out, [source], str(tiny_encoder), FEW, 1000, Silent(), how, local)
    record = json.loads((out / "training.json").read_text())["reinforcement"]
    assert record["language_model"] == local.reference and [point["step"] for point in record["curve"]] == [0, 1, 2]
    assert made.reinforced.step == 0 and record["curve"][0]["held_out_invalid"] == 1, "a random model writes no JSON"
    assert AttributeHeads.load(out).version == made.version, "the heads are the supervised ones"
    model = str(out / LANGUAGE_MODEL)
    enrich = {"attributes": {"source": "model", "folder": str(out)}, "text": {"local": {"model": model}, "answer_tokens": 16}}
    settings = Settings.model_validate({"enrich": enrich, "metadata": {"fields": ["title", "attributes"]}})
    need_attributes(settings)
    key = AttributeHeads.load(out).keys[0]
    [[answer]] = AttributePlan.of(settings).source("cpu").answers([Asked(ItemText("red shoe"), (key,))], None)
    assert (answer.key, answer.verdict, answer.reason) == (key, "refused", "no_json")


def test_a_shop_whose_attributes_may_not_be_read_has_nothing_to_learn(spark, tiny_encoder, demo, tmp_path):
    profile = tmp_path / "shop.yaml"
    profile.write_text("metadata: {fields: [title, category]}\n")
    source = Source.of_catalog(f"{demo}={profile}", tmp_path / "cache")
    with pytest.raises(SourceError, match="no item of demo on the train side states an attribute that the encoder may read: name more in metadata.fields"):
        train_attributes(spark, tmp_path / "heads", [source], str(tiny_encoder), FEW, 1000, Silent())
    assert not (tmp_path / "heads").exists()
