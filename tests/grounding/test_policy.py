"""What a detector is asked for, and when the crop of an item's picture is outdated."""

import shutil
from dataclasses import replace

import pytest

from tgq.errors import ConfigError, ModelError
from tgq.grounding.phrases import Phrases
from tgq.grounding.policy import Policy
from tgq.settings.enrich import GroundingSettings


def policy(encoder, **settings):
    return Policy.of(GroundingSettings(**settings), encoder, "0123456789abcdef")


def test_without_a_file_the_phrase_is_the_last_level():
    assert [Phrases().of(c) for c in ("Women > Tops >  Tees", "Bags", "", None)] == ["Tees", "Bags", None, None]


def test_a_file_gives_phrases_by_category_and_by_those_above_it(tmp_path):
    file = tmp_path / "phrases.yaml"
    file.write_text("women>tops: a woman's top\nWomen > Tops > Tees: t-shirt\nGift cards: null\nGear: ''\n")
    phrases = Phrases.read(str(file))
    wanted = {"Women > Tops > Tees": "t-shirt", "Women > TOPS > Hoodies": "a woman's top", "Women": None, "Gift cards": None, "Gear > Bags": None, None: None}
    assert {category: phrases.of(category) for category in wanted} == wanted


@pytest.mark.parametrize("text", ["- a\n", "a: [b]\n", "1: b\n", "a: 2\n", "{", "a: &a [*a]\n", "\tb"])
def test_a_file_that_maps_nothing_is_a_named_error(tmp_path, text):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match="p.yaml"):
        Phrases.read(str(tmp_path / "p.yaml"))
    with pytest.raises(ConfigError, match="cannot be read"):
        Phrases.read(str(tmp_path / "none.yaml"))


def test_no_detector_is_no_policy(tiny_encoder_dir):
    assert policy(tiny_encoder_dir) is None


def test_a_version_changes_with_all_that_decides_a_crop(tiny_encoder_dir, grounding_dino_dir, tmp_path):
    folder = shutil.copytree(grounding_dino_dir, tmp_path / "detector")
    first = policy(tiny_encoder_dir, detector=str(folder))
    version = first.version("bag")
    assert len(version) == 16 and version == policy(tiny_encoder_dir, detector=str(folder)).version("bag")
    elsewhere = policy(tiny_encoder_dir, detector=str(shutil.copytree(folder, tmp_path / "moved")))
    assert elsewhere.version("bag") == version, "the same files in another folder are the same detector"
    changed = [
        first.version("bags"), replace(first, threshold=0.31).version("bag"), replace(first, margin=0.2).version("bag"),
        policy(tiny_encoder_dir, detector="anchor", threshold=0.3).version("bag"),
    ]  # fmt: skip
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\0")
    other = Policy.of(GroundingSettings(detector=str(shutil.copytree(folder, tmp_path / "other"))), tiny_encoder_dir, "0123456789abcdef")
    assert len({version, *changed, other.version("bag")}) == 6
    assert first.version(None) is None, "what no detector is asked for stays as it is, whatever the detector"


def test_each_kind_of_detector_is_asked_in_its_way(tiny_encoder_dir, grounding_dino_dir, dark_saliency):
    asked = {
        detector: policy(tiny_encoder_dir, detector=detector).phrase("Women > Tops", "red top | Women > Tops")
        for detector in (str(grounding_dino_dir), str(dark_saliency), "anchor")
    }
    assert list(asked.values()) == ["Tops", "", "red top | Women > Tops"]
    assert policy(tiny_encoder_dir, detector="anchor").phrase("Bags", "") is None
    assert policy(tiny_encoder_dir, detector=str(grounding_dino_dir)).phrase(None, "a text") is None
    assert {policy(tiny_encoder_dir, detector=d).threshold for d in asked} == {0.3, 0.6, 0.15}


def test_a_detector_that_is_not_there_is_a_named_error(tiny_encoder_dir, tmp_path):
    from tgq.encoder.tiny import write_tiny_encoder

    (tmp_path / "empty").mkdir()
    for detector, message in ((str(tmp_path / "none"), "does not exist"), (str(tmp_path / "empty"), "no weights"), ("x.onnx", "x.onnx does not exist")):
        with pytest.raises(ModelError, match=message):
            policy(tiny_encoder_dir, detector=detector)
    with pytest.raises(ModelError, match="no anchor"):
        policy(write_tiny_encoder(tmp_path / "blind", anchor=False), detector="anchor")
