"""What wrong or missing metadata costs, with and without the trust in metadata that training fits in closed form.

    python benchmarks/quality/reliability.py [--catalogs demo fashion ...] [--regimes own transfer calibrated] [--work build/quality] [--out FILE]

Both encoders are `initialise`d on the same train groups, without gradient steps, with one strength of the anchor, share of the close-ups and
ridge. *own* fits to the catalog's own train groups, *transfer* to those of the other shops named, and *calibrated* to the other shops too, except for
the trust and what stands for a missing side, which `tgq calibrate` fits to the catalog's own train items without relevance pairs. Queries are the items
of the test groups, disturbed; the pool is the same items, undisturbed, or a catalog with gaps, in which each disturbance has a tenth of the items.
Differences are paired, with 95 % intervals by group.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))

from catalogs import CATALOGS, Catalog, features, prepare, work_folder  # noqa: E402

from tgq.cli.console import ConsoleProgress  # noqa: E402
from tgq.encoder.config import EncoderConfig  # noqa: E402
from tgq.encoder.model import TGQFormer  # noqa: E402
from tgq.metrics.bootstrap import difference_interval, partial  # noqa: E402
from tgq.training.data.dataset import TrainingSet  # noqa: E402
from tgq.training.initialisation import initialise  # noqa: E402
from tgq.training.loss.ranking import first_ranks  # noqa: E402
from tgq.training.reliability import auc, calibrated, others  # noqa: E402
from tgq.training.trainer import TrainConfig  # noqa: E402
from tgq.training.validation import embed  # noqa: E402

FIXED = TrainConfig(strength=0.375, closeup_share=0.25, base_floor=0.8)
TRUST: dict = {"reliability": True, "imputation": 64}  # fields of EncoderConfig
REGIMES = ("own", "transfer", "calibrated")
GAPS = 0.1  # share of the pool that each disturbance has in a catalog with gaps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogs", nargs="+", choices=[c.name for c in CATALOGS], default=["demo", "luma", "grocery", "fashion"])
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=list(REGIMES))
    parser.add_argument("--work", type=Path, default=Path("build/quality"), help="folder for features (default build/quality)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality/reliability.md"))
    args = parser.parse_args()
    chosen = tuple(c for c in CATALOGS if c.name in args.catalogs)
    tower_input = {name: getattr(EncoderConfig(), name) for name in ("image_size", "closeups")}
    work = work_folder(args.work, tower_input)
    prepare(chosen, tower_input, work, ConsoleProgress(Console(stderr=True)))
    lines = ["# Wrong and missing metadata", "", f"Catalogs: {', '.join(c.name for c in chosen)}. Closed form only, no gradient step.", "",
             "| regime | catalog | queries are | pool | H@1 without trust | with | difference | H@10 without | with | difference | AUC of the gate |",
             "|---" * 11 + "|"]  # fmt: skip
    for regime in args.regimes:
        for catalog in chosen:
            fitted_on = [catalog] if regime == "own" else [c for c in chosen if c.shop != catalog.shop]
            if fitted_on:
                for line in compared(fitted_on, catalog, work, regime == "calibrated"):
                    lines.append(f"| {regime} | {catalog.name} | {line} |")
                    print(lines[-1], flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(lines) + "\n")


def compared(fitted_on: list[Catalog], catalog: Catalog, work: Path, calibrate: bool) -> Iterator[str]:
    """The lines of one catalog's table. `calibrate`: the second encoder is the first one after `calibrated` on the catalog itself."""
    learning = TrainingSet.concatenate([features(c, "train", work) for c in fitted_on])
    plain = fitted(learning, {})
    encoders = [plain, calibrated(plain, features(catalog, "train", work))[0] if calibrate else fitted(learning, TRUST)]
    rows = features(catalog, "test", work)
    asked = np.arange(len(rows))
    shown = {"as they are": rows, **disturbed(rows)}
    vectors = [{name: embed(encoder, view) for name, view in shown.items()} for encoder in encoders]
    right = gate_of(encoders[1], rows)
    for pool in ("undisturbed", "with gaps"):
        pools = [of["as they are"] if pool == "undisturbed" else with_gaps(of) for of in vectors]
        for name in shown:
            if pool == "undisturbed" or name != "with another item's metadata":
                found = [first_ranks(pooled, rows, asked, of[name]) for pooled, of in zip(pools, vectors, strict=True)]
                area = f"{auc(right, gate_of(encoders[1], shown[name])):.3f}" if "another" in name else ""
                yield f"{name} | {pool} | {' | '.join(hit_rates(found, rows.group, k) for k in (1, 10))} | {area}"


def fitted(learning: TrainingSet, changed: dict) -> TGQFormer:
    """An encoder that is initialised on these rows."""
    torch.manual_seed(0)
    encoder = TGQFormer(EncoderConfig(**changed))
    initialise(encoder, learning, FIXED)
    return encoder.eval()


def disturbed(rows: TrainingSet) -> dict[str, TrainingSet]:
    """The rows under each disturbance."""
    other, blank = others(rows, np.random.default_rng(0)), rows.texts.index("")
    title, last = np.concatenate([rows.title, np.zeros_like(rows.title[:1])]), np.full(len(rows), len(rows.title))
    return {
        "with another item's metadata": replace(rows, metadata_index=rows.metadata_index[other], title_index=rows.title_index[other]),
        "without metadata": replace(rows, title=title, metadata_index=np.full_like(rows.metadata_index, blank), title_index=last),
        "without picture": replace(rows, image_index=np.full(len(rows), -1)),
    }  # fmt: skip


def with_gaps(vectors: dict[str, np.ndarray]) -> np.ndarray:
    """A pool of which each disturbance has GAPS of the items, the same ones for every encoder."""
    clean, *views = vectors.values()
    drawn = np.random.default_rng(1).random(len(clean))
    pool = clean.copy()
    for number, view in enumerate(views):
        here = (drawn >= number * GAPS) & (drawn < (number + 1) * GAPS)
        pool[here] = view[here]
    return pool


def hit_rates(found: list[np.ndarray], group: np.ndarray, k: int) -> str:
    """Hit rates at k without and with trust, and their paired difference."""
    judged = np.isfinite(found[0]) & np.isfinite(found[1])
    hits = np.stack([100.0 * (ranks[judged] <= k) for ranks in found], 1)
    keys = pd.util.hash_array(group[judged].astype(object)).astype(np.uint64)
    before, after = (partial(hits[:, [n]], keys) for n in (0, 1))
    low, high = difference_interval(after, before)
    first, second = hits.mean(0)
    return f"{first:.1f} | {second:.1f} | {second - first:+.1f} [{float(low[0]):+.1f}, {float(high[0]):+.1f}]"


@torch.no_grad()
def gate_of(encoder: TGQFormer, rows: TrainingSet) -> np.ndarray:
    """`[R]`, the metadata gate's mean over channels."""
    parts = np.array_split(np.arange(len(rows)), max(1, len(rows) // 256))
    return np.concatenate([encoder(rows.features(part)).gate_metadata.mean(-1).numpy() for part in parts])


if __name__ == "__main__":
    main()
