"""Heads learn what features tell, are silent where they do not know, and are the same after they are written and read."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tgq.attributes.calibration import temperature_of, threshold_of
from tgq.attributes.heads import CONFIG, WEIGHTS, AttributeHeads, ItemFeatures, need_towers
from tgq.attributes.training import FOLDS, AttributeTrainConfig, fold_of, train_heads
from tgq.attributes.vocabulary import Labelled
from tgq.errors import ModelError, SourceError

OPTIONS = AttributeTrainConfig(steps=120, batch=64, precision=0.9)
COLOURS, SHAPES = ("red", "green", "blue"), ("round", "square")


def made(n=400, seed=0, noise=0.4):
    """Items whose picture tells the colour, whose text tells the shape, and whose mood nothing tells; a colour in 25 is rare."""
    draw = np.random.default_rng(seed)
    colour, shape, mood = draw.integers(3, size=n), draw.integers(2, size=n), draw.integers(2, size=n)
    image = np.eye(3)[colour] @ draw.normal(size=(3, 12)) + noise * draw.normal(size=(n, 12))
    text = np.eye(2)[shape] @ draw.normal(size=(2, 8)) + noise * draw.normal(size=(n, 8))
    image[::10] = 0.0
    rows = [
        Labelled(f"g{i // 2}", "", {"colour": f"rare {i}" if i % 25 == 1 else COLOURS[colour[i]], "shape": SHAPES[shape[i]], "mood": f"mood {mood[i]}"})
        for i in range(n)
    ]  # fmt: skip
    return ItemFeatures(image.astype(np.float32), text.astype(np.float32)), rows


@pytest.fixture(scope="module")
def trained():
    features, items = made()
    return features, items, train_heads(features, items, "vision", "text", OPTIONS)


def test_what_the_features_tell_is_said_with_the_wanted_precision_and_nothing_else(trained):
    figures = {f.key: f for f in trained[2].figures}
    assert figures["shape"].precision >= 0.88 and figures["shape"].coverage > 0.9
    assert figures["colour"].precision >= 0.88 and figures["colour"].coverage > 0.5
    assert figures["mood"].accuracy < 0.65 and figures["mood"].coverage < 0.1, "nothing tells it"
    assert trained[2].heads.config.thresholds["mood"] is None or trained[2].heads.config.thresholds["mood"] > 0.6


def test_scores_are_shares_of_right_values(trained):
    features, items, result = trained
    answers = result.heads.predict(features, [("shape",)] * len(items))
    score = np.array([row[0].score for row in answers])
    right = np.array([row[0].value == item.attributes["shape"] for row, item in zip(answers, items, strict=True)])
    assert abs(score.mean() - right.mean()) < 0.08


def test_a_side_that_is_missing_is_no_obstacle(trained):
    features, items, result = trained
    blind = ItemFeatures(np.zeros_like(features.image), features.text)
    heads = result.heads
    shapes, colours = ([row[0] for row in heads.predict(blind, [(key,)] * len(items))] for key in ("shape", "colour"))
    assert np.mean([said.value == item.attributes["shape"] for said, item in zip(shapes, items, strict=True)]) > 0.9
    assert np.mean([said.is_said for said in colours]) < 0.05, "without the picture the colour is not known"


def test_an_answer_depends_on_no_other_item_and_only_asked_keys_are_answered(trained):
    features, _, result = trained
    together = result.heads.predict(features[:6], [("shape", "colour"), (), ("mood",), ("colour",), ("shape",), ("colour", "mood", "shape")])
    assert [[said.key for said in row] for row in together] == [["shape", "colour"], [], ["mood"], ["colour"], ["shape"], ["colour", "mood", "shape"]]
    alone = result.heads.predict(features[3:4], [("colour",)])
    assert alone[0][0].value == together[3][0].value and abs(alone[0][0].score - together[3][0].score) < 1e-5


def test_a_threshold_of_ones_own_replaces_those_of_the_keys(trained):
    features, _, result = trained
    asked = [("colour", "mood", "shape")] * 50
    assert all(said.is_said for row in result.heads.predict(features[:50], asked, threshold=0.0) for said in row)
    assert not any(said.is_said for row in result.heads.predict(features[:50], asked, threshold=1.0) for said in row)


def test_the_same_seed_gives_the_same_heads_and_another_seed_others():
    features, items = made(120)
    few = replace(OPTIONS, steps=10)
    versions = [train_heads(features, items, "vision", "text", options).heads.version for options in (few, few, replace(few, seed=1))]
    assert versions[0] == versions[1] != versions[2]


def test_heads_are_read_as_they_were_written(trained, tmp_path):
    features, _, result = trained
    result.heads.save(tmp_path / "heads")
    again = AttributeHeads.load(tmp_path / "heads")
    asked = [("colour", "mood", "shape")] * len(features)
    assert again.version == result.heads.version and again.predict(features, asked) == result.heads.predict(features, asked)
    need_towers(again.config, "vision", "text")
    with pytest.raises(ModelError, match="other towers.*tgq train-attributes"):
        need_towers(again.config, "vision", "another text tower")


def test_a_broken_folder_is_an_error_in_one_line(trained, tmp_path):
    with pytest.raises(ModelError, match="has no attributes.json: name a folder that `tgq train-attributes` wrote"):
        AttributeHeads.load(tmp_path)
    trained[2].heads.save(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"half")
    with pytest.raises(ModelError, match="heads.safetensors cannot be read") as caught:
        AttributeHeads.load(tmp_path)
    assert "\n" not in str(caught.value)
    read = json.loads((tmp_path / CONFIG).read_text())
    for text, said in ((json.dumps(read | {"format": 99}), "has format 99"), ("{", "cannot be read"), ("[]", "cannot be read"), ("{}", "cannot be read")):
        (tmp_path / CONFIG).write_text(text)
        with pytest.raises(ModelError, match=said):
            AttributeHeads.load(tmp_path)


def test_too_few_groups_are_an_error_in_one_line():
    features, items = made(60)
    with pytest.raises(SourceError, match="60 items are of too few groups"):
        train_heads(features, [replace(item, group=f"g{n % 3}") for n, item in enumerate(items)], "vision", "text", OPTIONS)


def test_folds_are_of_groups():
    assert {fold_of(f"g{n}") for n in range(100)} == set(range(FOLDS)) and fold_of("g7") == fold_of("g7")


def test_the_temperature_undoes_what_made_logits_too_sure():
    draw = np.random.default_rng(0)
    logits = torch.from_numpy(draw.normal(size=(4000, 3)))
    target = torch.from_numpy(np.array([draw.choice(3, p=p) for p in logits.softmax(1).numpy()]))
    assert abs(temperature_of(logits * 3, target) - 3) < 0.4 and temperature_of(logits[:5], target[:5]) == 1.0


def test_the_threshold_is_the_lowest_that_reaches_the_precision():
    score = np.linspace(1, 0, 101)
    right = score >= 0.65  # of the 36 + n highest, 36 are right
    least = threshold_of(score, right, 0.9)
    said = score >= least
    assert right[said].mean() >= 0.9 and right[score >= least - 0.02].mean() < 0.9
    assert threshold_of(score, score < 2, 0.9) == pytest.approx(0.5, abs=1e-5), "what is likelier wrong than right is not said"
    assert threshold_of(score, ~right, 0.9) is None, "never reached"
    assert threshold_of(np.full(40, 0.7), np.arange(40) < 39, 0.99) is None, "equal scores are said together"
    assert threshold_of(score[:19], right[:19], 0.9) is None, "too few to tell"
