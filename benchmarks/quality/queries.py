"""How well queries of a search find items: BM25, the frozen text tower, and the query tower after each stage and over each item design.

    python benchmarks/quality/queries.py [--sets homedepot fashion retrotech demo] [--seeds 5] [--steps 200] [--work DIR] [--out DIR]

Queries are split by their text: half are for the test, 15 % of the others validate. Metrics are exact, over all items of the catalog;
unjudged items count as irrelevant, and judged NDCG@10 is over the judged items only. A figure is the mean over seeds of the mean over test queries.
Intervals are 95 %, bootstrapped over test queries of their means over seeds; differences are paired by query. The weights of a seed are chosen on
validation queries. All towers of a set have the same number of steps, divided among their stages. The learning rates, the temperature and the
number of trained layers of a set (BUDGETS) were chosen on its validation queries with seed 0.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from query_sets import SETS, QueryCatalog, dumped, read_catalog  # noqa: E402

from tgq.encoder.connectors.moe_bilinear import BilinearExperts  # noqa: E402
from tgq.encoder.layers.fusion import PlainFusion  # noqa: E402
from tgq.encoder.model import TGQFormer  # noqa: E402
from tgq.encoder.text import metadata_text, normalise  # noqa: E402
from tgq.errors import SourceError  # noqa: E402
from tgq.query_tower.config import QueryTowerConfig  # noqa: E402
from tgq.query_tower.tower import QueryTower  # noqa: E402
from tgq.query_training.config import QueryTrainConfig  # noqa: E402
from tgq.query_training.data.generate import Item, generated_queries  # noqa: E402
from tgq.query_training.data.judged import JudgedQueries  # noqa: E402
from tgq.query_training.initialisation import take_encoder_map  # noqa: E402
from tgq.query_training.item_side import ItemSide  # noqa: E402
from tgq.query_training.measure import metrics_of_ranks  # noqa: E402
from tgq.query_training.trainer import QuerySets, train_queries  # noqa: E402
from tgq.retrieval.bm25 import TextIndex  # noqa: E402

METRICS = ("ndcg@1", "ndcg@10", "recall@100", "mrr", "judged_ndcg@10")
REPLICATES = 2000


@dataclass(frozen=True)
class Variant:
    """A way to train a tower. `items`: the embeddings that it answers with; `joint`: the item side that is trained with it."""

    name: str
    stages: str = "domain,text,picture,both,fusion"
    items: str = "both"  # both, text or image: what the item embeddings are made of
    joint: str = ""  # plain, moe or tgq
    layers: int | None = None  # trained layers of the checkpoint; None: those of the set
    pictures: bool = False  # needs pictures
    generated: float = 0.0  # weight of the loss of generated queries in every stage


BUDGETS: dict[str, dict] = {
    "homedepot": {"trained_layers": 2, "lr": 3e-4, "layers_lr": 1e-4, "temperature": 0.05},
    "fashion": {"trained_layers": 0, "lr": 3e-3, "temperature": 0.02},
}  # of QueryTrainConfig; others have its defaults
WITH_GENERATED: dict[str, dict] = {"homedepot": {"lr": 1e-3}}  # likewise, where generated queries join in
MAIN = Variant("fusion only", stages="fusion")
ALL = Variant("all stages")
VARIANTS = (
    Variant("closed form only", stages=""),
    MAIN,
    ALL,
    Variant("domain, then fusion", stages="domain,fusion"),
    Variant("text, then fusion", stages="text,fusion"),
    Variant("picture, then fusion", stages="picture,fusion", pictures=True),
    Variant("text, picture, both, then fusion", stages="text,picture,both,fusion", pictures=True),
    Variant("both, then fusion", stages="both,fusion", pictures=True),
    Variant("text alone", stages="text"),
    Variant("picture alone", stages="picture", pictures=True),
    Variant("fusion with generated queries", stages="fusion", generated=1.0),
    Variant("all stages with generated queries", generated=1.0),
    Variant("reverse order", stages="fusion,both,picture,text,domain"),
    Variant("linear map alone", stages="fusion", layers=0),
    Variant("one layer trained", stages="fusion", layers=1),
    Variant("items: text alone", stages="fusion", items="text", pictures=True),
    Variant("items: text alone, with generated queries", stages="fusion", items="text", pictures=True, generated=1.0),
    Variant("items: picture alone", stages="fusion", items="image", pictures=True),
    Variant("joint: linear fusion", stages="fusion", joint="plain"),
    Variant("joint: mixture of bilinear experts", stages="fusion", joint="moe"),
    Variant("joint: TGQ-Former's head", stages="fusion", joint="tgq", pictures=True),
)
BEST = "fusion with generated queries"
HYBRIDS = (MAIN.name, BEST)  # also fused with BM25
PAIRS = ("bm25", "frozen text tower", "encoder, query as title", "closed form only")
DIFFERENCES = (*((name, other) for name in HYBRIDS for other in PAIRS), *((f"{name} + bm25", "bm25") for name in HYBRIDS),
               (MAIN.name, "items: text alone"), (ALL.name, MAIN.name), ("reverse order", ALL.name), (BEST, MAIN.name),
               ("all stages with generated queries", BEST), (BEST, "items: text alone, with generated queries"),
               *((variant.name, MAIN.name) for variant in VARIANTS if variant.joint or variant.layers is not None))  # fmt: skip


class FrozenTower(QueryTower):
    """A tower whose checkpoint is not trained: the features of a text are computed once for all trials."""

    known: dict[str, torch.Tensor] = {}

    def pooled(self, texts):
        if new := [text for text in dict.fromkeys(texts) if text not in self.known]:
            self.known.update(zip(new, super().pooled(new), strict=True))
        return torch.stack([self.known[text] for text in texts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=["homedepot", "fashion", "retrotech"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200, help="batches of a training, divided among its stages")
    parser.add_argument("--variants", nargs="+", help="names of variants (default: all)")
    parser.add_argument("--work", type=Path, default=Path("build/quality-queries"), help="folder for features and finished trials")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality"))
    args = parser.parse_args()
    for name in args.sets:
        try:
            catalog = read_catalog(name, args.work)
        except SourceError as error:
            print(error)
            continue
        found = study(catalog, args)
        (args.out / f"queries-{name}.json").write_text(dumped(found["figures"]))
        (args.out / f"queries-{name}.md").write_text(table(catalog, found, args))
        print((args.out / f"queries-{name}.md").read_text(), flush=True)


def study(catalog: QueryCatalog, args: argparse.Namespace) -> dict:
    """Per-query metrics of all systems, float64 [seeds, Q] by system and metric, and summaries of them."""
    training, validation, test = catalog.parts()
    systems: dict[str, dict[str, np.ndarray]] = {name: {m: v[None] for m, v in found.items()} for name, found in baselines(catalog, test).items()}
    for name, values in systems.items():
        print(f"{catalog.name}, {name}: " + ", ".join(f"{m} {values[m].mean():.3f}" for m in METRICS), flush=True)
    chosen = [v for v in VARIANTS if (catalog.items.image.shape[1] or not v.pictures) and (not args.variants or v.name in args.variants)]
    for variant in chosen:
        seeds = [trial(catalog, variant, seed, (training, validation, test), args) for seed in range(args.seeds)]
        systems[variant.name] = {metric: np.stack([seed[metric] for seed in seeds]) for metric in METRICS}
        if variant.name in HYBRIDS:
            fused = [hybrid(catalog, seed["asking"], test) for seed in seeds]
            systems[f"{variant.name} + bm25"] = {metric: np.stack([found[metric] for found in fused]) for metric in METRICS}
        print(f"{catalog.name}, {variant.name}: " + ", ".join(f"{m} {systems[variant.name][m].mean():.3f}" for m in METRICS), flush=True)
    figures = {name: {metric: summary(values) for metric, values in found.items()} for name, found in systems.items()}
    differences = {f"{a} - {b}": {m: difference(systems[a][m], systems[b][m]) for m in METRICS} for a, b in DIFFERENCES if a in systems and b in systems}
    counts = {"items": len(catalog.ids), "training": len(training), "validation": len(validation), "test": len(test), "seeds": args.seeds, "steps": args.steps}
    return {"figures": {"catalog": catalog.name, "counts": counts, "systems": figures, "differences": differences}}


def baselines(catalog: QueryCatalog, test: JudgedQueries) -> dict[str, dict[str, np.ndarray]]:
    """BM25 of the metadata texts, the frozen text tower on both sides, and the encoder that reads the query as a title."""
    encoder = TGQFormer.from_pretrained("default")
    asking, titles = [], []
    with torch.no_grad():
        for part in np.array_split(np.arange(len(test)), -(-len(test) // 64)):
            asking.append(encoder.text.pooled([normalise(test.texts[i]) for i in part]).numpy())
            words = [metadata_text(test.texts[i], None, None, None) for i in part]
            titles.append(encoder.encode(None, torch.full((len(part),), -1), words, [""] * len(part)).embedding.numpy())
    return {
        "bm25": of_bm25(catalog.texts, test),
        "frozen text tower": measured(unit(np.concatenate(asking)), unit(catalog.items.text), test),
        "encoder, query as title": measured(np.concatenate(titles), catalog.items.vectors, test),
    }


def of_bm25(texts: list[str], queries: JudgedQueries) -> dict[str, np.ndarray]:
    """Metrics of BM25."""
    index = TextIndex.build(texts)
    return of_scores((index.scores(text) for text in queries.texts), queries)


def measured(asking: np.ndarray, vectors: np.ndarray, queries: JudgedQueries) -> dict[str, np.ndarray]:
    """Metrics of unit vectors of queries and items."""
    return of_scores((row for start in range(0, len(asking), 256) for row in asking[start : start + 256] @ vectors.T), queries)


def hybrid(catalog: QueryCatalog, asking: np.ndarray, queries: JudgedQueries) -> dict[str, np.ndarray]:
    """Metrics of the tower's ranking fused with BM25's by reciprocal ranks, of the first 1000 places of each, as `tgq search --hybrid` does."""
    index = TextIndex.build(catalog.texts)

    def fused(vector: np.ndarray, text: str) -> np.ndarray:
        total = np.zeros(len(catalog.ids))
        for scores in (catalog.items.vectors @ vector, index.scores(text)):
            best = np.argsort(-scores, kind="stable")[:1000]
            total[best] += np.where((scores[best] > 0) | (scores.min() < 0), 1 / (60 + np.arange(1, len(best) + 1)), 0)
        return total

    return of_scores((fused(vector, text) for vector, text in zip(asking, queries.texts, strict=True)), queries)


def of_scores(scores: Iterable[np.ndarray], queries: JudgedQueries) -> dict[str, np.ndarray]:
    """Metrics over all items, and over the judged items, from the scores of each query, float32 [N].

    Equal scores, to 6 decimals, are in an order of the items that is random and the same for all systems: many items of a shop have one text.
    """
    ranks, judged = np.zeros(len(queries.items), np.int64), np.zeros(len(queries.items), np.int64)
    for number, row in enumerate(scores):
        own = slice(queries.offsets[number], queries.offsets[number + 1])
        order = np.random.default_rng(0).permutation(len(row))
        place = np.empty(len(row), np.int64)
        place[order[np.argsort(-np.round(row, 6 if row.dtype == np.float32 else 12)[order], kind="stable")]] = np.arange(1, len(row) + 1)
        ranks[own] = place[queries.items[own]]
        judged[own] = np.argsort(np.argsort(ranks[own])) + 1
    return {**metrics_of_ranks(queries, ranks), "judged_ndcg@10": metrics_of_ranks(queries, judged)["ndcg@10"]}


def trial(catalog: QueryCatalog, variant: Variant, seed: int, parts: tuple[JudgedQueries, ...], args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Metrics of the test queries after one training; finished trials are kept in `args.work`."""
    kept = args.work / "trials" / f"{catalog.name}-{variant.name.replace(' ', '-').replace(',', '').replace(':', '')}-{args.steps}-{seed}.npz"
    if kept.is_file():
        return dict(np.load(kept))
    began = time.perf_counter()
    training, validation, test = parts
    vectors = {"both": catalog.items.vectors, "text": catalog.text_only, "image": catalog.image_only}[variant.items]
    items = replace(catalog.items, vectors=vectors)
    if variant.items == "text":
        items = replace(items, image=np.zeros((len(items), 0), np.float32))
    side = item_side(catalog, variant.joint, seed) if variant.joint else None
    if side is not None:
        items = replace(items, vectors=side.vectors())
    budget = BUDGETS.get(catalog.name, {}) | (WITH_GENERATED.get(catalog.name, {}) if variant.generated else {})
    if variant.layers is not None:
        budget["trained_layers"] = variant.layers
    names = [n for n in variant.stages.split(",") if n and (items.image.any() or n not in ("picture", "both"))]
    steps = args.steps // max(1, len(names))
    options = QueryTrainConfig(seed=seed, stages=",".join(names), steps=steps, joint=side is not None, evaluate_every=max(10, steps // 4),
                               generated_weight=variant.generated, **budget)  # fmt: skip
    texts = [Item(row["title"] or "", row["brand"] or "", row["category"] or "", dict(row["attributes"] or {})) for row in catalog.fields]
    made = generated_queries(texts, 1, 0)  # the same for all seeds, whose batches and random items differ
    made = [made[i] for i in np.random.default_rng(0).permutation(len(made))[: options.domain_queries]]
    generated = JudgedQueries.of_single_items([query.text for query in made], np.array([query.item for query in made]))
    torch.manual_seed(seed)
    design = QueryTower if options.trained_layers else FrozenTower
    tower = design(QueryTowerConfig("0" * 16, vectors.shape[1], trained_layers=options.trained_layers)).eval()
    take_encoder_map(tower, TGQFormer.from_pretrained("default").head.base)
    history = train_queries(tower, items, QuerySets(training, validation, generated), options, side, prior=True)
    print("   ", [(row["stage"], row["step"], round(float(row["validation_ndcg"]), 4)) for row in history], flush=True)
    asking = tower.encode_queries(list(test.texts))
    found = measured(asking, side.vectors() if side is not None else vectors, test) | {"asking": asking}
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.savez(kept, **found, seconds=np.array(time.perf_counter() - began))
    return found


def item_side(catalog: QueryCatalog, kind: str, seed: int) -> ItemSide:
    """An item side that starts as the bundled encoder's linear base: on the plain picture features, or on those its connector has shifted."""
    encoder = TGQFormer.from_pretrained("default")
    start, items = encoder.head.base, catalog.items
    image, text = encoder.vision.pooled_width, encoder.text.pooled_width
    if not items.image.shape[1]:
        items = replace(items, image=np.zeros((len(items), image), np.float32))
    if kind == "tgq":
        return ItemSide(start, replace(items, image=catalog.shifted))
    torch.manual_seed(seed)
    design = BilinearExperts if kind == "moe" else PlainFusion
    base = design(image, text, encoder.dim, encoder.config.image_root, encoder.config.imputation)
    base.load_state_dict(start.state_dict(), strict=False)
    return ItemSide(base, items)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def summary(values: np.ndarray) -> dict[str, float]:
    """Mean, interval over queries, and standard deviation over seeds, of values [seeds, Q]."""
    low, high = interval(values.mean(0))
    return {"mean": float(values.mean()), "low": low, "high": high, "seeds_std": float(values.mean(1).std())}


def difference(ours: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Paired difference by query, with its interval, and the relative gain."""
    own, base = ours.mean(0), other.mean(0)
    low, high = interval(own - base)
    return {"mean": float((own - base).mean()), "low": low, "high": high, "relative": float(own.mean() / max(base.mean(), 1e-12) - 1)}


def interval(values: np.ndarray) -> tuple[float, float]:
    draws = np.random.default_rng(0).integers(0, len(values), (REPLICATES, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def table(catalog: QueryCatalog, found: dict, args: argparse.Namespace) -> str:
    """The figures in Markdown."""
    figures, counts = found["figures"], found["figures"]["counts"]
    sizes = f"{counts['items']:,} items; {counts['training']:,} training, {counts['validation']:,} validation and {counts['test']:,} test queries"
    how = f"{counts['seeds']} seeds, {counts['steps']} steps. In percent, with 95 % intervals over queries."
    lines = [f"# Queries of `{catalog.name}`", "", f"{sizes}; {how}", ""]
    lines += ["| system | " + " | ".join(METRICS) + " |", "|---" * (len(METRICS) + 1) + "|"]
    for name, metrics in figures["systems"].items():
        cells = [f"{100 * metrics[m]['mean']:.1f} [{100 * metrics[m]['low']:.1f}, {100 * metrics[m]['high']:.1f}]" for m in METRICS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| difference | " + " | ".join(METRICS) + " | relative, ndcg@1 |", "|---" * (len(METRICS) + 2) + "|"]
    for name, metrics in figures["differences"].items():
        cells = ["{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * metrics[m][part] for part in ("mean", "low", "high"))) for m in METRICS]
        lines.append("| " + " | ".join([name, *cells, f"{100 * metrics['ndcg@1']['relative']:+.1f} %"]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
