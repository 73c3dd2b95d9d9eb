"""Reference pages that are made from the code."""

import importlib.util

import pytest

from tests.docs.blocks import TOP


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("docs_generate", TOP / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_setting_says_what_it_means(generate):
    from tgq.settings.sections import Settings

    keys = [key for name, field in Settings.model_fields.items() for key, _ in generate.settings_of(field.annotation, name)]
    said = generate.descriptions()
    assert len(keys) > 80
    assert [key for key in keys if not said.get(key)] == [], "write a comment behind these fields in tgq/settings/sections.py"


def test_a_setting_has_its_type_and_the_default_of_a_night(generate):
    page = generate.configuration()
    items = "items of a Spark task: a quarter of them where the model is slow, eight times as many where it is fast"
    assert f"| `embed.task_items` | {items}<br><em>whole number ≥ 1</em> | `128` |" in page
    assert "| `gate.floors` |" in page and '"coverage": 0.9' in page  # from conf/base.yaml
    assert "<em>one of `auto`, `float32`, `bfloat16`</em>" in page


def test_every_command_is_on_the_page_with_its_options(generate):
    page = generate.cli()
    for name in ("nightly", "ingest", "index list", "index rollback", "config show", "train", "rollback-model", "demo-catalog", "multiply"):
        assert f"### tgq {name}\n" in page
    assert "| `--items NUMBER` | Number of items | `2000` |" in page
    assert "| `OUT` |" in page and "required" in page
    assert "| `image_size` | pixels per side" in page and "| `validation_share` | of the training groups | `0.15` |" in page
    assert "| `correlation` | the anchor is fitted" in page  # of a base class


def test_a_command_without_a_group_is_an_error(generate, monkeypatch):
    monkeypatch.setattr(generate, "GROUPS", {"A night": ("nightly",)})
    with pytest.raises(KeyError, match="commands without a group: put calibrate, config, demo-catalog"):
        generate.cli()


def test_every_column_of_every_table_is_on_the_page(generate):
    from tgq.storage.warehouse import TABLES

    page = generate.tables()
    for table in TABLES:
        assert f"### {table}\n" in page
    for file in (TOP / "sql" / "ddl").glob("*.sql"):
        columns = [line.split()[0] for line in file.read_text().splitlines() if line.startswith("  ") and not line.startswith("  '")]
        section = page.split(f"### {file.stem}\n")[1].split("\n##")[0]
        assert [c for c in columns if f"| `{c}` |" not in section] == []
    assert "| `model_version` | `STRING` | no |" in page and "| `ci_low` | `DOUBLE` | yes |" in page
