"""How retrieval grows with the number of distinct products that an encoder learns from.

    python benchmarks/quality/products.py [--products 300 600 1200] [--items 10000] [--seeds 5] [--base-steps 400] [--steps 0] [--tests demo luma]

Encoders are trained on the train groups of one large drawn catalog. A product is a group of it, and a set of n products is the first n of a seeded
permutation, so the sets of a seed contain each other. Each encoder is initialised in closed form, then its linear base is trained alone for `--base-steps`
steps of 400 pairs on pooled features, and then all of it for `--steps` steps of 128 pairs, half of the items in composed scenes. Three states are tested:
the closed form, the trained base, and the weights that were best on the set's own held-out groups.

Tests are the test groups of a smaller drawn catalog of other products, and of shops that the encoder has never seen. Figures are means over seeds with
95 % intervals by group; a difference is paired by query. Nothing is chosen on test groups.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))

from catalogs import CATALOGS, catalog_named, features, prepare, work_folder  # noqa: E402
from steps import initialised  # noqa: E402

from tgq.cli.console import ConsoleProgress  # noqa: E402
from tgq.encoder.config import EncoderConfig  # noqa: E402
from tgq.metrics.bootstrap import difference_interval, partial  # noqa: E402
from tgq.training.data.dataset import TrainingSet  # noqa: E402
from tgq.training.loss.ranking import first_ranks  # noqa: E402
from tgq.training.trainer import TrainConfig, train  # noqa: E402
from tgq.training.validation import embed, validation_rows  # noqa: E402

CLOSED, BASE, BEST = STATES = ("closed form", "base trained", "best")
METRICS = {"H@1": lambda ranks: 100.0 * (ranks <= 1), "MRR": lambda ranks: 100.0 / ranks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", nargs="+", type=int, default=[300, 600, 1200])
    parser.add_argument("--items", type=int, default=10_000, help="of the large drawn catalog")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--base-steps", type=int, default=400, help="of the linear base alone, of 400 pairs (default 400)")
    parser.add_argument("--steps", type=int, default=0, help="of the whole encoder afterwards, of 128 pairs (default 0)")
    parser.add_argument("--tests", nargs="+", choices=[c.name for c in CATALOGS], default=["demo", "luma", "grocery", "fashion"])
    parser.add_argument("--work", type=Path, default=Path("build/quality"), help="folder for features and finished trials")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality"))
    args = parser.parse_args()
    tower_input = {name: getattr(EncoderConfig(), name) for name in ("image_size", "closeups")}
    work, large = work_folder(args.work, tower_input), catalog_named(f"demo-{args.items}")
    tests = {c.name: c for c in CATALOGS if c.name in args.tests}
    for catalogs, side in (((large,), "train"), (tuple(tests.values()), "test")):
        prepare(catalogs, tower_input, work, ConsoleProgress(Console(stderr=True)), sides=(side,))
    learning = features(large, "train", work)
    groups = np.unique(learning.group)
    if max(args.products) > len(groups):
        parser.error(f"the catalog of {args.items} items has {len(groups)} products to learn from, fewer than {max(args.products)}: raise --items")
    shown = {name: features(catalog, "test", work) for name, catalog in tests.items()}
    found: dict[int, list[dict[str, np.ndarray]]] = {}
    for number in sorted(args.products):
        found[number] = []
        for seed in range(args.seeds):
            chosen = np.random.default_rng(seed).permutation(groups)[:number]
            file = work / "products" / f"{args.items}-{number}-{args.base_steps}-{args.steps}-{seed}.npz"
            if not file.is_file():
                file.parent.mkdir(exist_ok=True)
                np.savez(file, **trial(learning.subset(np.flatnonzero(np.isin(learning.group, chosen))), shown, seed, args))
            found[number].append(dict(np.load(file)))
            print(number, seed, {f"{name}, {state}": summary([found[number][-1]], name, state) for name in shown for state in STATES}, flush=True)
    groups_of = {name: rows.group for name, rows in shown.items()}
    lines = [*lines_of(found, groups_of, args)]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "products.md").write_text("\n".join(lines) + "\n")
    figures = {name: {number: {state: summary(trials, name, state) for state in STATES} for number, trials in found.items()} for name in shown}
    how = {"seeds": args.seeds, "base_steps": args.base_steps, "steps": args.steps}
    (args.out / "products.json").write_text(json.dumps({**how, "figures": figures}, indent=1) + "\n")
    print("\n".join(lines))


def trial(rows: TrainingSet, tests: dict[str, TrainingSet], seed: int, args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Ranks of the first positive of each test item, by test and state; not finite for an item without a positive."""
    options = TrainConfig(seed=seed, steps=args.steps, pairs=128, evaluate_every=max(1, args.steps // 8), patience=10**6, scene_share=0.5,
                          scene_same_category=0.3, base_steps=args.base_steps)  # fmt: skip
    encoder, found = initialised(rows, validation_rows(rows, options), options), {}

    def measured(state: str) -> None:
        for name, test in tests.items():
            found[f"{name}, {state}"] = first_ranks(embed(encoder, test), test, np.arange(len(test)))

    tests = {name: test.with_attention_logits(encoder, views=1) for name, test in tests.items()}
    measured(CLOSED)
    rows = rows.with_attention_logits(encoder, views=1)
    train(encoder, rows, options, lambda step, values: (print(values, flush=True), measured(BASE)) if step == 0 else None, initialised=True)
    measured(BEST)
    return found


def summary(trials: Sequence[dict[str, np.ndarray]], name: str, state: str) -> dict[str, float]:
    """Mean of each metric over seeds and test items, and its deviation over seeds."""
    values = {metric: [float(of(_judged(trial, name, state)).mean()) for trial in trials] for metric, of in METRICS.items()}
    return {key: value for metric, found in values.items() for key, value in ((metric, float(np.mean(found))), (f"{metric} deviation", float(np.std(found))))}


def _judged(trial: dict[str, np.ndarray], name: str, state: str) -> np.ndarray:
    ranks = trial[f"{name}, {state}"]
    return ranks[np.isfinite(ranks)]


def lines_of(found: dict[int, list[dict[str, np.ndarray]]], groups: dict[str, np.ndarray], args: argparse.Namespace) -> list[str]:
    """The tables in Markdown: each state by number of products, and the gains of steps and of twice as many products."""
    how = (f"Drawn products; {args.seeds} seed{'s' * (args.seeds > 1)}, {args.base_steps} steps of the base, {args.steps} of all; H@1 in percent, "
           "differences in points with 95 % intervals by group.")  # fmt: skip
    lines = ["# Retrieval against the number of distinct products", "", how, ""]
    states = STATES if args.steps else (CLOSED, BASE)
    head = ("products", *states, *(f"{state} - closed form" for state in states[1:]), "closed form - with half", "base trained - with half")
    for name, group in groups.items():
        lines += [f"## Tested on `{name}`", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for number, trials in found.items():
            half = found.get(number // 2)
            cells = [f"{summary(trials, name, state)['H@1']:.1f}" for state in states]
            cells += [gain(trials, trials, name, (state, CLOSED), group) for state in states[1:]]
            cells += [gain(trials, half, name, (state, state), group) if half else "" for state in (CLOSED, BASE)]
            lines.append("| " + " | ".join([f"{number:,}", *cells]) + " |")
        lines.append("")
    return lines


def gain(ours: list[dict[str, np.ndarray]], other: list[dict[str, np.ndarray]], name: str, states: tuple[str, str], group: np.ndarray) -> str:
    """Paired difference of H@1 between two lists of trials of the same seeds."""
    judged = np.isfinite(ours[0][f"{name}, {states[0]}"])
    hits = [
        np.mean([METRICS["H@1"](trial[f"{name}, {state}"][judged]) for trial in trials], axis=0) for trials, state in zip((ours, other), states, strict=True)
    ]  # fmt: skip
    keys = pd.util.hash_array(group[judged].astype(object)).astype(np.uint64)
    low, high = difference_interval(*(partial(values[:, None], keys) for values in hits))
    return f"{(hits[0] - hits[1]).mean():+.1f} [{float(low[0]):+.1f}, {float(high[0]):+.1f}]"


if __name__ == "__main__":
    main()
