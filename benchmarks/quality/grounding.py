"""What cropping pictures to their product is worth, on catalogs whose boxes are known: those of `tgq demo-catalog` and `tgq multiply`.

    python benchmarks/quality/grounding.py CATALOG [CATALOG ...] [--fitted-on CATALOG ...] [--detectors anchor saliency FOLDER ...] [--items N]
        [--work DIR] [--out FILE]

Two tables. The first has, for each detector, the overlap (intersection over union) of what it would embed with the true box, and the share of
pictures that it keeps whole. Its threshold is the one with the largest mean overlap on the train groups; the figures are of the test groups.

The second has the retrieval of test items among all test items, by an encoder in closed form, without gradient steps, that was fitted to the train
groups under the same view of their pictures. *own* fits to the catalog's own train groups, *transfer* to those of --fitted-on. The views are the
whole picture, the crop of each detector, the true box, which no detector can beat, the whole picture with close-ups of its quarters, and crop and
whole picture as two views whose vectors are added. All but the quarters are without close-ups. Differences from the whole picture are paired, with
95 % intervals by group.

Folders of one name, such as 0/luma and 1/luma, are draws of one shop: each is measured on its own, and their test items are counted together. What was
measured of a draw is kept in --work, so an interrupted study goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from PIL import Image

from tgq.catalog.fields import encoder_texts
from tgq.encoder.config import EncoderConfig
from tgq.encoder.model import TGQFormer
from tgq.encoder.packing import CachedImage, CachedText, half
from tgq.feeds import values
from tgq.grounding.box import WHOLE, Box, Found, Grounding, cropped, ground, overlap
from tgq.grounding.opening import open_detector
from tgq.grounding.policy import Policy
from tgq.images.decode import ImageError, ImageLimits
from tgq.inference.grounder import decode_for_crop
from tgq.metrics.bootstrap import difference_interval, partial
from tgq.settings.enrich import GroundingSettings
from tgq.settings.load import load_settings
from tgq.training.data.dataset import Row, TrainingSet
from tgq.training.data.split import split_of
from tgq.training.initialisation import initialise
from tgq.training.loss.ranking import first_ranks
from tgq.training.trainer import TrainConfig
from tgq.training.validation import embed

FIXED = TrainConfig(strength=0.375, closeup_share=0.25, base_floor=0.8)  # as in reliability.py
THRESHOLDS = tuple(n / 20 for n in range(20))
MARGIN = GroundingSettings().margin
BATCH = 16
METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"H@1": lambda r: r <= 1, "H@5": lambda r: r <= 5, "MRR": lambda r: 1 / r}


@dataclass(frozen=True)
class Item:
    """An item with its picture and the truth about it."""

    item_id: str
    group: str
    variant: str | None
    fields: dict[str, Any]
    metadata: str
    title: str
    picture: bytes
    box: Box
    distractors: int


@dataclass
class Side:
    """The train or test items of a catalog, with what is computed of them once.

    Attributes:
        texts: features of the items' texts.
        found: by detector, what it finds in each picture.
    """

    items: list[Item]
    texts: list[CachedText] = field(default_factory=list)
    found: dict[str, list[Found | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What is measured of n test items, of one draw of a catalog or of several."""

    group: np.ndarray  # [n]
    beside: np.ndarray  # [n] bool, the picture shows other products too
    thresholds: dict[str, np.ndarray]  # [draws], by detector, like the next two
    overlap: dict[str, np.ndarray]  # [n] of what is embedded with the true box, without a margin
    kept_whole: dict[str, np.ndarray]  # [n] bool
    ranks: dict[str, np.ndarray]  # [n] of the first positive, by view

    @classmethod
    def pooled(cls, draws: Sequence[Measured]) -> Measured:
        """The items of several draws together."""
        found = {}
        for name in cls.__dataclass_fields__:
            parts = [getattr(draw, name) for draw in draws]
            found[name] = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if isinstance(parts[0], dict) else np.concatenate(parts)
        return cls(**found)

    def save(self, file: Path) -> None:
        """Write an `.npz` file."""
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"{name}:{key}": array for name, value in self.__dict__.items() if isinstance(value, dict) for key, array in value.items()}
        np.savez(file, group=self.group.astype(str), beside=self.beside, **arrays)

    @classmethod
    def load(cls, file: Path) -> Measured:
        """Read a file that `save` wrote."""
        found: dict[str, Any] = {name: {} for name in cls.__dataclass_fields__}
        with np.load(file, allow_pickle=False) as arrays:
            for full in arrays.files:
                name, _, key = full.partition(":")
                if key:
                    found[name][key] = arrays[full]
                else:
                    found[name] = arrays[full]
        return cls(**found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogs", nargs="+", type=Path, metavar="CATALOG", help="folder that `tgq demo-catalog` or `tgq multiply` wrote")
    parser.add_argument("--fitted-on", nargs="+", type=Path, default=[], metavar="CATALOG", help="catalogs of other shops for the regime transfer")
    parser.add_argument("--regimes", nargs="+", choices=("own", "transfer"), default=["own"], help="transfer needs --fitted-on (default own)")
    parser.add_argument("--detectors", nargs="+", default=["anchor"], metavar="NAME", help="values of enrich.grounding.detector (default anchor)")
    parser.add_argument("--items", type=int, help="items of each catalog and side, whole groups; default: all")
    parser.add_argument("--work", type=Path, default=Path("build/grounding"), help="folder for what was measured (default build/grounding)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality/grounding.md"))
    args = parser.parse_args()
    if "transfer" in args.regimes and not args.fitted_on:
        parser.error("the regime transfer needs --fitted-on")
    boxes, retrieval = [], []
    for name in dict.fromkeys(catalog.name for catalog in args.catalogs):
        folders = [catalog for catalog in args.catalogs if catalog.name == name]
        for regime in args.regimes:
            found = Measured.pooled([kept(regime, folder, args) for folder in folders])
            boxes += [f"| {regime} | {name} | {len(folders)} | {line} |" for line in boxes_lines(found)]
            retrieval += [f"| {regime} | {name} | {line} |" for line in retrieval_lines(found)]
    heads = ("| regime | catalog | draws | detector | threshold | items | mean overlap | overlap of 0.5 or more | kept whole |",
             f"| regime | catalog | items | queries | view | {' | '.join(f'{m} | minus whole' for m in METRICS)} |")  # fmt: skip
    parts = [[head, "|---" * (head.count("|") - 1) + "|", *rows] for head, rows in zip(heads, (boxes, retrieval), strict=True)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(["# Grounded pictures", "", *parts[0], "", *parts[1]]) + "\n")
    print(args.out.read_text())


