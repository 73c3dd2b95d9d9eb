"""What generated attributes are worth where the shop's are missing: accuracy per attribute, and retrieval with hidden, generated and true attributes.

    python benchmarks/quality/attributes.py [--catalogs demo luma] [--seeds 5] [--reinforce STEPS] [--k K] [--stage-steps STEPS] [--work DIR] [--out DIR]

Heads learn on the train groups of a catalog. On the test groups all attributes are hidden, the heads say those that they are sure of, and each value is
compared with the stated one. For retrieval an encoder is `initialise`d on the train groups with their true attributes, without gradient steps; queries and
pool are all items of the test groups, with all attributes hidden, generated, or true. Seeds are of the heads' training. Differences are paired by query, with
95 % intervals by group. Nothing is chosen on test groups: temperatures and thresholds are of left-out train groups. What is done for a seed is kept in
`--work`, so an interrupted study goes on.

With `--reinforce` heads are trained on four fifths of the train groups, then reinforced there; the curve is of these and of the other fifth, which chooses
the step. Both heads then speak for the test groups, under the same encoder. With `--stage-steps` the encoder is trained once more for each of them, on
train groups whose attributes are hidden and generated, with attribute-guided weights (`agcl`), and judged on test groups with attributes of the same heads.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))

from catalogs import CATALOGS, Catalog, source_of, work_folder  # noqa: E402
from refinement import METRICS, compared, items_of, retitled  # noqa: E402

from tgq.attributes.calibration import figures_of  # noqa: E402
from tgq.attributes.heads import AttributeHeads, ItemFeatures  # noqa: E402
from tgq.attributes.reinforce import ReinforceConfig, reinforce  # noqa: E402
from tgq.attributes.rewards import RecallRewards  # noqa: E402
from tgq.attributes.training import AttributeTrainConfig, train_heads  # noqa: E402
from tgq.attributes.vocabulary import Labelled, Vocabulary, stated  # noqa: E402
from tgq.catalog.fields import encoder_texts  # noqa: E402
from tgq.cli.console import ConsoleProgress  # noqa: E402
from tgq.encoder.config import EncoderConfig  # noqa: E402
from tgq.encoder.model import TGQFormer  # noqa: E402
from tgq.encoder.text import metadata_text  # noqa: E402
from tgq.errors import SourceError  # noqa: E402
from tgq.refinement.refiner import ItemText  # noqa: E402
from tgq.refinement.words import folded  # noqa: E402
from tgq.run.progress import Progress  # noqa: E402
from tgq.settings.load import load_settings  # noqa: E402
from tgq.settings.sections import MetadataSettings  # noqa: E402
from tgq.spark.session import open_session  # noqa: E402
from tgq.training.data.dataset import TrainingSet, text_features  # noqa: E402
from tgq.training.data.split import split_of  # noqa: E402
from tgq.training.initialisation import initialise  # noqa: E402
from tgq.training.loss.ranking import first_ranks  # noqa: E402
from tgq.training.trainer import TrainConfig  # noqa: E402
from tgq.training.trainer import train as fit_encoder  # noqa: E402
from tgq.training.validation import embed  # noqa: E402
from tgq.training_job.job import read_source  # noqa: E402

FIXED = TrainConfig(strength=0.375, closeup_share=0.25, base_floor=0.8)
HIDDEN, GENERATED, TRUE = "hidden", "generated", "true"
SUPERVISED, REINFORCED = "supervised", "reinforced"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogs", nargs="+", choices=[c.name for c in CATALOGS], default=["demo", "luma"])
    parser.add_argument("--seeds", type=int, default=5, help="of the heads (default 5)")
    parser.add_argument("--precision", type=float, default=0.9, help="wanted share of said values that are right (default 0.9)")
    parser.add_argument("--reinforce", type=int, default=0, metavar="STEPS", help="also reinforce the heads, in so many steps (default 0: do not)")
    parser.add_argument("--k", type=int, help="of the recall that rewards; default: 50, or a hundredth of a small pool")
    parser.add_argument("--stage-steps", type=int, default=0, help="then train the encoder with their attributes, in so many steps (default 0: do not)")
    parser.add_argument("--work", type=Path, default=Path("build/quality"), help="folder for features (default build/quality)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality"), help="folder for attributes.json and attributes.md")
    args = parser.parse_args()
    tower_input = {name: getattr(EncoderConfig(), name) for name in ("image_size", "closeups")}
    work, report = work_folder(args.work, tower_input), {}
    for catalog in (c for c in CATALOGS if c.name in args.catalogs):
        try:
            prepare(catalog, work, ConsoleProgress(Console(stderr=True)))
        except SourceError as error:
            print(f"{catalog.name} is left out: {error}", flush=True)
            continue
        report[catalog.name] = study(catalog, work, args.seeds, args.precision, args.reinforce, args.stage_steps, args.k)
        write(report, args.out, args.seeds)


@dataclass(frozen=True)
class Side:
    """The items of one side of a catalog with what the heads read of them."""

    rows: TrainingSet
    texts: list[ItemText]  # with the true attributes
    features: ItemFeatures

    @property
    def labelled(self) -> list[Labelled]:
        """As the heads are trained."""
        return [Labelled(group, item.category, item.attributes) for group, item in zip(self.rows.group.tolist(), self.texts, strict=True)]


def prepare(catalog: Catalog, work: Path, progress: Progress) -> None:
    """Run the default towers over all pictures that have no features yet. Raises as `folder_of`."""
    missing = [side for side in ("train", "test") if not features_file(catalog, side, work).is_file()]
    if not missing:
        return
    torch.manual_seed(0)
    encoder, start = TGQFormer.from_pretrained("default"), work / "default"
    encoder.save_pretrained(start)
    (work / "features").mkdir(parents=True, exist_ok=True)
    with open_session(load_settings(["local"], []).settings) as spark:
        for side in missing:
            source = replace(source_of(catalog, work), name=catalog.name)
            read_source(spark, source, encoder, start, "study", None, 0, progress, side)[0].save(features_file(catalog, side, work))


def features_file(catalog: Catalog, side: str, work: Path) -> Path:
    """The file with the features of one side, and next to it that of the texts without attributes."""
    return work / "features" / f"attributes-{catalog.name}-{side}.npz"


def side_of(catalog: Catalog, side: str, work: Path, encoder: TGQFormer, items: Mapping[str, ItemText]) -> Side:
    """One side; its texts without attributes go through the text tower once."""
    rows = TrainingSet.load(features_file(catalog, side, work))
    texts = [items[name] for name in rows.item.tolist()]
    return Side(rows, texts, head_features(encoder, rows, texts, features_file(catalog, side, work).with_suffix(".texts.npy")))


def head_features(encoder: TGQFormer, rows: TrainingSet, texts: Sequence[ItemText], file: Path | None = None) -> ItemFeatures:
    """What heads read of the rows.

    Args:
        file: keeps the texts' features.
    """
    bare = [metadata_text(item.title, item.brand, item.category, None) for item in texts]
    unique = list(dict.fromkeys(bare))
    if file is not None and file.is_file():
        pooled = np.load(file)
    else:
        pooled = text_features(encoder, dict.fromkeys(unique))[2]
        if file is not None:
            np.save(file, pooled)
    at = {text: n for n, text in enumerate(unique)}
    text = pooled[[at[one] for one in bare]] * np.array([bool(one) for one in bare])[:, None]
    image = rows.image[np.maximum(rows.image_index, 0)] * (rows.image_index >= 0)[:, None]
    return ItemFeatures(image.astype(np.float32), text.astype(np.float32))


def study(catalog: Catalog, work: Path, seeds: int, precision: float, steps: int = 0, stage_steps: int = 0, k: int | None = None) -> dict[str, Any]:
    """The figures of one catalog.

    Args:
        steps: of the reinforcement; 0: none.
        stage_steps: of the encoder's training with generated attributes; 0: none.
        k: of the recall that rewards, see `RecallRewards`.
    """
    encoder = TGQFormer.from_pretrained("default")
    items, metadata = items_of(catalog, work)
    train, test = (side_of(catalog, side, work, encoder, items) for side in ("train", "test"))
    base = initialised(train)
    ranks: dict[str, list[np.ndarray]] = {}
    per_key: list[dict[str, Any]] = []
    for seed in range(seeds):
        folder = work / "attributes" / f"{catalog.name}-{precision:g}-{seed}"
        if (folder / "attributes.json").is_file():
            heads = AttributeHeads.load(folder)
        else:
            heads = train_heads(train.features, train.labelled, "study", "study", AttributeTrainConfig(seed=seed, precision=precision)).heads
            heads.save(folder)
        said = generated(heads, test)
        per_key += [{"seed": seed, **asdict(one)} for one in accuracy(heads, test)]
        ranks.setdefault(GENERATED, []).append(kept(folder / "ranks.npy", lambda said=said: ranks_of(base, test, said, metadata)))
    for name, attributes in ((HIDDEN, [{}] * len(test.texts)), (TRUE, [dict(item.attributes) for item in test.texts])):
        file = work / "attributes" / f"{catalog.name}-{name}.npy"
        ranks[name] = [kept(file, lambda attributes=attributes: ranks_of(base, test, attributes, metadata))]
    retrieval = {
        name: {metric: compared(ranks[name], ranks[HIDDEN], test.rows.group, of) for metric, of in METRICS.items()} for name in (HIDDEN, GENERATED, TRUE)
    }  # fmt: skip
    vocabulary = heads.config.vocabulary
    further = Reinforcement(catalog, work, train, test, base, metadata, precision, steps, k).study(seeds, stage_steps) if steps else {}
    return {
        **further,
        "train_items": len(train.texts), "test_items": len(test.texts), "precision": precision, "seeds": seeds, "keys": mean_figures(per_key),
        "values": {key: len(values) for key, values in vocabulary.values.items()}, "retrieval": retrieval,
    }  # fmt: skip


def kept(file: Path, make: Any) -> np.ndarray:
    """An array that is made once."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, make())
    found: np.ndarray = np.load(file)
    return found


