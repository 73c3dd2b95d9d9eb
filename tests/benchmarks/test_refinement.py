"""The comparison of refiners runs on a few dozen items, and noise that a refiner undoes costs nothing."""

import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tgq.encoder.model import TGQFormer
from tgq.encoder.packing import CachedImage
from tgq.refinement.refiner import ItemText, Refinement
from tgq.refinement.rules import RuleRefiner
from tgq.settings.sections import MetadataSettings
from tgq.training.data.dataset import Row, TrainingSet

KINDS = ("red shoe", "blue bag", "green lamp", "white mug", "grey sofa", "black watch")


@pytest.fixture(scope="module")
def refinement():
    spec = importlib.util.spec_from_file_location("benchmark_refinement", Path(__file__).parents[2] / "benchmarks" / "quality" / "refinement.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shop(tiny_encoder):
    """(train rows, test rows, texts by id): 48 items in groups of four, whose pictures are noise, so that titles alone tell."""
    torch.manual_seed(0)
    encoder, draw = TGQFormer.from_pretrained(tiny_encoder), np.random.default_rng(0)
    sides = []
    for side in ("train", "test"):
        ids = [f"{side}-{n}" for n in range(48)]
        rows = [
            Row(name, f"{side}-g{n // 4}", "shop", name, CachedImage(*(draw.normal(size=s).astype("<f2") for s in
                ((encoder.vision.tokens_per_image, encoder.vision.width), (encoder.vision.pooled_width,)))))
            for n, name in enumerate(ids)
        ]  # fmt: skip
        pairs = [(a, b, 1.0) for i, a in enumerate(ids) for j, b in enumerate(ids) if i != j and i // 4 == j // 4]
        sides.append(TrainingSet.build(encoder, rows, pairs))
    named = [(name, f"{KINDS[n // 4 % 6]} number {n // 4}") for rows in sides for n, name in enumerate(rows.item.tolist())]
    items = {name: ItemText(title, "Acme", "Home", {"size": "M"}) for name, title in named}
    return *sides, items


class Undoing:
    """Gives every title back as it was before the noise."""

    version = "undoing"

    def __init__(self, items):
        self.titles = [item.title for item in items.values()]

    def refine(self, items):
        return [Refinement.of(item.title, title) for item, title in zip(items, self.titles, strict=True)]


def test_a_table_has_a_line_for_each_refiner_and_undone_noise_costs_nothing(refinement, shop, tiny_encoder):
    train, test, items = shop
    refiners = {"rules": RuleRefiner(), "undone": Undoing(items)}
    lines = refinement.table(train, test, items, MetadataSettings(), refiners, range(2), lambda: TGQFormer.from_pretrained(tiny_encoder))
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[3:]}
    assert list(rows) == ["undisturbed", "none", "rules", "undone"] and all(len(cells) == 7 for cells in rows.values())
    assert rows["undone"][1::2] == rows["undisturbed"][1::2], "the same titles have the same figures"
    assert rows["none"][0] == "0" and rows["none"][2::2] == ["+0.0 [+0.0, +0.0]"] * 3
    assert float(rows["undisturbed"][1]) > float(rows["none"][1]), "noise costs something here"


def test_noise_is_drawn_by_seed_and_keeps_the_words(refinement):
    item = ItemText("blue cotton shirt", "Acme", "Shirts", {"size": "M"})
    drawn = [refinement.noisy(item, random.Random(seed)) for seed in range(50)]
    assert drawn == [refinement.noisy(item, random.Random(seed)) for seed in range(50)] and len(set(drawn)) > 25
    assert all(word in title.lower() for title in drawn for word in ("blue", "cotton", "shirt"))
    assert refinement.noisy(ItemText(""), random.Random(0)) == ""
