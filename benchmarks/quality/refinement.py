"""What noisy titles cost, and how much of it refining them gives back: none, rules, and a language model if one is named.

    python benchmarks/quality/refinement.py [--catalogs fashion-x ...] [--model FOLDER] [--seeds 5] [--work build/quality] [--out FILE]

Titles are disturbed as feeds disturb them (`noisy`), train and test groups alike, and refined by each refiner. An encoder is `initialise`d on the
train groups with these titles, without gradient steps, so every refiner has an encoder of its own; queries and pool are all items of the test groups
with the same titles. Figures are means over the seeds of the noise; differences to no refinement are paired by query, with 95 % intervals by group.
The undisturbed titles are a ceiling, except where the shop's own are noisy too. A catalog may be run alone: the table of each is a file.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))

from catalogs import CATALOGS, Catalog, features, prepare, source_of, work_folder  # noqa: E402

import tgq  # noqa: E402
from tgq.catalog.fields import encoder_texts, readable_fields  # noqa: E402
from tgq.cli.console import ConsoleProgress  # noqa: E402
from tgq.encoder.config import EncoderConfig  # noqa: E402
from tgq.encoder.model import TGQFormer  # noqa: E402
from tgq.metrics.bootstrap import difference_interval, partial  # noqa: E402
from tgq.refinement.generators.local import LocalModel  # noqa: E402
from tgq.refinement.loop import ModelRefiner  # noqa: E402
from tgq.refinement.refiner import ItemText, Refiner  # noqa: E402
from tgq.refinement.rules import RuleRefiner  # noqa: E402
from tgq.settings.sections import MetadataSettings  # noqa: E402
from tgq.training.data.dataset import TrainingSet, text_features  # noqa: E402
from tgq.training.initialisation import initialise  # noqa: E402
from tgq.training.loss.ranking import first_ranks  # noqa: E402
from tgq.training.trainer import TrainConfig  # noqa: E402
from tgq.training.validation import embed  # noqa: E402

FIXED = TrainConfig(strength=0.375, closeup_share=0.25, base_floor=0.8)
CLEAN, NONE = "undisturbed", "none"
METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "H@1": lambda ranks: 100.0 * (ranks <= 1), "H@5": lambda ranks: 100.0 * (ranks <= 5), "MRR": lambda ranks: 100.0 / ranks,
}  # fmt: skip
# some that the rules know, and as many that they do not
OFFERS = ("Free Shipping", "50% OFF", "BEST SELLER", "New Arrival", "Hot Sale", "Hurry up", "Top quality", "Ships in 24h", "Only few left", "Original product")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogs", nargs="+", choices=[c.name for c in CATALOGS], default=["luma-x", "grocery-x", "fashion-x"])
    parser.add_argument("--model", help="language model: a folder, a hub name, or the name of a bundled model")
    parser.add_argument("--rounds", type=int, default=3, help="of the language model (default 3)")
    parser.add_argument("--seeds", type=int, default=5, help="draws of the noise (default 5)")
    parser.add_argument("--work", type=Path, default=Path("build/quality"), help="folder for features (default build/quality)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality"), help="folder for refinement-CATALOG.md")
    args = parser.parse_args()
    chosen = tuple(c for c in CATALOGS if c.name in args.catalogs)
    tower_input = {name: getattr(EncoderConfig(), name) for name in ("image_size", "closeups")}
    work = work_folder(args.work, tower_input)
    prepare(chosen, tower_input, work, ConsoleProgress(Console(stderr=True)))
    refiners: dict[str, Refiner] = {"rules": RuleRefiner()}
    if args.model:
        refiners["model"] = ModelRefiner(LocalModel(args.model), args.rounds, 150)
    for catalog in chosen:
        lines = [f"# Noisy titles: {catalog.name}", "", f"Closed form only, no gradient step. {args.seeds} draws of the noise.", *table(
            features(catalog, "train", work), features(catalog, "test", work), *items_of(catalog, work), refiners, range(args.seeds),
            lambda: TGQFormer(EncoderConfig()),
        )]  # fmt: skip
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"refinement-{catalog.name}.md").write_text("\n".join(lines) + "\n")
        print("\n".join(lines), flush=True)


def items_of(catalog: Catalog, work: Path) -> tuple[dict[str, ItemText], MetadataSettings]:
    """The texts of a catalog's items by id, as its profile reads them, and what of them the encoder may read."""
    settings = source_of(catalog, work).settings
    rows = tgq.open_warehouse(settings.warehouse.path).sql("SELECT item_id, title, brand, category, attributes FROM catalog_items").to_pylist()
    return {row["item_id"]: readable(row, settings.metadata) for row in rows}, settings.metadata


def readable(row: Mapping, metadata: MetadataSettings) -> ItemText:
    """What a refiner may read of a row of `catalog_items`."""
    fields = readable_fields({**row, "attributes": dict(row["attributes"] or ())}, metadata)
    return ItemText(fields["title"] or "", fields["brand"] or "", fields["category"] or "", {k: v for k, v in (fields["attributes"] or {}).items() if v})


