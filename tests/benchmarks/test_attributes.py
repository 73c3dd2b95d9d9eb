"""The study of generated attributes runs on a few dozen items: figures, reinforcement and page."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tgq.attributes.training import AttributeTrainConfig, train_heads
from tgq.encoder.model import TGQFormer
from tgq.encoder.packing import CachedImage
from tgq.encoder.text import metadata_text
from tgq.refinement.refiner import ItemText
from tgq.settings.sections import MetadataSettings
from tgq.training.data.dataset import Row, TrainingSet

COLOURS = ("red", "blue", "green")


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("benchmark_attributes", Path(__file__).parents[2] / "benchmarks" / "quality" / "attributes.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def side_of(study, encoder, name):
    """60 items in groups of three of one colour, which their picture shows."""
    draw, pictures, rows, texts = np.random.default_rng(0), {}, [], []
    for c in COLOURS:
        pictures[c] = draw.normal(size=encoder.vision.pooled_width)
    for n in range(60):
        colour = COLOURS[n // 3 % 3]
        tokens = draw.normal(size=(encoder.vision.tokens_per_image, encoder.vision.width)).astype("<f2")
        picture = CachedImage(tokens, (pictures[colour] + 0.1 * draw.normal(size=encoder.vision.pooled_width)).astype("<f2"))
        texts.append(ItemText(f"shoe {n // 3}", "Acme", "Home", {"color": colour, "mood": "ab"[n // 6 % 2]}))
        rows.append(
            Row(f"{name}-{n}", f"{name}-g{n // 3}", "shop", f"p{n}", picture, None, metadata_text(texts[-1].title, "Acme", "Home", texts[-1].attributes))
        )
    pairs = [(a.item, b.item, 1.0) for a in rows for b in rows if a is not b and a.group == b.group]
    built = TrainingSet.build(encoder, rows, pairs)
    return study.Side(built, texts, study.head_features(encoder, built, texts))


def test_the_study_says_what_generated_attributes_are_worth(study, tiny_encoder, tmp_path):
    torch.manual_seed(0)
    encoder = TGQFormer.from_pretrained(tiny_encoder)
    train, test = (side_of(study, encoder, name) for name in ("train", "test"))
    heads = train_heads(train.features, train.labelled, "study", "study", AttributeTrainConfig(steps=60, batch=32)).heads
    figures = {one.key: one for one in study.accuracy(heads, test)}
    assert figures["color"].accuracy > 0.9 and figures["color"].items == 60
    said = study.generated(heads, test)
    assert sum(own.get("color") == item.attributes["color"] for own, item in zip(said, test.texts, strict=True)) > 50
    ranks = study.ranks_of(encoder, test, [dict(item.attributes) for item in test.texts], MetadataSettings())
    assert np.isfinite(ranks).all() and np.array_equal(ranks, study.ranks_of(encoder, test, [item.attributes for item in test.texts], MetadataSettings()))
    means = study.mean_figures([{"key": "color", "items": 60, "accuracy": a, "coverage": 0.5, "precision": p} for a, p in ((0.8, None), (0.6, 0.9))])
    assert means["color"]["accuracy"] == pytest.approx(0.7) and means["color"]["precision"] == 0.9

    catalog = study.Catalog("toy", "toy", "none")
    found = study.Reinforcement(catalog, tmp_path, train, test, encoder, MetadataSettings(), 0.9, 2, 1).study(1, 0)
    arms = found["reinforcement"]["test"]
    assert set(arms) == {"supervised", "reinforced"} and 0 <= arms["reinforced"]["recall"][0] <= 1
    again = study.Reinforcement(catalog, tmp_path, train, test, encoder, MetadataSettings(), 0.9, 2, 1).study(1, 0)
    assert again == found, "what is done for a seed is kept"
    cells = dict.fromkeys(study.METRICS, "1.0 | +0.0 [+0.0, +0.0]")
    report = {"toy": {"train_items": 60, "test_items": 60, "precision": 0.9, "keys": means | {"mood": means["color"] | {"precision": None}},
                      "values": {"color": 3, "mood": 2}, "retrieval": {"hidden": cells}, **found}}  # fmt: skip
    study.write(report, tmp_path / "out", 1)
    page = (tmp_path / "out" / "attributes.md").read_text()
    assert "never said" in page and "## toy" in page and "reinforced" in page and json.loads((tmp_path / "out" / "attributes.json").read_text()) == report
