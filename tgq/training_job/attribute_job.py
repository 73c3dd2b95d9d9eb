"""Trains attribute heads on the items of catalogs or warehouses, and writes their folder, to which a reinforced language model may belong.

The items are those of the train side that state attributes. The driver holds at most `max_items` of a source, some 4 kB each with the default towers, and
270 kB where the heads are reinforced, because then the driver embeds them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tgq.attributes.calibration import KeyFigures
from tgq.attributes.heads import CONFIG, AttributeHeads, ItemFeatures
from tgq.attributes.reinforce import Point, ReinforceConfig, Reinforced, reinforce
from tgq.attributes.reinforce_model import ModelReinforceConfig, ReinforcedModel, need_model, reinforce_model
from tgq.attributes.rewards import RecallRewards
from tgq.attributes.source import Asked
from tgq.attributes.supervise_model import Lesson
from tgq.attributes.training import FOLDS, AttributeTrainConfig, train_heads
from tgq.attributes.vocabulary import Labelled, Vocabulary
from tgq.catalog.ingest import ingest
from tgq.embedding.precompute import run_towers
from tgq.encoder.model import TGQFormer
from tgq.encoder.text import metadata_text
from tgq.enrichment.attributes.head_features import FEATURES, as_asked, features_of, with_head_features
from tgq.enrichment.texts import item_text, with_readable_texts
from tgq.errors import SourceError, UsageError
from tgq.refinement.generators.local import LocalModel
from tgq.registry.champion import local_folder
from tgq.registry.loading import towers_of
from tgq.run.night import Night
from tgq.run.opening import new_run_id
from tgq.run.progress import Progress
from tgq.storage.artifacts import remove_folder
from tgq.storage.lock import warehouse_lock
from tgq.storage.warehouse import Warehouse
from tgq.training.data.dataset import TrainingSet
from tgq.training.data.split import split_of
from tgq.training_job.job import Source
from tgq.training_job.training_set import items_of_side, split_unit, training_set

RECORD = "training.json"
LANGUAGE_MODEL = "language-model"  # the folder of a reinforced one, beside the heads


@dataclass(frozen=True)
class AttributeTraining:
    """The result of a training."""

    version: str  # of the heads
    items: int
    values: dict[str, int]  # in the vocabulary, by key
    figures: tuple[KeyFigures, ...]  # on groups that were left out
    reinforced: Reinforced | ReinforcedModel | None = None
    k: int = 0  # of the recall that rewarded


def train_attributes(
    spark: SparkSession, out: Path, sources: Sequence[Source], encoder: str, options: AttributeTrainConfig, max_items: int, progress: Progress,
    how: ReinforceConfig | None = None, local: LocalModel | None = None,
) -> AttributeTraining:  # fmt: skip
    """Train heads over an encoder's towers and write them to the folder `out`, with `training.json` and a reinforced language model.

    The towers run on items without cached features; then it takes a minute or two.

    Args:
        encoder: the encoder's folder or URI.
        max_items: about how many items per source at most; above it whole groups are left out, by a hash.
        how: reinforce the heads by what their attributes do for retrieval; None: they are not. A fifth of the groups is then left out of both trainings.
        local: reinforce this language model in place of the heads; `how` is a ModelReinforceConfig then.

    Raises:
        UsageError: the folder `out` already holds heads, several sources are to reinforce them, or trl is not installed.
        ModelError: the encoder or the language model cannot be read.
        SourceError: a source cannot be read, or its items have no frequent attributes.
        WarehouseError: the feature cache of a warehouse is full.
    """
    need_new(out)
    if how and len(sources) > 1:
        raise UsageError("several sources are to reinforce the heads, whose reward needs one pool of items", "name one --catalog or --warehouse")
    if local:
        need_model(local)
    towers, model = towers_of(encoder), TGQFormer.from_pretrained(local_folder(encoder))
    run_id = new_run_id(datetime.now(timezone.utc))
    parts = [_read(spark, source, encoder, model, run_id, max_items, progress, bool(how)) for source in sources]
    learned = [part.subset(part.teaching(bool(how))) for part in parts]
    items = [item for part in learned for item in part.items]
    features = ItemFeatures(*(np.concatenate([getattr(part.features, side) for part in learned]) for side in ("image", "text")))
    progress.start("train", FOLDS + 1)
    try:
        made = train_heads(features, items, towers.vision, towers.text, options, lambda done, total: progress.update(done, f"{done} of {total} fits"))
    finally:
        progress.finish()
    heads, k = made.heads, 0
    reinforced: Reinforced | ReinforcedModel | None = None
    if how:
        reinforced, k = _reinforced(heads, parts[0], model, how, local, progress)
    if isinstance(reinforced, Reinforced):
        heads = reinforced.heads
    values = {key: len(listed) for key, listed in heads.config.vocabulary.values.items()}
    record: dict[str, Any] = {
        "version": heads.version, "sources": [source.name for source in sources], "items": len(items), "max_items": max_items,
        "training": asdict(options), "held_out": [asdict(figures) for figures in made.figures],
    }  # fmt: skip
    if how and reinforced:
        curve = [{name: None if value != value else value for name, value in asdict(point).items()} for point in reinforced.curve]  # JSON has no nan
        record["reinforcement"] = {"language_model": local and local.reference, "k": k, "step": reinforced.step, **asdict(how), "curve": curve}
    out.mkdir(parents=True, exist_ok=True)
    if isinstance(reinforced, ReinforcedModel):
        reinforced.save(out / LANGUAGE_MODEL)
    (out / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    heads.save(out)
    return AttributeTraining(heads.version, len(items), values, made.figures, reinforced, k)


def planned(spark: SparkSession, sources: Sequence[Source], options: AttributeTrainConfig, max_items: int, progress: Progress) -> Iterator[str]:
    """Lines that say what a training would learn. No model runs; a catalog folder is read into its scratch warehouse.

    Raises:
        SourceError: a source cannot be read, or has no frequent attributes.
    """
    run_id = new_run_id(datetime.now(timezone.utc))
    items = []
    for source in sources:
        with _opened(spark, source, run_id, progress) as night:
            items += _labelled(source, _rows_of(night, max_items).select("unit", "texts").toArrow())
    vocabulary = Vocabulary.of(items, options.frequent)
    yield f"items with attributes on the train side: {len(items)}"
    for key, values in vocabulary.values.items():
        shown = ", ".join(values[:5]) + (", ..." if len(values) > 5 else "")
        schemas = sum(key in keys for keys in vocabulary.schemas.values())
        yield f"{key}: {len(values)} values ({shown}), in {schemas} of {len(vocabulary.schemas)} schemas of categories"


def need_new(out: Path) -> None:
    """Check that a folder holds no heads.

    Raises:
        UsageError: it does.
    """
    if (out / CONFIG).exists():
        raise UsageError(f"{out} already holds attribute heads", "name another folder")


@contextlib.contextmanager
def _opened(spark: SparkSession, source: Source, run_id: str, progress: Progress) -> Iterator[Night]:
    """The source's warehouse, locked until the block ends; a scratch warehouse is ingested first."""
    if source.scratch:
        Path(source.settings.warehouse.path).mkdir(parents=True, exist_ok=True)
    warehouse = Warehouse(spark, source.settings.warehouse, create=source.scratch)
    with warehouse_lock(source.settings.warehouse):
        night = Night(spark, source.settings, warehouse, f"train-attributes-{run_id}", datetime.now(timezone.utc), progress)
        if source.scratch:
            ingest(night)
        yield night