def initialised(train: Side) -> TGQFormer:
    """An encoder that is fitted in closed form to the train groups with their true attributes."""
    torch.manual_seed(0)
    made = TGQFormer(EncoderConfig())
    initialise(made, train.rows, FIXED)
    return made.eval()


def missing_keys(vocabulary: Vocabulary, side: Side) -> list[tuple[str, ...]]:
    """The keys that are asked for if all attributes are hidden."""
    return [vocabulary.missing(item.category, {}) for item in side.texts]


def generated(heads: AttributeHeads, side: Side) -> list[dict[str, str]]:
    """The attributes that heads say if all are hidden."""
    answers = heads.predict(side.features, missing_keys(heads.config.vocabulary, side))
    return [{said.key: said.value for said in row if said.is_said} for row in answers]


def accuracy(heads: AttributeHeads, side: Side) -> list[Any]:
    """Figures by key, over the items that state it and whose category's schema has it."""
    answers = heads.predict(side.features, missing_keys(heads.config.vocabulary, side))
    found = []
    for key in heads.keys:
        pairs = [
            (said, stated(item.attributes)[key]) for item, row in zip(side.texts, answers, strict=True) for said in row
            if said.key == key and key in stated(item.attributes)
        ]  # fmt: skip
        score, right, said_ = (
            np.array([getter(pair) for pair in pairs])
            for getter in (lambda p: p[0].score, lambda p: folded(p[0].value) == folded(p[1]), lambda p: p[0].is_said)
        )
        if pairs:
            found.append(figures_of(key, score, right, said_))
    return found


