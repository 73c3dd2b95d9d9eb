"""What gradient steps change on held-out groups, part by part, and what an attention that knows the item's place would be worth.

    python benchmarks/quality/steps.py [--catalogs fashion-x demo-10000] [--steps 50] [--seed 0] [--threads 1]

TGQ-Former is initialised on a catalog's training groups, half of them in composed scenes, and then some of its parts are trained. All figures are of
the training groups' held-out part (`tgq.training.validation`), on which settings may be chosen; test groups are not read. The pool is all training
rows. `attention` is the share of the pooling attention that is on the item, in scenes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))

from catalogs import catalog_named, features, prepare, work_folder  # noqa: E402

from tgq.cli.console import ConsoleProgress  # noqa: E402
from tgq.encoder.config import EncoderConfig  # noqa: E402
from tgq.encoder.layers.heads import Streams  # noqa: E402
from tgq.encoder.model import TGQFormer  # noqa: E402
from tgq.training.data.batches import Chunk  # noqa: E402
from tgq.training.data.casting import Casting  # noqa: E402
from tgq.training.data.dataset import TrainingSet  # noqa: E402
from tgq.training.initialisation import initialise  # noqa: E402
from tgq.training.loss.ranking import catalog_mrr  # noqa: E402
from tgq.training.trainer import TrainConfig, train  # noqa: E402
from tgq.training.validation import chunks_of, validation_rows  # noqa: E402

Change = Callable[[Streams, Chunk], Streams]
AWAY = -14.0  # attention logit of a token that is not to be attended to


def on_the_item(streams: Streams, chunk: Chunk) -> Streams:
    """The attention of an anchor that knows where the item of a scene is."""
    if chunk.box is None:
        return streams
    known = torch.where(chunk.box, 0.0, AWAY)
    return replace(streams, attention_logits=torch.where(chunk.box.any(1)[:, None], known, streams.attention_logits))


def twice(streams: Streams, chunk: Chunk) -> Streams:
    """An anchor of twice the strength."""
    return replace(streams, attention_logits=2 * streams.attention_logits)


def anchored_alone(streams: Streams, chunk: Chunk) -> Streams:
    """The metadata-anchored stream alone."""
    return replace(streams, exploratory=streams.exploratory[:, :0])


def unchanged(streams: Streams, chunk: Chunk) -> Streams:
    """The streams as they are."""
    return streams


ATTENTION = {"lr": 1e-3, "base_lr": 0.0}
# what is trained, as fields of TrainConfig (None: nothing), and the ways in which the result is used, by the name of the row
TRAININGS: tuple[tuple[dict | None, dict[str, Change]], ...] = (
    (None, {"initialisation": unchanged, "anchor twice as strong": twice, "attention on the item, known from the scene": on_the_item}),
    (ATTENTION, {"all but the base, 1e-3": unchanged, "the same, anchored stream alone": anchored_alone}),
    (ATTENTION | {"attention_weight": 10.0, "relation_weight": 0.0}, {"attention loss 10, no distillation, anchored stream alone": anchored_alone}),
    ({"lr": 0.0, "base_lr": 3e-5}, {"linear base alone, 3e-5": unchanged}),
    ({"lr": 0.0, "base_lr": 1e-4}, {"linear base alone, 1e-4": unchanged}),
    ({"lr": 1e-4, "base_lr": 1e-4}, {"everything, 1e-4": unchanged}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogs", nargs="+", type=catalog_named, default=[catalog_named("fashion-x")], metavar="NAME")
    parser.add_argument("--steps", type=int, default=50, help="steps of 128 pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("build/quality"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality"))
    args = parser.parse_args()
    tower_input = {name: getattr(EncoderConfig(), name) for name in ("image_size", "closeups")}
    chosen, work = tuple(args.catalogs), work_folder(args.work, tower_input)
    prepare(chosen, tower_input, work, ConsoleProgress(Console(stderr=True)))
    torch.set_num_threads(args.threads)
    for catalog in chosen:
        rows = features(catalog, "train", work)
        figures, groups = measured(rows, args), len(set(rows.group.tolist()))
        lines = [f"# What gradient steps change on held-out groups: {catalog.name}", "",
                 f"{len(rows)} rows of {groups} groups; {args.steps} steps of 128 pairs, seed {args.seed}; MRR and attention in percent.", "",
                 "| variant | MRR, pictures | MRR, scenes | attention |", "|---|---|---|---|"]  # fmt: skip
        lines += ["| " + " | ".join([name, *(f"{100 * value:.1f}" for value in values.values())]) + " |" for name, values in figures.items()]
        report = {"rows": len(rows), "groups": groups, "steps": args.steps, "seed": args.seed, "found": figures}
        write_report(args.out, f"steps-{catalog.name}", report, lines)


def write_report(out: Path, name: str, report: dict[str, Any], lines: list[str]) -> None:
    """Write `name`.json and `name`.md, and print the latter."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / f"{name}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def measured(rows: TrainingSet, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The figures by name of the row. All trainings begin with the same initialisation, and their last weights are measured, not their best."""
    options = TrainConfig(seed=args.seed, steps=args.steps, pairs=128, evaluate_every=args.steps, scene_share=0.5, scene_same_category=0.3)
    held_out = validation_rows(rows, options)
    encoder = initialised(rows, held_out, options)
    start = {name: value.clone() for name, value in encoder.own_state().items()}
    rows, found = rows.with_attention_logits(encoder, views=1), {}

    def measure(uses: dict[str, Change]) -> None:
        for name, change in uses.items():
            found[name] = figures_of(encoder, rows, held_out, options, change)
            print(name, found[name], flush=True)

    for trained, uses in TRAININGS:
        encoder.load_state_dict(start, strict=False)
        if trained is None:
            measure(uses)
        else:
            train(encoder, rows, replace(options, **trained), lambda step, _, uses=uses: measure(uses) if step == args.steps else None, initialised=True)
    return found


def initialised(rows: TrainingSet, held_out: np.ndarray, options: TrainConfig) -> TGQFormer:
    """TGQ-Former in its closed-form state, from the rows that are not held out, `scene_share` of them in scenes."""
    torch.manual_seed(options.seed)
    encoder, learning = TGQFormer(EncoderConfig()), rows.subset(np.flatnonzero(~held_out))
    initialise(encoder, Casting(learning, options.scene_share, options.scene_same_category).applied(options.seed), options)
    return encoder.eval()


@torch.no_grad()
def figures_of(encoder: TGQFormer, rows: TrainingSet, held_out: np.ndarray, options: TrainConfig, change: Change) -> dict[str, float]:
    """MRR of the pictures as they are and in scenes, and the share of the attention that is on the item of a scene."""
    encoder.eval()
    found, on_item = {}, []
    for name, casting in (("pictures", None), ("scenes", Casting(rows, 1.0, options.scene_same_category))):
        vectors = []
        for chunk in chunks_of(rows, casting, options.seed):
            chunk = chunk.with_own_logits(encoder)
            streams = change(encoder.streams(chunk.features)[0], chunk)
            vectors.append(F.normalize(encoder.head(chunk.features, streams), dim=-1).numpy())
            if chunk.box is not None:
                weights = encoder.head.attention(streams)
                on_item.append((weights * chunk.box[:, None]).sum(-1).mean(1)[chunk.box.any(1)])
        found[name] = catalog_mrr(np.concatenate(vectors).__getitem__, rows, held_out)
    return found | {"attention": float(torch.cat(on_item).mean())}


if __name__ == "__main__":
    main()