@dataclass(frozen=True)
class _Part:
    """Items of a source in the order of their ids, with what the heads read, and for a reinforcement what the encoder reads."""

    items: list[Labelled]
    features: ItemFeatures
    texts: list[dict[str, Any]]  # title, brand and category
    rows: TrainingSet | None

    def subset(self, at: np.ndarray) -> _Part:
        return _Part([self.items[n] for n in at], self.features[at], [self.texts[n] for n in at], None)

    def teaching(self, leaves_out: bool) -> np.ndarray:
        """Numbers of the items that state attributes, and with `leaves_out` are of no left-out group."""
        return np.array([n for n, item in enumerate(self.items) if item.attributes and not (leaves_out and _is_left_out(item))], int)


def _is_left_out(item: Labelled) -> bool:
    """Whether the item is of a group on which a reinforcement is judged."""
    return split_of(f"{item.group}:reinforcement", 1 / FOLDS) == "test"


def _reinforced(
    heads: AttributeHeads, part: _Part, model: TGQFormer, how: ReinforceConfig, local: LocalModel | None, progress: Progress,
) -> tuple[Reinforced | ReinforcedModel, int]:  # fmt: skip
    """Reinforced heads or a reinforced language model, and k of the recall that rewarded them."""
    assert part.rows is not None

    def compose(row: int, own: Mapping[str, str]) -> str:
        texts = part.texts[row]
        return metadata_text(texts["title"], texts["brand"], texts["category"], own)

    rewards, vocabulary = RecallRewards(model, part.rows, compose), heads.config.vocabulary
    left_out = np.array([_is_left_out(item) for item in part.items])
    train, held_out = rewards.queries[~left_out[rewards.queries]], rewards.queries[left_out[rewards.queries]]
    missing = [vocabulary.missing(item.category, {}) for item in part.items]
    progress.start("reinforce", how.steps)

    def log(point: Point) -> None:
        progress.update(max(0, point.step), f"recall@{rewards.k} of left-out items {point.held_out_recall:.4f}, {point.held_out_length:.2f} values an item")

    def log_warm_up(step: int, loss: float) -> None:
        progress.update(0, f"warm-up step {step} of {getattr(how, 'warm_up', 0)}, loss {loss:.3f}")

    try:
        if local is None:
            return reinforce(heads, part.features, missing, rewards, train, held_out, how, log), rewards.k
        assert isinstance(how, ModelReinforceConfig)
        asked = [_asked(texts, keys) for texts, keys in zip(part.texts, missing, strict=True)]
        lessons = [Lesson(asked[n], part.items[n].attributes) for n in part.teaching(True)]
        return reinforce_model(local, asked, vocabulary, rewards, train, held_out, how, log, lessons, log_warm_up), rewards.k
    finally:
        progress.finish()