def kept(regime: str, folder: Path, args: argparse.Namespace) -> Measured:
    """What is measured of one draw, from `--work` if it was measured before."""
    sources = [folder] if regime == "own" else args.fitted_on
    asked = [str(path.resolve()) for path in (folder, *sources)] + [*args.detectors, str(args.items)]
    file = args.work / f"{folder.name}-{regime}-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]}.npz"
    if not file.is_file():
        measured(sources, folder, args.detectors, args.items).save(file)
        print(f"{folder}, {regime}: measured", flush=True)
    return Measured.load(file)


def measured(sources: Sequence[Path], catalog: Path, detectors: Sequence[str], most: int | None) -> Measured:
    """The figures of a catalog, for encoders that are fitted to the train groups of `sources`."""
    encoder = TGQFormer(EncoderConfig(closeups=0)).eval()
    train = Side([item for source in sources for item in read_items(source, "train", most)])
    test = Side(read_items(catalog, "test", most))
    for side in (train, test):
        side.texts = text_features(encoder, side.items)
    whole = fitted(encoder, train, [WHOLE] * len(train.items))
    thresholds = {}
    for name in detectors:
        detector = open_detector(policy_of(name), whole)
        for side in (train, test):
            side.found[name] = found_in(detector, side.items, name)
        thresholds[name] = max(THRESHOLDS, key=lambda t, name=name: (np.mean(overlaps(train, name, t)), -t))
    called = {name: Path(name).name for name in detectors}
    return Measured(
        np.array([item.group for item in test.items]), np.array([item.distractors > 0 for item in test.items]),
        {called[name]: np.array([threshold]) for name, threshold in thresholds.items()},
        {called[name]: overlaps(test, name, threshold) for name, threshold in thresholds.items()},
        {called[name]: np.array([one.kept_whole for one in decided(test, name, threshold, MARGIN)]) for name, threshold in thresholds.items()},
        ranks_of(encoder, train, test, thresholds),
    )  # fmt: skip


