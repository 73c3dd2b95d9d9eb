"""Which product of a scene a metadata text means: how often a matcher of frozen tower features is right, by the number of products it learns from.

    python benchmarks/quality/choosing.py [--catalogs fashion-x demo-10000] [--draws 5] [--threads 1]

A scene shows the item in one quarter and one to three other products in others. The matcher scores the four close-ups against the text, by canonical
correlation (Hotelling 1936) of whole pictures and texts, as mutual information like the anchor's, plus the anchor's vocabulary. It is fitted to some of
the training groups and asked about scenes of held-out ones. Then the attention of an initialised TGQ-Former follows the matcher that learned from all of
them, and retrieval is measured as in `steps.py`, which also defines the held-out groups and the pool. Test groups are not read.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

from catalogs import catalog_named, features, prepare, work_folder  # noqa: E402
from steps import Change, figures_of, initialised, on_the_item, unchanged, write_report  # noqa: E402

from tgq.cli.console import ConsoleProgress  # noqa: E402
from tgq.encoder.config import EncoderConfig  # noqa: E402
from tgq.encoder.layers.anchor import MAX_CORRELATION, PAIRS  # noqa: E402
from tgq.encoder.layers.heads import Streams  # noqa: E402
from tgq.encoder.model import TGQFormer  # noqa: E402
from tgq.training.data.batches import Chunk  # noqa: E402
from tgq.training.data.casting import Casting  # noqa: E402
from tgq.training.data.dataset import TrainingSet  # noqa: E402
from tgq.training.data.scenes import QUARTERS  # noqa: E402
from tgq.training.trainer import TrainConfig  # noqa: E402
from tgq.training.validation import chunks_of, validation_rows  # noqa: E402

IMAGE_RIDGES, TEXT_RIDGE = (3.0, 10.0, 30.0), 0.1  # in mean variances
RIDGE = 10.0  # of the matcher that the attention follows
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)  # of the training groups


@dataclass(frozen=True)
class Matcher:
    """Canonical correlation of pictures `[n, Dv]` and texts `[n, Dp]`."""

    image_mean: Tensor
    text_mean: Tensor
    image_map: Tensor
    text_map: Tensor
    correlation: Tensor

    @classmethod
    def fit(cls, image: Tensor, text: Tensor, ridge: float) -> Matcher:
        """Fit to n pairs; `ridge` is on the pictures."""
        x, y = image - image.mean(0), text - text.mean(0)
        by_image, by_text = whitening(x, ridge), whitening(y, TEXT_RIDGE)
        left, correlation, right = torch.linalg.svd(by_image.T @ (x.T @ y / len(x)) @ by_text, full_matrices=False)
        return cls(image.mean(0), text.mean(0), by_image @ left[:, :PAIRS], by_text @ right[:PAIRS].T, correlation[:PAIRS].clamp(max=MAX_CORRELATION))

    def scores(self, images: Tensor, text: Tensor) -> Tensor:
        """Mutual information `[B, n]` of n pictures `[B, n, Dv]` of each item with its text `[B, Dp]`, up to a constant of the item."""
        u, y, r = (images - self.image_mean) @ self.image_map, (text - self.text_mean) @ self.text_map, self.correlation
        return ((u * (y * r)[:, None] - u.square() * (r.square() / 2)) / (1 - r.square())).sum(-1)


def whitening(x: Tensor, ridge: float) -> Tensor:
    """`[D, D]`: the principal directions of centred rows, each divided by the root of its variance plus a ridge."""
    variance, directions = torch.linalg.eigh(x.T @ x / len(x))
    return directions / (variance.clamp(min=0) + ridge * variance.mean()).sqrt()


def normalised(image: Tensor) -> Tensor:
    """Pooled features of a tower with a ReLU: their root, so that few strong channels do not decide, at mean 0 and variance 1."""
    return F.layer_norm(image.clamp(min=0).sqrt(), (image.shape[-1],))


@dataclass(frozen=True)
class Question:
    """Scenes of all R rows, and which quarter shows the item."""

    closeups: Tensor  # [R, 4, Dv], normalised
    vocabulary: Tensor  # [R, 4], the anchor's scores
    text: Tensor  # [R, Dp], unit length
    quarter: Tensor  # [R], -1: no scene
    products: Tensor  # [R], how many products the scene shows

    @classmethod
    @torch.no_grad()
    def of(cls, encoder: TGQFormer, rows: TrainingSet, options: TrainConfig) -> Question:
        casting = Casting(rows, 1.0, options.scene_same_category)
        place, cast = casting.draw(np.arange(len(rows)), np.random.default_rng(options.seed))
        closeups, vocabulary = [], []
        for chunk in chunks_of(rows, casting, options.seed):
            tokens = chunk.features.image_tokens[:, -QUARTERS:]
            closeups.append(normalised(tokens))
            vocabulary.append(encoder.anchor.vocabulary_scores(tokens, chunk.features.text))
        text = F.normalize(torch.from_numpy(rows.text[rows.metadata_index[:, 0]]), dim=-1)
        quarter, products = (np.where(place >= 0, of_scene[place], -1) for of_scene in (cast.quarter, (cast.shown >= 0).sum(1)))
        return cls(torch.cat(closeups), torch.cat(vocabulary), text, torch.from_numpy(quarter), torch.from_numpy(products))

    def right(self, scores: Tensor, asked: Tensor) -> float:
        """The share of the asked rows whose quarter has the highest score."""
        return float((scores.argmax(1) == self.quarter)[asked].float().mean())


def curve(groups: np.ndarray, pictures: Tensor, question: Question, learning: Tensor, asked: Tensor, draws: int) -> list[dict[str, float]]:
    """The share of right choices, in percent, by the number of groups that the matcher learns from; the best of the ridges each time.

    groups: `[R]`; pictures: `[R, Dv]`, normalised; learning: the rows to learn from; asked: `[R]` bool, the rows that are asked about.
    """
    group = groups[learning.numpy()]
    names, found = np.unique(group), []
    for share in SHARES:
        rights = []
        for draw in range(draws if share < 1 else 1):
            chosen = np.random.default_rng(draw).permutation(names)[: max(2, round(share * len(names)))]
            own = learning[torch.from_numpy(np.isin(group, chosen))]
            fits = (Matcher.fit(pictures[own], question.text[own], ridge) for ridge in IMAGE_RIDGES)
            rights.append(max(question.right(fit.scores(question.closeups, question.text) + question.vocabulary, asked) for fit in fits))
        found.append({"groups": len(chosen), "right": 100 * float(np.mean(rights)), "lowest": 100 * min(rights), "highest": 100 * max(rights)})
        print(found[-1], flush=True)
    return found


def following(matcher: Matcher, encoder: TGQFormer, spread: float) -> Change:
    """An attention that follows the matcher: its logits of the close-ups, and `spread` times those of its quarter for each cell."""
    side = round((encoder.vision.tokens_per_image - QUARTERS) ** 0.5)
    rows = torch.arange(side)[:, None] >= (side + 1) // 2, torch.arange(side)[None] >= (side + 1) // 2
    quarter = (2 * rows[0].long() + rows[1].long()).flatten()

    def change(streams: Streams, chunk: Chunk) -> Streams:
        f, logits = chunk.features, streams.attention_logits.clone()
        tokens = f.image_tokens[:, -QUARTERS:]
        scores = matcher.scores(normalised(tokens), F.normalize(f.text, dim=-1)) + encoder.anchor.vocabulary_scores(tokens, f.text)
        logits[:, -QUARTERS:] = scores
        logits[:, :-QUARTERS] += spread * scores.log_softmax(1)[:, quarter]
        return replace(streams, attention_logits=torch.where((f.has_image & f.has_text)[:, None], logits, streams.attention_logits))

    return change


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogs", nargs="+", type=catalog_named, default=[catalog_named("fashion-x")], metavar="NAME")
    parser.add_argument("--draws", type=int, default=5, help="random choices of the groups to learn from, for each number of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("build/quality"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality"))
    args = parser.parse_args()
    tower_input = {name: getattr(EncoderConfig(), name) for name in ("image_size", "closeups")}
    chosen, work = tuple(args.catalogs), work_folder(args.work, tower_input)
    prepare(chosen, tower_input, work, ConsoleProgress(Console(stderr=True)), sides=("train",))
    torch.set_num_threads(args.threads)
    options = TrainConfig(seed=args.seed, scene_share=0.5, scene_same_category=0.3)
    for catalog in chosen:
        report = measured(features(catalog, "train", work), options, args.draws)
        lines = [f"# Choosing the product of a scene: {catalog.name}", "", "Shares, MRR and attention in percent, of held-out groups.", "",
                 f"{report['scenes']} scenes, {report['products']:.2f} products in each; one of them at random: {report['chance']:.1f}.", "",
                 "| groups to learn from | right | lowest to highest draw |", "|---|---|---|"]  # fmt: skip
        lines += [f"| {one['groups']} | {one['right']:.1f} | {one['lowest']:.1f} to {one['highest']:.1f} |" for one in report["curve"]]
        lines += ["", "| attention | MRR, pictures | MRR, scenes | attention on the item |", "|---|---|---|---|"]
        lines += ["| " + " | ".join([name, *(f"{value:.1f}" for value in values.values())]) + " |" for name, values in report["retrieval"].items()]
        write_report(args.out, f"choosing-{catalog.name}", report, lines)


def measured(rows: TrainingSet, options: TrainConfig, draws: int) -> dict[str, Any]:
    """The figures of one catalog: the share of right choices by the number of groups, and retrieval by each attention."""
    held_out = validation_rows(rows, options)
    encoder = initialised(rows, held_out, options)
    question = Question.of(encoder, rows, options)
    asked, learning = (torch.from_numpy(mask) & (question.quarter >= 0) for mask in (held_out, ~held_out))
    own = torch.where(learning)[0]
    pictures = normalised(torch.from_numpy(rows.parts.closeup).float())[torch.from_numpy(np.maximum(rows.image_index, 0))]
    by_groups = curve(rows.group, pictures, question, own, asked, draws)
    matcher = Matcher.fit(pictures[own], question.text[own], RIDGE)
    ways: dict[str, Change] = {
        "the anchor": unchanged, "close-ups by the matcher": following(matcher, encoder, 0.0),
        "close-ups and cells by the matcher": following(matcher, encoder, 0.7), "on the item, known from the scene": on_the_item,
    }  # fmt: skip
    rows = rows.with_attention_logits(encoder, views=1)
    retrieval = {name: {k: 100 * v for k, v in figures_of(encoder, rows, held_out, options, way).items()} for name, way in ways.items()}
    products = question.products[asked].float()
    return {"scenes": int(asked.sum()), "products": float(products.mean()), "chance": 100 * float((1 / products).mean()), "curve": by_groups,
            "retrieval": retrieval}  # fmt: skip


if __name__ == "__main__":
    main()