def _asked(texts: Mapping[str, Any], keys: tuple[str, ...]) -> Asked:
    """What a night would ask about an item that states no attribute."""
    return Asked(item_text({**texts, "attributes": ()}), keys, any(texts[name] for name in ("title", "brand", "category")))


def _rows_of(night: Night, max_items: int, pairs: bool = False) -> DataFrame:
    """Rows of `catalog_items` on the train side, with `texts` and `unit`: those that state attributes which the encoder may read, or with `pairs` all."""
    items = with_readable_texts(items_of_side(night, "train", max_items, pairs), night.settings.metadata)
    stating = F.coalesce(F.size("texts.attributes"), F.lit(0)) > 0
    return items.where(F.lit(True) if pairs else stating).withColumn("unit", split_unit())


def _read(
    spark: SparkSession, source: Source, encoder: str, model: TGQFormer, run_id: str, max_items: int, progress: Progress, pairs: bool,
) -> _Part:  # fmt: skip
    """The items of a source. With `pairs` also those without attributes, and all with what the encoder reads."""
    rows = None
    with _opened(spark, source, run_id, progress) as night:
        found = _rows_of(night, max_items, pairs)
        items = as_asked(found)
        ran = run_towers(night, encoder, items)
        wanted = items.select("item_id", "image_hash", "metadata_text", "encoder_title", "unit", "texts")
        table = with_head_features(night, wanted, encoder).select("item_id", "unit", "texts", *FEATURES).orderBy("item_id").toArrow()
        if pairs:
            run_towers(night, encoder, found)
            rows = training_set(night, model, encoder, found, source.name)
            assert rows.item.tolist() == table["item_id"].to_pylist()
        remove_folder(night.staging())
    labelled = _labelled(source, table)
    if not any(item.attributes for item in labelled):
        raise SourceError(f"no item of {source.name} on the train side states an attribute that the encoder may read",
                          "name more in metadata.fields and metadata.attributes, or map them in catalog.columns.attributes")  # fmt: skip
    progress.say(f"{source.name}: {sum(bool(item.attributes) for item in labelled)} items with attributes; towers ran for {ran}")
    return _Part(labelled, features_of(table, model.vision.pooled_width, model.text.pooled_width), table["texts"].to_pylist(), rows)


def _labelled(source: Source, table: pa.Table) -> list[Labelled]:
    rows = zip(table["unit"].to_pylist(), table["texts"].to_pylist(), strict=True)
    return [Labelled(f"{source.name} {unit}", texts["category"] or "", {k: v for k, v in texts["attributes"] or () if v}) for unit, texts in rows]