def policy_of(name: str) -> Policy:
    """The policy of a detector, which is asked for the last level of the category."""
    policy = Policy.of(GroundingSettings(detector=name), Path(__file__).parents[2] / "tgq/encoder/pretrained/default", "in closed form")
    assert policy is not None, "none is no detector"
    return policy


def read_items(folder: Path, side: str, most: int | None) -> list[Item]:
    """The train or test items with a picture and a box of a drawn or multiplied catalog; with `most`, the first groups that have so many."""
    profile = str(folder / "profile.yaml") if (folder / "profile.yaml").is_file() else "catalogs/demo"
    reads = load_settings(["local", profile], [f"catalog.path={folder}"], {}).settings.metadata
    rows = pq.read_table(folder / "catalog.parquet").to_pylist()
    rows = [row for row in rows if row["item_id"] and row["group_id"] and row["box"] and split_of(row["group_id"]) == side]
    rows.sort(key=lambda row: (hashlib.sha256(row["group_id"].encode()).hexdigest(), row["item_id"]))
    kept: dict[str, Item] = {}
    for row in rows:
        if most and len(kept) >= most and row["group_id"] != list(kept.values())[-1].group:
            break
        data = row.get("image_bytes") or (folder / row["image"]).read_bytes() if row.get("image_bytes") or row.get("image") else None
        attributes = row["attributes"] if isinstance(row["attributes"], str | None) else dict(row["attributes"])
        try:
            decode_for_crop(data or b"", ImageLimits(), 64)
            fields = {"title": row["title"], "brand": row["brand"], "category": values.category(row["category"], ">"),
                      "attributes": values.attributes(attributes)}  # fmt: skip
        except (ImageError, values.BadValue):  # one of the broken rows that a drawn catalog has on purpose
            continue
        metadata, title = encoder_texts(fields, reads)
        truth = tuple(row["box"]), row["distractors"] or 0
        kept[row["item_id"]] = Item(row["item_id"], row["group_id"], row["variant_id"], fields, metadata, title, data, *truth)
    return list(kept.values())


def decoded(items: Sequence[Item]) -> Iterator[Image.Image]:
    """The items' pictures, decoded as a night would for the default tower."""
    return (decode_for_crop(item.picture, ImageLimits(), EncoderConfig().image_size) for item in items)


def found_in(detector, items: Sequence[Item], name: str) -> list[Found | None]:
    """What a detector finds in each picture; nothing without a phrase."""
    policy, found = policy_of(name), []
    phrases = [policy.phrase(item.fields["category"], item.metadata) for item in items]
    pictures = decoded(items)
    for start in range(0, len(items), BATCH):
        part = [phrase or "" for phrase in phrases[start : start + BATCH]]
        found += detector.find([next(pictures) for _ in part], part)
    return [one if phrase is not None else None for one, phrase in zip(found, phrases, strict=True)]


def decided(side: Side, name: str, threshold: float, margin: float) -> list[Grounding]:
    """What is decided about each picture."""
    return [ground(one.box if one else None, one.score if one else 0.0, threshold, margin) for one in side.found[name]]


def crops(side: Side, name: str, threshold: float, margin: float = MARGIN) -> list[Box]:
    """What is embedded of each picture."""
    return [grounding.crop for grounding in decided(side, name, threshold, margin)]


def overlaps(side: Side, name: str, threshold: float) -> np.ndarray:
    """The overlap of each true box with what would be embedded without a margin."""
    return np.array([overlap(crop, item.box) for crop, item in zip(crops(side, name, threshold, 0.0), side.items, strict=True)])


def boxes_lines(found: Measured) -> Iterator[str]:
    """Thresholds, overlap with the true boxes, and share kept whole, by detector."""
    for name, shares in found.overlap.items():
        low, high = found.thresholds[name].min(), found.thresholds[name].max()
        threshold = f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"
        whole = 100 * found.kept_whole[name].mean()
        yield f"{name} | {threshold} | {len(shares)} | {shares.mean():.3f} | {100 * (shares >= 0.5).mean():.1f} % | {whole:.1f} %"


