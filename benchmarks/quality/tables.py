"""Tables from ranks. Every figure is the mean over all seeds and has a 95 % interval, bootstrapped by group."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import plots
from catalogs import SLICES, Catalog, features, labels, truth
from trial import Budget, Design, encoder_folder, ranks_file

from tgq.encoder.model import TGQFormer
from tgq.metrics.bootstrap import Sums, difference_interval, interval, partial

CUTS = (1, 5, 10, 20, 50, 100)
SELECTIVITY = 0.00075  # K as a share of the pool; the paper's H@100 is in a pool of 134 thousand


def scores(found: np.ndarray, cut: int) -> pd.DataFrame:
    """Ranks `[seeds, Q]` as a frame of Q rows: hit rates (H@K is the one at `cut`) and reciprocal rank, averaged over the seeds, in percent."""
    columns = {f"H@{k}": (found <= k).mean(0) for k in CUTS} | {"H@K": (found <= cut).mean(0), "MRR": (1 / found).mean(0)}
    return 100 * pd.DataFrame(columns)


class Scores:
    """Scores of the designs on one catalog: a frame of Q rows per design, and one bootstrap sample for all columns."""

    def __init__(self, by_design: dict[str, pd.DataFrame], keys: np.ndarray):
        self.by_design = by_design
        self.columns = list(next(iter(by_design.values())).columns)
        drawn, width = partial(np.concatenate([frame.to_numpy() for frame in by_design.values()], axis=1), keys), len(self.columns)
        self.sums = {name: Sums(drawn.values[:, at : at + width], drawn.weights[:, at : at + width])
                     for at, name in zip(range(0, drawn.values.shape[1], width), by_design, strict=True)}  # fmt: skip

    def mean(self, design: str, metric: str) -> float:
        """The mean, in percent."""
        return float(self.by_design[design][metric].mean())

    def interval(self, design: str, metric: str) -> tuple[float, float]:
        low, high = interval(self._of(design, metric))
        return float(low[0]), float(high[0])

    def difference(self, design: str, other: str, metric: str) -> tuple[float, float, float]:
        """The difference of the means, and its paired interval."""
        low, high = difference_interval(self._of(design, metric), self._of(other, metric))
        return self.mean(design, metric) - self.mean(other, metric), float(low[0]), float(high[0])

    def best(self, designs: list[Design], role: str, metric: str) -> str | None:
        """The design of a role with the highest mean. None if there is none, or if TGQ-Former was not evaluated."""
        names = [d.name for d in designs if d.role == role]
        return max(names, key=lambda name: self.mean(name, metric)) if names and "tgq" in self.by_design else None

    def _of(self, design: str, metric: str) -> Sums:
        at = self.columns.index(metric)
        return Sums(self.sums[design].values[:, at : at + 1], self.sums[design].weights[:, at : at + 1])


def write_tables(regimes: list[str], chosen: tuple[Catalog, ...], designs: list[Design], budget: Budget, work: Path, out: Path) -> None:
    """Write `quality-<budget>-<name of work>.md` and `.json` to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    text, figures, goal, steps = [], [], [], []
    for regime in regimes:
        for catalog in chosen:
            item, group = labels(catalog, "test", work)
            trials = {d.name: [np.load(ranks_file(regime, catalog.name, d, seed, budget, work)) for seed in range(budget.seeds)] for d in designs}
            ranks = {name: np.stack([trial["ranks"] for trial in of]) for name, of in trials.items()}
            queries = np.isfinite(next(iter(ranks.values()))[0])
            keys = pd.util.hash_array(group[queries].astype(object)).astype(np.uint64)
            cut = max(1, round(SELECTIVITY * len(item)))
            found = Scores({name: scores(of[:, queries], cut) for name, of in ranks.items()}, keys)
            known = truth(catalog, work).reindex(item[queries])
            goal += _goal(f"{regime} | {catalog.name} | {cut}", found, designs)
            steps += _steps(f"{regime} | {catalog.name}", found)
            text += [f"## {regime}, {catalog.name}: {queries.sum()} queries, pool {len(item)}, the paper's selectivity is K = {cut}", ""]
            text += [_table(found, designs), "", _against(found, designs), "", _training(trials), "", _slices(found.by_design, known), ""]
            for name, frame in found.by_design.items():
                low, high = found.interval(name, "MRR")
                figures.append({"regime": regime, "catalog": catalog.name, "design": name, **frame.mean().round(3).to_dict(),
                                "low": round(low, 3), "high": round(high, 3)})  # fmt: skip
    text += _plots(pd.DataFrame(figures), chosen, designs, budget, work, out)
    head = [f"# Comparison of connectors, tower input {work.name}", "",
            f"Budget {budget.name}: {budget.seeds} seed{'s' * (budget.seeds > 1)}, {budget.steps} steps of {budget.pairs} pairs.", "",
            "## TGQ-Former against the best rival connector of each row, at the paper's selectivity (K = 0.075 % of the pool, at least 1)", "",
            "The best rival is chosen on the test groups. Differences are relative and paired, with 95 % intervals by group.", "",
            "| regime | catalog | K | H@K tgq | H@K rival | relative | MRR tgq | MRR rival | relative |", "|---" * 9 + "|", *goal, "",
            "## The ladder: what each step adds, in points", "", "| regime | catalog | step | H@1 | MRR |", "|---" * 5 + "|", *steps, ""]  # fmt: skip
    (out / f"quality-{budget.name}-{work.name}.md").write_text("\n".join(head + text))
    (out / f"quality-{budget.name}-{work.name}.json").write_text(json.dumps(figures, indent=1) + "\n")


