"""From ranks to tables: every figure with a 95 % interval, bootstrapped by group over the mean of all seeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from catalogs import SLICES, Catalog, features, truth
from trial import Budget, Design, ranks_file

from tgq.retrieval.bootstrap import difference_interval, interval, partial

CUTS = (1, 5, 10, 20, 50, 100)
SELECTIVITY = 0.00075  # 100 of a pool of 134 thousand, where the paper's H@100 stands


def scores(found: np.ndarray) -> pd.DataFrame:
    """`[seeds, Q]` ranks to a frame of Q rows: hit rates and reciprocal rank, the mean of the seeds, in percent."""
    columns = {f"H@{k}": (found <= k).mean(0) for k in CUTS} | {"MRR": (1 / found).mean(0)}
    return 100 * pd.DataFrame(columns)


def write_tables(regimes: list[str], chosen: tuple[Catalog, ...], designs: list[Design], budget: Budget, work: Path, out: Path) -> None:
    """`quality-<budget>.md` and `.json` in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    text, figures = [f"# Connectors compared, budget {budget.name}: {budget.seeds} seeds, {budget.steps} steps of {budget.pairs} pairs", ""], []
    for regime in regimes:
        for catalog in chosen:
            test = features(catalog, "test", work)
            ranks = {d.name: np.stack([np.load(ranks_file(regime, catalog.name, d, seed, budget, work))["ranks"] for seed in range(budget.seeds)])
                     for d in designs}  # fmt: skip
            asked = np.isfinite(next(iter(ranks.values()))[0])
            keys = pd.util.hash_array(test.group[asked].astype(object)).astype(np.uint64)
            by_design = {name: scores(found[:, asked]) for name, found in ranks.items()}
            known = truth(catalog, work).reindex(test.item[asked])
            cut = max(1, round(SELECTIVITY * len(test)))
            text += [f"## {regime}, {catalog.name}: {asked.sum()} queries, pool {len(test)}, the paper's selectivity is K = {cut}", ""]
            text += [_table(by_design, keys, designs), "", _against(by_design, keys, designs), "", _slices(by_design, known), ""]
            figures += [{"regime": regime, "catalog": catalog.name, "design": name, **frame.mean().round(3).to_dict()} for name, frame in by_design.items()]
    (out / f"quality-{budget.name}.md").write_text("\n".join(text))
    (out / f"quality-{budget.name}.json").write_text(json.dumps(figures, indent=1) + "\n")


def _table(by_design: dict[str, pd.DataFrame], keys: np.ndarray, designs: list[Design]) -> str:
    columns = [f"H@{k}" for k in CUTS] + ["MRR"]
    lines = ["| design | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for design in designs:
        frame = by_design[design.name][columns]
        low, high = interval(partial(frame.to_numpy(), keys))
        cells = [f"{m:.1f} [{a:.1f}, {b:.1f}]" for m, a, b in zip(frame.mean(), low, high, strict=True)]
        lines.append(f"| {design.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _against(by_design: dict[str, pd.DataFrame], keys: np.ndarray, designs: list[Design]) -> str:
    """TGQ less the best rival connector and the best fusion, paired; the relative difference beside it."""
    lines = []
    for role, what in (("rival", "rival connector"), ("fusion", "fusion without connector")):
        rivals = [d.name for d in designs if d.role == role]
        if not rivals or "tgq" not in by_design:
            continue
        for metric in ("H@1", "H@10", "H@100", "MRR"):
            best = max(rivals, key=lambda name: by_design[name][metric].mean())
            ours, theirs = (by_design[name][[metric]].to_numpy() for name in ("tgq", best))
            low, high = difference_interval(partial(ours, keys), partial(theirs, keys))
            gap, level = ours.mean() - theirs.mean(), theirs.mean()
            lines.append(f"- {metric}: tgq less {best} (best {what}) {gap:+.1f} [{low[0]:+.1f}, {high[0]:+.1f}] points, "
                         f"{100 * gap / level:+.1f} % [{100 * low[0] / level:+.1f}, {100 * high[0] / level:+.1f}]")  # fmt: skip
    return "\n".join(lines)


def _slices(by_design: dict[str, pd.DataFrame], known: pd.DataFrame) -> str:
    """H@1 and MRR by nuisance, where the catalog knows them."""
    parts = []
    for column in (c for c in SLICES if c in known.columns):
        values = known[column].astype(object).where(known[column].notna(), "none").to_numpy()
        if column == "distractors":
            values = np.where(pd.to_numeric(known[column]).fillna(0).to_numpy() > 0, "several products", "one product")
        for value in sorted(map(str, set(values))):
            rows = np.flatnonzero(values.astype(str) == value)
            if len(rows) >= 30:
                parts.append((f"{column}: {value}", len(rows), rows))
    if not parts:
        return ""
    lines = ["| H@1 / MRR | " + " | ".join(f"{name} ({n})" for name, n, _ in parts) + " |", "|---" * (len(parts) + 1) + "|"]
    for name, frame in by_design.items():
        cells = [f"{frame['H@1'].iloc[rows].mean():.1f} / {frame['MRR'].iloc[rows].mean():.1f}" for _, _, rows in parts]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