def ranks_of(encoder: TGQFormer, train: Side, test: Side, thresholds: dict[str, float]) -> dict[str, np.ndarray]:
    """Ranks of the test items, by view."""
    views = {"whole picture": lambda side: [WHOLE] * len(side.items)}
    for name, threshold in thresholds.items():
        views[f"crop of {Path(name).name}"] = lambda side, name=name, threshold=threshold: crops(side, name, threshold)
    views["true box"] = lambda side: [ground(item.box, 1.0, 0.0, MARGIN).crop for item in side.items]
    vectors, rows = {}, None
    for name, parts in views.items():
        rows = training_set(encoder, test, parts(test))
        vectors[name] = embed(fitted(encoder, train, parts(train)), rows)
    for name in [name for name in views if name.startswith("crop")]:
        both = vectors["whole picture"] + vectors[name]
        vectors[f"{name} + whole"] = both / np.linalg.norm(both, axis=1, keepdims=True)
    closer = TGQFormer(EncoderConfig()).eval()
    whole = views["whole picture"]
    vectors["quarters"] = embed(fitted(closer, train, whole(train)), training_set(closer, test, whole(test)))
    asked = np.arange(len(test.items))
    return {name: first_ranks(found, rows, asked) for name, found in vectors.items()}


def retrieval_lines(found: Measured) -> Iterator[str]:
    """A line for each view and slice of the test items."""
    whole = found.ranks["whole picture"]
    for slice_name, queries in {"all": np.ones_like(found.beside), "beside other products": found.beside, "alone": ~found.beside}.items():
        chosen = queries & np.isfinite(whole)
        for name, ranks in found.ranks.items():
            if chosen.any():
                cells = compared(ranks[chosen], whole[chosen], found.group[chosen], is_baseline=name == "whole picture")
                yield f"{slice_name} | {chosen.sum()} | {name} | {' | '.join(cells)}"


def compared(found: np.ndarray, whole: np.ndarray, group: np.ndarray, is_baseline: bool) -> Iterator[str]:
    """Each metric in percent, and its paired difference from the whole picture."""
    keys = pd.util.hash_array(group.astype(object)).astype(np.uint64)
    for metric in METRICS.values():
        after, before = (100.0 * metric(ranks).astype(float)[:, None] for ranks in (found, whole))
        low, high = difference_interval(partial(after, keys), partial(before, keys))
        yield f"{after.mean():.1f}"
        yield "" if is_baseline else f"{after.mean() - before.mean():+.1f} [{float(low[0]):+.1f}, {float(high[0]):+.1f}]"


@torch.no_grad()
def text_features(encoder: TGQFormer, items: Sequence[Item]) -> list[CachedText]:
    """Features of the items' texts, as the feature cache keeps them."""
    done: list[CachedText] = []
    for start in range(0, len(items), BATCH):
        part = items[start : start + BATCH]
        tokens, mask, pooled = encoder.encode_text([item.metadata for item in part])
        titles = encoder.encode_text([item.title for item in part])[2]
        done += [CachedText(half(tokens[n][mask[n]]), mask[n].numpy(), half(pooled[n]), half(titles[n])) for n in range(len(part))]
    return done


@torch.no_grad()
def training_set(encoder: TGQFormer, side: Side, parts: Sequence[Box]) -> TrainingSet:
    """The items as the encoder's towers see these parts of their pictures. Items of one group are relevant to each other, views of a variant not judged."""
    pictures, images = decoded(side.items), []
    for start in range(0, len(parts), BATCH):
        batch = torch.stack([encoder.vision.preprocess(cropped(next(pictures), part)) for part in parts[start : start + BATCH]])
        tokens, pooled = encoder.encode_image(batch)
        images += [CachedImage(half(tokens[n]), half(pooled[n])) for n in range(len(batch))]
    rows = (
        Row(item.item_id, item.group, "", hashlib.sha256(item.picture).hexdigest(), image, text, item.metadata, item.fields)
        for item, image, text in zip(side.items, images, side.texts, strict=True)
    )  # fmt: skip
    by_group: dict[str, list[Item]] = {}
    for item in side.items:
        by_group.setdefault(item.group, []).append(item)
    pairs = [
        (a.item_id, b.item_id, 0.0 if a.variant and a.variant == b.variant else 1.0) for group in by_group.values() for a, b in permutations(group, 2)
    ]  # fmt: skip
    return TrainingSet.build(encoder, rows, pairs)


def fitted(encoder: TGQFormer, side: Side, parts: Sequence[Box]) -> TGQFormer:
    """An encoder with the same towers, fitted in closed form to these parts of the pictures."""
    random.seed(0)
    torch.manual_seed(0)
    made = TGQFormer(encoder.config)
    initialise(made, training_set(encoder, side, parts), FIXED)
    return made.eval()


if __name__ == "__main__":
    sys.exit(main())