def _plots(figures: pd.DataFrame, chosen: tuple[Catalog, ...], designs: list[Design], budget: Budget, work: Path, out: Path) -> list[str]:
    """Draw the plots. Returns their figures and links as lines of Markdown: cost, ladder, attention, gates."""
    tests = {catalog.name: features(catalog, "test", work) for catalog in chosen}
    cost = plots.costs(designs, tests[chosen[0].name])
    name = f"quality-{budget.name}-{work.name}"
    lines = ["## Cost per item without the towers", "", "| design | trained parameters | all parameters | GFLOPs | items/s on this machine |", "|---" * 5 + "|"]
    lines += [f"| {design} | {row['trained']:,.0f} | {row['all']:,.0f} | {row['gflops']:.4f} | {row['items_per_s']:.0f} |" for design, row in cost.iterrows()]
    plots.ladder(figures, out / f"{name}-ladder.png")
    plots.cost(figures, cost, out / f"{name}-cost.png")
    lines += ["", f"![ladder]({name}-ladder.png)", f"![cost]({name}-cost.png)", ""]
    for regime in dict.fromkeys(figures["regime"]):
        for catalog in chosen:
            folder = encoder_folder(regime, catalog.name, budget, work)
            if not (folder / "config.json").is_file():
                continue
            encoder, stem = TGQFormer.from_pretrained(folder), f"{name}-{regime}-{catalog.name}"
            shown = work / "plots" / f"{stem}-attention.png"  # not in `out`, because it shows a shop's pictures
            shown.parent.mkdir(parents=True, exist_ok=True)
            if weights := plots.attention(encoder, catalog, tests[catalog.name], work, shown):
                shares = ", ".join(f"{stream} {100 * share:.0f} %" for stream, share in weights.items())
                lines += [f"Attention weight inside the item's box on pictures of several products, {regime}, {catalog.name}: {shares}", ""]
                lines[-2] += f" (maps: {shown.name} in the work folder)."
            gates = plots.gates(encoder, catalog, tests[catalog.name], work, out / f"{stem}-gates.png")
            if len(gates):
                rows = "; ".join(f"{kind}: {row['metadata']:.4f} ± {row['metadata_half']:.4f}, {row['exploratory']:.4f} ± {row['exploratory_half']:.4f}"
                                 for kind, row in gates.iterrows())
                lines += [f"Mean metadata and exploratory gate (1 is neutral), {regime}, {catalog.name}: {rows}.", "", f"![gates]({stem}-gates.png)", ""]
    return lines


