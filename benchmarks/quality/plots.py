"""The study's plots: the ladder, quality against cost, attention of both streams, and the gates."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
from catalogs import Catalog, folder_of, truth
from PIL import Image
from trial import Design

from tgq.encoder.layers.heads import LLMHead
from tgq.encoder.model import TGQFormer
from tgq.training.data.dataset import TrainingSet

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

LADDER = ("qformer", "anchored_only", "hybrid_nogate", "hybrid_gates", "tgq")
SHOWN = 5  # pictures in the attention plot
ATTENTION_ITEMS, GATE_ITEMS = 500, 200  # maximum number of items, at even distances, for attention and gates


def ladder(figures: pd.DataFrame, out: Path) -> None:
    """Plot the MRR of each step with its interval, a panel per regime and catalog. Columns: regime, catalog, design, MRR, low, high."""
    panels = list(figures.groupby(["regime", "catalog"], sort=False))
    columns = min(4, len(panels))
    fig, axes = plt.subplots(-(-len(panels) // columns), columns, figsize=(3.4 * columns, 2.6 * -(-len(panels) // columns)), squeeze=False)
    for ax, ((regime, catalog), frame) in zip(axes.flat, panels, strict=False):
        rows = frame.set_index("design").reindex([name for name in LADDER if name in set(frame["design"])])
        ax.errorbar(range(len(rows)), rows["MRR"], yerr=np.stack([rows["MRR"] - rows["low"], rows["high"] - rows["MRR"]]), fmt="o-", capsize=3)
        ax.set_xticks(range(len(rows)), rows.index, rotation=35, ha="right", fontsize=7)
        ax.set_title(f"{catalog}, {regime}", fontsize=9)
        ax.set_ylabel("MRR, %", fontsize=8)
    for ax in list(axes.flat)[len(panels):]:
        ax.remove()
    _save(fig, out)


def cost(figures: pd.DataFrame, costs: pd.DataFrame, out: Path) -> None:
    """Plot the mean MRR over the augmented catalogs against GFLOPs per item without the towers. `costs` is indexed by design."""
    noisy = figures[figures["catalog"].str.endswith("-x")]
    mean = (noisy if len(noisy) else figures).groupby("design")["MRR"].mean()
    fig, ax = plt.subplots(figsize=(6, 4))
    for name, value in mean.items():
        ax.scatter(costs.loc[name, "gflops"], value)
        ax.annotate(name, (costs.loc[name, "gflops"], value), fontsize=7, xytext=(4, 2), textcoords="offset points")
    ax.set_xlabel("GFLOPs per item, without the frozen towers")
    ax.set_ylabel("mean MRR, %")
    _save(fig, out)


@torch.no_grad()
def attention(encoder: TGQFormer, catalog: Catalog, test: TrainingSet, work: Path, out: Path) -> dict[str, float]:
    """Plot noisy pictures with the attention weights of both streams. Returns the share of each stream's weight inside the item's box."""
    known = truth(catalog, work)
    if "box" not in known:
        return {}
    rows = np.flatnonzero((test.image_index >= 0) & (pd.to_numeric(known["distractors"]).reindex(test.item).fillna(0).to_numpy() > 0))
    if not len(rows):
        return {}
    rows = _sampled(rows, ATTENTION_ITEMS)
    maps, inside = _streams(encoder, test, rows), _inside(known, test.item[rows], encoder.vision.tokens_per_image - encoder.vision.n_closeups)
    shares = {name: float((weights * inside).sum(1).mean()) for name, weights in maps.items()} | {"uniform": float(inside.mean(1).mean())}
    pictures = pd.read_parquet(folder_of(catalog, work) / "catalog.parquet").drop_duplicates("item_id").set_index("item_id")
    shown = rows[:: max(1, len(rows) // SHOWN)][:SHOWN]
    fig, axes = plt.subplots(3, len(shown), figsize=(2.2 * len(shown), 6.8), squeeze=False)
    for column, row in enumerate(shown):
        item = pictures.loc[test.item[row]]
        picture = _picture(item, folder_of(catalog, work)).resize((224, 224))
        at = int(np.flatnonzero(rows == row)[0])
        for line, name in enumerate((None, *maps)):
            ax = axes[line, column]
            ax.imshow(picture)
            ax.axis("off")
            if name is not None:
                side = math.isqrt(maps[name].shape[1])
                ax.imshow(maps[name][at].reshape(side, side), extent=(0, 224, 224, 0), cmap="magma", alpha=0.6, interpolation="bilinear")
            if item.get("box") is not None:
                x0, y0, x1, y1 = (224 * float(v) for v in item["box"])
                ax.add_patch(plt.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="lime", linewidth=1))
            ax.set_title(test.texts[test.metadata_index[row, 0]][:34] if name is None else name, fontsize=6)
    _save(fig, out)
    return shares


@torch.no_grad()
def gates(encoder: TGQFormer, catalog: Catalog, test: TrainingSet, work: Path, out: Path) -> pd.DataFrame:
    """Plot the means of both gates with the item's metadata, with another item's, and by overlay. Returns them; empty without gates."""
    if encoder.gates is None:
        return pd.DataFrame()
    known = truth(catalog, work)
    rows = np.arange(len(test))
    overlay = ~known["overlay"].reindex(test.item).astype(str).str.lower().isin(("false", "none", "nan")) if "overlay" in known else None
    kinds = {"own metadata": (test, rows), "wrong metadata": (_shuffled(test), rows)}
    if overlay is not None:
        kinds |= {"overlay": (test, np.flatnonzero(overlay)), "no overlay": (test, np.flatnonzero(~overlay))}
    found = {}
    for name, (items, chosen) in ((name, (items, _sampled(chosen, GATE_ITEMS))) for name, (items, chosen) in kinds.items() if len(chosen)):
        values = np.concatenate([_gate_means(encoder, items, part) for part in np.array_split(chosen, max(1, len(chosen) // 256))])
        found[name] = [*values.mean(0), *(1.96 * values.std(0) / len(values) ** 0.5)]
    frame = pd.DataFrame(found, index=["metadata", "exploratory", "metadata_half", "exploratory_half"]).T
    fig, ax = plt.subplots(figsize=(6, 3))
    for shift, name in ((-0.15, "metadata"), (0.15, "exploratory")):
        ax.bar(np.arange(len(frame)) + shift, frame[name] - 1, width=0.3, yerr=frame[f"{name}_half"], capsize=3, label=f"{name} gate")
    ax.axhline(0, color="grey", linewidth=0.5)
    ax.set_xticks(range(len(frame)), frame.index)
    ax.set_ylabel("beta (0 is neutral)")
    ax.legend(fontsize=8)
    _save(fig, out)
    return frame


def _sampled(rows: np.ndarray, most: int) -> np.ndarray:
    return rows[:: -(-len(rows) // most)]


def _gate_means(encoder: TGQFormer, rows: TrainingSet, part: np.ndarray) -> np.ndarray:
    out = encoder(rows.features(part).to(encoder.null_image.device))
    return torch.stack([out.gate_metadata.mean(-1), out.gate_exploratory.mean(-1)], -1).cpu().numpy()


def _shuffled(rows: TrainingSet) -> TrainingSet:
    """Every item with the metadata and title of an item of another group: groups in random order, shifted by the largest group."""
    names, number, sizes = np.unique(rows.group, return_inverse=True, return_counts=True)
    order = np.argsort(np.random.default_rng(0).permutation(len(names))[number], kind="stable")
    other = np.empty_like(order)
    other[order] = np.roll(order, sizes.max())
    return replace(rows, metadata_index=rows.metadata_index[other], title_index=rows.title_index[other], attention_logits=None)


def _streams(encoder: TGQFormer, test: TrainingSet, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Attention weights of both streams over the picture's grid, averaged over the heads. The weight of a close-up is spread over its part."""
    parts: dict[str, list] = {"anchored": [], "exploratory": []}
    for part in np.array_split(rows, max(1, len(rows) // 128)):
        f = test.features(part).to(encoder.null_image.device)
        s, _ = encoder.streams(f)
        for name, tokens, logits in (("anchored", s.anchored, s.attention_logits), ("exploratory", s.exploratory, torch.zeros_like(s.attention_logits))):
            weights = encoder.head.pooling.weights(s.projected, tokens, logits, first=name == "anchored")
            parts[name].append(_on_grid(weights.mean(1), encoder.vision.tiles).cpu().numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def _on_grid(weights: torch.Tensor, tiles: int) -> torch.Tensor:
    """Weights `[n, G + tiles^2]` over a square grid and close-ups of its parts, as `[n, G]` over the grid."""
    if not tiles:
        return weights
    grid, near = weights.tensor_split([-(tiles**2)], dim=1)
    side = math.isqrt(grid.shape[1])
    part = torch.arange(side) * tiles // side
    cells = near[:, (part[:, None] * tiles + part).flatten()]
    return grid + cells * (near.sum(1) / cells.sum(1).clamp(min=1e-12))[:, None]


def _inside(known: pd.DataFrame, items: np.ndarray, tokens: int) -> np.ndarray:
    """`[n, N]` 1 if the cell's centre is in the item's box, else 0. Box coordinates are fractions of the side."""
    side = math.isqrt(tokens)
    centre = (np.arange(side) + 0.5) / side
    boxes = np.array([np.asarray(box, float) for box in known["box"].reindex(items)])
    x = (centre >= boxes[:, :1]) & (centre <= boxes[:, 2:3])
    y = (centre >= boxes[:, 1:2]) & (centre <= boxes[:, 3:4])
    return (y[:, :, None] & x[:, None]).reshape(len(items), -1).astype(float)


def _picture(item: pd.Series, folder: Path) -> Image.Image:
    data = item.get("image_bytes")
    return Image.open(io.BytesIO(data) if isinstance(data, bytes) else folder / item["image"]).convert("RGB")


def _save(fig, out: Path) -> None:
    fig.tight_layout()
    fig.savefig(out, dpi=110)
    plt.close(fig)


def costs(designs: list[Design], rows: TrainingSet) -> pd.DataFrame:
    """Parameters that are trained, all parameters with the frozen ones, GFLOPs per item without the towers (torch's counter; a multiply-add
    counts as two), and items per second on this machine, by design. Adapters of a language model are merged, as in a night."""
    import time

    from torch.utils.flop_counter import FlopCounterMode
    from trial import untrained

    found = {}
    batch = rows.features(np.arange(min(128, len(rows))))
    for design in designs:
        encoder = untrained(design).eval()
        parameters = {"trained": sum(p.numel() for p in encoder.parameters() if p.requires_grad), "all": sum(p.numel() for p in encoder.parameters())}
        if isinstance(encoder.head, LLMHead):
            encoder.head.merge()
        encoder.requires_grad_(False)  # so that no graph is kept: torch's counter fails under no_grad for parameters that require gradients
        counter = FlopCounterMode(display=False)
        with counter:
            encoder(batch)
        took = []
        for _ in range(5):
            began = time.perf_counter()
            encoder(batch)
            took.append(time.perf_counter() - began)
        speed = len(batch.image) / float(np.median(took))
        found[design.name] = parameters | {"gflops": counter.get_total_flops() / 1e9 / len(batch.image), "items_per_s": speed}
    return pd.DataFrame(found).T
