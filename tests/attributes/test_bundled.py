"""The bundled heads load, and `default` names them unless a folder of that name is there."""

from tgq.attributes.heads import BUNDLED, AttributeHeads, heads_folder


def test_default_names_the_bundled_heads_unless_there_is_such_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert heads_folder("default") == BUNDLED and str(heads_folder("heads")) == "heads"
    heads = AttributeHeads.load(heads_folder("default"))
    assert heads.config.thresholds["color"] and "red" in heads.config.vocabulary.values["color"]
    (tmp_path / "default").mkdir()
    assert heads_folder("default") != BUNDLED