def _table(found: Scores, designs: list[Design]) -> str:
    columns = [f"H@{k}" for k in CUTS] + ["MRR"]
    lines = ["| design | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in (design.name for design in designs):
        cells = ["{:.1f} [{:.1f}, {:.1f}]".format(found.mean(name, metric), *found.interval(name, metric)) for metric in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _against(found: Scores, designs: list[Design]) -> str:
    """Paired differences of TGQ-Former to the best rival connector, the best fusion and each ablation, in points and relative."""
    roles = (("rival", "best rival connector"), ("fusion", "best fusion without connector"))
    others = [(metric, found.best(designs, role, metric), f" ({what})") for role, what in roles for metric in ("H@1", "H@10", "H@100", "MRR")]
    if "tgq" in found.by_design:
        others += [(metric, d.name, "") for d in designs if d.role == "ablation" for metric in ("H@1", "MRR")]
    lines = []
    for metric, other, what in others:
        if other:
            (gap, low, high), level = found.difference("tgq", other, metric), found.mean(other, metric)
            lines.append(f"- {metric}: tgq minus {other}{what} {gap:+.1f} [{low:+.1f}, {high:+.1f}] points, "
                         f"{100 * gap / level:+.1f} % [{100 * low / level:+.1f}, {100 * high / level:+.1f}]")  # fmt: skip
    return "\n".join(lines)


def _training(trials: dict[str, list]) -> str:
    """A line per design: the range over the seeds, in how many trials a gradient step improved the validation MRR, and the values that
    the initialisation chose, which are the same for all seeds."""
    lines = []
    for name, of in trials.items():
        figures = [json.loads(str(trial["told"])) for trial in of]
        hits = [100 * float((ranks[np.isfinite(ranks)] <= 1).mean()) for ranks in (trial["ranks"] for trial in of)]
        chosen = [f"{key.replace('_', ' ')} {figures[0][key]:g}" for key in ("strength", "closeup_share", "base_floor") if key in figures[0]]
        improved = sum(f["best_step"] > 0 for f in figures)
        parts = [f"H@1 {min(hits):.1f} to {max(hits):.1f} by seed", f"training improved the initialisation in {improved} of {len(figures)}"]
        lines.append(f"- {name}: " + "; ".join(parts + [f"the initialisation chose {', '.join(chosen)}"] * bool(chosen)))
    return "\n".join(lines)


def _goal(where: str, found: Scores, designs: list[Design]) -> list[str]:
    """A table row: H@K and MRR of TGQ-Former and of the best rival connector, and their relative difference."""
    cells = []
    for metric in ("H@K", "MRR"):
        if best := found.best(designs, "rival", metric):
            level = found.mean(best, metric)
            gap, low, high = (value / level for value in found.difference("tgq", best, metric))
            cells += [f"{found.mean('tgq', metric):.1f}", f"{level:.1f} ({best})", f"{gap:+.1%} [{low:+.1%}, {high:+.1%}]"]
    return [f"| {where} | " + " | ".join(cells) + " |"] if cells else []


def _steps(where: str, found: Scores) -> list[str]:
    """A table row per trained design of the ladder: its paired difference to the one before."""
    ladder = [name for name in plots.LADDER if name in found.by_design]
    steps = [(before, after, [found.difference(after, before, metric) for metric in ("H@1", "MRR")])
             for before, after in zip(ladder, ladder[1:], strict=False)]  # fmt: skip
    return [f"| {where} | {before} to {after} | " + " | ".join(f"{gap:+.1f} [{low:+.1f}, {high:+.1f}]" for gap, low, high in gaps) + " |"
            for before, after, gaps in steps]  # fmt: skip


def _slices(by_design: dict[str, pd.DataFrame], known: pd.DataFrame) -> str:
    """H@1 and MRR by nuisance; empty if the catalog has no such columns."""
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