def mean_figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """By key, the means over the seeds, and the smallest and largest precision."""
    means: dict[str, dict[str, float | None]] = {}
    for key in dict.fromkeys(row["key"] for row in rows):
        own = [row for row in rows if row["key"] == key]
        precise = [row["precision"] for row in own if row["precision"] is not None]
        means[key] = {
            "items": own[0]["items"], **{name: float(np.mean([row[name] for row in own])) for name in ("accuracy", "coverage")},
            "precision": float(np.mean(precise)) if precise else None, "lowest_precision": min(precise, default=None),
            "highest_precision": max(precise, default=None),
        }  # fmt: skip
    return means


def ranks_of(encoder: TGQFormer, side: Side, attributes: Sequence[Mapping[str, str]], metadata: MetadataSettings) -> np.ndarray:
    """Ranks of the first relevant item for each item, if the items have these attributes."""
    changed = {name: replace(item, attributes=own) for name, item, own in zip(side.rows.item.tolist(), side.texts, attributes, strict=True)}
    rows = retitled(encoder, side.rows, changed, {name: item.title for name, item in changed.items()}, metadata)
    return first_ranks(embed(encoder, rows), rows, np.arange(len(rows)))


@dataclass(frozen=True)
class Reinforcement:
    """Reinforces heads on a catalog's train groups, and compares them with the supervised ones on its test groups."""

    catalog: Catalog
    work: Path
    train: Side
    test: Side
    base: TGQFormer
    metadata: MetadataSettings
    precision: float
    steps: int
    k: int | None

    def study(self, seeds: int, stage_steps: int) -> dict[str, Any]:
        """The mean curve, and figures of both heads on the test groups."""
        rewards, judge = (RecallRewards(self.base, side.rows, self._compose(side), self.k) for side in (self.train, self.test))
        curves, ranks, recalls, lengths = [], defaultdict(list), defaultdict(list), defaultdict(list)
        stages: dict[str, list[np.ndarray]] = defaultdict(list)
        for seed in range(seeds):
            folder = self.work / "attributes" / f"{self.catalog.name}-{self.precision:g}-{self.steps}-steps-k{self.k}-{seed}"
            if not (folder / "curve.json").is_file():
                self._reinforce(rewards, folder, seed)
            curves.append(json.loads((folder / "curve.json").read_text()))
            for arm in (SUPERVISED, REINFORCED):
                said = generated(AttributeHeads.load(folder / arm), self.test)
                ranks[arm].append(kept(folder / f"{arm}.npy", lambda said=said: ranks_of(self.base, self.test, said, self.metadata)))
                queries = judge.queries.tolist()
                recall = kept(folder / f"{arm}-recall.npy", lambda said=said, q=queries: judge.recall(q, [said[row] for row in q]))
                recalls[arm].append(float(recall.mean()))
                lengths[arm].append(float(np.mean([len(own) for own in said])))
                if stage_steps:
                    stages[arm].append(kept(folder / f"{arm}-stage-{stage_steps}.npy", lambda f=folder / arm, seed=seed: self._stage(f, seed, stage_steps)))
            print(f"{self.catalog.name}, seed {seed}: recall@{judge.k} of test items {recalls[SUPERVISED][-1]:.4f} supervised, "
                  f"{recalls[REINFORCED][-1]:.4f} reinforced", flush=True)  # fmt: skip
        group = self.test.rows.group
        found: dict[str, Any] = {"k": judge.k, "train_k": rewards.k, "steps": self.steps, "curve": mean_curve(curves), "test": {
            arm: {"recall": recalls[arm], "length": lengths[arm], **{m: compared(ranks[arm], ranks[SUPERVISED], group, of) for m, of in METRICS.items()}}
            for arm in (SUPERVISED, REINFORCED)
        }, "chosen_steps": [curve["step"] for curve in curves]}  # fmt: skip
        if stage_steps:
            found["stage"] = {"steps": stage_steps, **{
                arm: {m: compared(stages[arm], stages[SUPERVISED], group, of) for m, of in METRICS.items()} for arm in (SUPERVISED, REINFORCED)
            }}  # fmt: skip
        return {"reinforcement": found}

    def _reinforce(self, rewards: RecallRewards, folder: Path, seed: int) -> None:
        left_out = np.array([split_of(f"{group}:reinforcement", 0.2) == "test" for group in self.train.rows.group])
        learning = np.flatnonzero(~left_out)
        options = AttributeTrainConfig(seed=seed, precision=self.precision)
        heads = train_heads(self.train.features[learning], [self.train.labelled[n] for n in learning], "study", "study", options).heads
        asked, queries = missing_keys(heads.config.vocabulary, self.train), rewards.queries
        how = ReinforceConfig(seed=seed, steps=self.steps)
        found = reinforce(
            heads, self.train.features, asked, rewards, queries[~left_out[queries]], queries[left_out[queries]], how,
            lambda p: print(f"seed {seed} step {p.step}: recall {p.train_recall:.4f} train, {p.held_out_recall:.4f} left out, {p.held_out_length:.2f} values",
                            flush=True),
        )  # fmt: skip
        heads.save(folder / SUPERVISED)
        found.heads.save(folder / REINFORCED)
        (folder / "curve.json").write_text(json.dumps({"step": found.step, "points": [asdict(point) for point in found.curve]}))

    def _stage(self, folder: Path, seed: int, steps: int) -> np.ndarray:
        """Ranks of test items under an encoder that is trained on attributes which these heads say, of train and test groups alike."""
        heads, sides = AttributeHeads.load(folder), []
        for side in (self.train, self.test):
            said = generated(heads, side)
            changed = {name: replace(item, attributes=own) for name, item, own in zip(side.rows.item.tolist(), side.texts, said, strict=True)}
            sides.append(retitled(self.base, side.rows, changed, {name: item.title for name, item in changed.items()}, self.metadata))
        torch.manual_seed(seed)
        encoder = TGQFormer(EncoderConfig())
        fit_encoder(encoder, sides[0], replace(FIXED, seed=seed, steps=steps, pairs=64, evaluate_every=steps, agcl=True))
        return first_ranks(embed(encoder, sides[1]), sides[1], np.arange(len(sides[1])))

    def _compose(self, side: Side) -> Callable[[int, Mapping[str, str]], str]:
        def compose(row: int, own: Mapping[str, str]) -> str:
            item = side.texts[row]
            fields = {"title": item.title, "brand": item.brand, "category": item.category, "attributes": dict(own)}
            return encoder_texts(fields, self.metadata)[0]

        return compose


