"""Settings: order of the layers, and one clear line for each mistake."""

import pytest

from tgq.errors import ConfigError
from tgq.settings.load import load_settings


def load(*overrides, profiles=(), **environ):
    return load_settings(profiles, overrides, environ)


def test_layers_apply_in_order_and_each_value_knows_its_origin(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("embed: {task_items: 7, slice_items: 70}\nindex: {keep_generations: 5}\n")
    loaded = load("embed.slice_items=71", profiles=["local", mine], TGQ__index__keep_generations="4")
    s = loaded.settings
    assert (s.embed.task_items, s.embed.slice_items, s.index.keep_generations) == (7, 71, 4)
    assert loaded.origin("embed.task_items") == str(mine)
    assert loaded.origin("embed.slice_items") == "--set embed.slice_items=71"
    assert loaded.origin("index.keep_generations") == "$TGQ__index__keep_generations"
    assert loaded.origin("spark.master") == "conf/local.yaml"
    assert loaded.origin("evaluate.level") == "built-in default"


CATALOGS = ("demo", "luma", "fashion", "fashion-queries", "grocery", "homedepot", "retrotech")


@pytest.mark.parametrize("profile", ["local", "cluster", *(f"catalogs/{name}" for name in CATALOGS)])
def test_every_shipped_profile_is_valid(profile):
    assert load(profiles=[profile]).settings.catalog.columns.item_id == "item_id"


@pytest.mark.parametrize("profile", ["shopify", "google-merchant", "woocommerce", "huggingface"])
def test_every_shipped_profile_of_a_shop_is_valid(profile):
    assert load(profiles=["local", f"catalogs/{profile}"]).settings.catalog.columns.item_id != "item_id"


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("embed.bach_tokens=3", r"embed\.bach_tokens: unknown key \(from --set embed\.bach_tokens=3\).*batch_tokens"),
        ("nosuch.key=3", r"nosuch: unknown key \(from --set nosuch\.key=3\)"),
        ("embed.task_items=many", r"embed\.task_items: .*integer.*'many'"),
        ("embed=3", r"embed: .*dictionary"),
        ("evaluate.level=1.5", r"evaluate\.level: .*less than 1"),
        ("pairs.source=table", r"pairs\.path: null, but pairs\.source is 'table'"),
        ("queries.judgments=grades.csv", r"queries\.path: null, but queries\.judgments is 'grades.csv'"),
        ("queries.irrelevant_grade=3", r"queries\.irrelevant_grade: 3 leaves no grade with a gain"),
        ("queries.relevant_grade=0", r"queries\.relevant_grade: 0 must be above queries\.irrelevant_grade \(0\)"),
        ("gate.floors.query_ndcg@20=0.3", r"gate\.floors: 'query_ndcg@20' is not measured .*query_ndcg@10"),
        ("evaluate.query_slices=[brand]", r"evaluate\.query_slices"),
        ("queries.clicks.thresholds=[1, 0.5]", r"queries\.clicks\.thresholds: \[1\.0, 0\.5\] must rise"),
        ("encoder.device=tpu", r"encoder\.device: .*'auto', 'cpu' or 'cuda'"),
        ("novalue", r"not of the form key\.path=value"),
        ("catalog.optional_columns=[colour]", r"unknown fields \['colour'\]"),
    ],
)
def test_a_mistake_names_key_origin_and_remedy(override, found):
    with pytest.raises(ConfigError, match=found) as caught:
        load(override)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_impossible_combinations_are_errors():
    with pytest.raises(ConfigError, match="bfloat16 needs a GPU"):
        load("encoder.device=cpu", "encoder.dtype=bfloat16")
    assert load("queries.highest_grade=1").settings.queries.highest_grade == 1, "without a click log nothing is graded by thresholds"
    with pytest.raises(ConfigError, match=r"queries\.clicks\.thresholds: 3 of them, but queries\.highest_grade is 1"):
        load("queries.highest_grade=1", "queries.clicks.path=clicks.csv")


def test_an_unknown_profile_lists_the_known_ones():
    with pytest.raises(ConfigError, match="catalogs/luma"):
        load(profiles=["lumma"])


def test_broken_yaml_names_the_file(tmp_path):
    (tmp_path / "bad.yaml").write_text("embed: [1\n")
    with pytest.raises(ConfigError, match="bad.yaml"):
        load(profiles=[tmp_path / "bad.yaml"])


def test_settings_are_frozen():
    with pytest.raises(Exception, match="frozen"):
        load().settings.embed.task_items = 3