def table(
    train: TrainingSet, test: TrainingSet, items: Mapping[str, ItemText], metadata: MetadataSettings, refiners: Mapping[str, Refiner], seeds: Sequence[int],
    made: Callable[[], TGQFormer],
) -> list[str]:  # fmt: skip
    """The lines of one catalog's table.

    made: builds the encoder that is then fitted; always with the same towers.
    """
    ranks: dict[str, list[np.ndarray]] = {}
    changed: dict[str, list[float]] = {}
    for seed in seeds:
        disturbed = {name: noisy(item, random.Random(f"{seed} {name}")) for name, item in items.items()}
        arms: dict[str, dict[str, str]] = {NONE: disturbed} | {name: refined(refiner, items, disturbed) for name, refiner in refiners.items()}
        if seed == seeds[0]:
            arms[CLEAN] = {name: item.title for name, item in items.items()}
        for name, titles in arms.items():
            encoder = made()
            learning, rows = (retitled(encoder, of, items, titles, metadata) for of in (train, test))
            torch.manual_seed(0)
            initialise(encoder, learning, FIXED)
            ranks.setdefault(name, []).append(first_ranks(embed(encoder.eval(), rows), rows, np.arange(len(rows))))
            changed.setdefault(name, []).append(float(np.mean([titles[i] != disturbed[i] for i in test.item])))
    lines = ["", f"| titles | changed, % | {' | '.join(f'{name} | difference' for name in METRICS)} |", "|---" * (2 + 2 * len(METRICS)) + "|"]
    for name in (CLEAN, NONE, *refiners):
        cells = [f"{compared(ranks[name], ranks[NONE], test.group, of)}" for of in METRICS.values()]
        lines.append(f"| {name} | {100 * np.mean(changed[name]):.0f} | {' | '.join(cells)} |")
    return lines


def noisy(item: ItemText, draw: random.Random) -> str:
    """A title as a careless feed has it: offers, decoration, capitals, repetitions, parts in another order. Empty titles stay empty."""
    words = item.title.split()
    if not words:
        return item.title
    if draw.random() < 0.3:
        at = draw.randrange(len(words))
        words = words[: at + 1] + words[at : at + 1] + words[at + 1 :]
    title = " ".join(words)
    if draw.random() < 0.3:
        title = title.upper()
    parts = [title]
    if item.brand and draw.random() < 0.3:
        parts.insert(draw.randrange(2), item.brand)
    if item.attributes and draw.random() < 0.2:
        parts.insert(0, item.attributes[draw.choice(sorted(item.attributes))])
    title = draw.choice((" - ", " | ")).join(parts)
    for _ in range(2):
        if draw.random() < 0.5:
            offer = draw.choice(OFFERS)
            title = draw.choice((f"{offer}! {title}", f"{title} - {offer}", f"★ {offer} ★ {title}", f"{title} {offer} !!!"))
    return title


def refined(refiner: Refiner, items: Mapping[str, ItemText], titles: Mapping[str, str]) -> dict[str, str]:
    """The titles that a refiner makes of these; where it makes none, the title as it is."""
    results = refiner.refine([replace(item, title=titles[name]) for name, item in items.items()])
    return {name: titles[name] if result.title is None else result.title for name, result in zip(items, results, strict=True)}


def retitled(encoder: TGQFormer, rows: TrainingSet, items: Mapping[str, ItemText], titles: Mapping[str, str], metadata: MetadataSettings) -> TrainingSet:
    """The rows with these titles: their texts go through the encoder's text tower. Both views of the metadata are the same."""
    read = [
        encoder_texts({"title": titles[i], "brand": items[i].brand, "category": items[i].category, "attributes": dict(items[i].attributes)}, metadata)
        for i in rows.item.tolist()
    ]  # fmt: skip
    texts, own = (list(dict.fromkeys(["", *(pair[n] for pair in read)])) for n in (0, 1))
    tokens, mask, pooled = text_features(encoder, dict.fromkeys(texts))
    title = text_features(encoder, dict.fromkeys(own))[2]
    for features_of in (pooled, title):
        features_of[0] = 0  # of the empty text
    at_text, at_title = ({text: n for n, text in enumerate(known)} for known in (texts, own))
    metadata_index = np.array([at_text[text] for text, _ in read])
    return replace(
        rows, text_tokens=tokens, text_mask=mask, text=pooled, texts=tuple(texts), title=title,
        metadata_index=np.stack([metadata_index, metadata_index], 1), title_index=np.array([at_title[name] for _, name in read]),
    )  # fmt: skip


def compared(found: Sequence[np.ndarray], base: Sequence[np.ndarray], group: np.ndarray, metric: Callable[[np.ndarray], np.ndarray]) -> str:
    """A metric over the queries, each the mean of its draws, and its paired difference to the base."""
    values, before = (np.mean([metric(ranks) for ranks in of], 0) for of in (found, base))
    judged = np.isfinite(found[0]) & np.isfinite(base[0])
    keys = pd.util.hash_array(group[judged].astype(object)).astype(np.uint64)
    low, high = difference_interval(*(partial(of[judged][:, None], keys) for of in (values, before)))
    difference = values[judged].mean() - before[judged].mean()
    return f"{values[judged].mean():.1f} | {difference:+.1f} [{float(low[0]):+.1f}, {float(high[0]):+.1f}]"


if __name__ == "__main__":
    main()