def mean_curve(curves: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The mean of the seeds' curves, point by point; nan, where nothing was sampled yet, becomes 0."""
    points = [curve["points"] for curve in curves]
    return [{name: float(np.nan_to_num(np.mean([one[name] for one in at]))) for name in at[0]} for at in zip(*points, strict=True)]


def reinforced_lines(found: Mapping[str, Any]) -> list[str]:
    """The part of the page about the reinforcement."""
    head = ("step", "reward", "recall, train, %", "left out, %", "values, train", "left out", "divergence")
    lines = ["", f"Reinforced in {found['steps']} steps, reward recall@{found['train_k']}; means of the seeds. Chosen steps: "
             f"{', '.join(map(str, found['chosen_steps']))}.", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]  # fmt: skip
    for p in found["curve"]:
        sampled = f"{p['reward']:.4f}" if p["step"] else "-"
        lines.append(f"| {p['step']:.0f} | {sampled} | {100 * p['train_recall']:.1f} | {100 * p['held_out_recall']:.1f} | {p['train_length']:.2f} | "
                     f"{p['held_out_length']:.2f} | {p['divergence']:.4f} |")  # fmt: skip
    lines += ["", f"| heads, on test groups | recall@{found['k']}, % (lowest to highest seed) | values an item | "
              f"{' | '.join(f'{metric} | difference to supervised' for metric in METRICS)} |", "|---" * (3 + 2 * len(METRICS)) + "|"]  # fmt: skip
    for arm, one in found["test"].items():
        recall = 100 * np.array(one["recall"])
        lines.append(f"| {arm} | {recall.mean():.1f} ({recall.min():.1f} to {recall.max():.1f}) | {np.mean(one['length']):.2f} | "
                     f"{' | '.join(one[metric] for metric in METRICS)} |")  # fmt: skip
    if stage := found.get("stage"):
        lines += ["", f"Encoders trained with their attributes, {stage['steps']} steps with attribute-guided weights:", "",
                  f"| heads | {' | '.join(f'{metric} | difference to supervised' for metric in METRICS)} |", "|---" * (1 + 2 * len(METRICS)) + "|"]  # fmt: skip
        lines += [f"| {arm} | {' | '.join(stage[arm].values())} |" for arm in (SUPERVISED, REINFORCED)]
    return lines


def write(report: Mapping[str, Any], folder: Path, seeds: int) -> None:
    """Write the figures as JSON and as a page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "attributes.json").write_text(json.dumps(report, indent=1) + "\n")
    lines = ["# Generated attributes", "", f"Heads over the default towers, {seeds} seeds. All attributes of the test groups are hidden."]
    for name, found in report.items():
        lines += ["", f"## {name}", "", f"{found['train_items']} items to learn from, {found['test_items']} of other groups to judge. Wanted precision "
                  f"{found['precision']:g}.", "", "| attribute | values | items | right, % | said, % | right if said, % (lowest to highest seed) |",
                  "|---|---|---|---|---|---|"]  # fmt: skip
        for key, one in found["keys"].items():
            precise = "never said" if one["precision"] is None else (
                f"{100 * one['precision']:.1f} ({100 * one['lowest_precision']:.1f} to {100 * one['highest_precision']:.1f})")  # fmt: skip
            lines.append(f"| {key} | {found['values'][key]} | {one['items']} | {100 * one['accuracy']:.1f} | {100 * one['coverage']:.1f} | {precise} |")
        lines += ["", f"| attributes | {' | '.join(f'{metric} | difference to hidden' for metric in METRICS)} |", "|---" * (1 + 2 * len(METRICS)) + "|"]
        lines += [f"| {arm} | {' | '.join(cells.values())} |" for arm, cells in found["retrieval"].items()]
        lines += reinforced_lines(found["reinforcement"]) if "reinforcement" in found else []
    (folder / "attributes.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
