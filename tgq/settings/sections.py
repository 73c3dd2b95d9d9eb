"""The settings as frozen, typed sections: their names, types, defaults and the combinations that are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A frozen group of settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class WarehouseSettings(Section):
    """Where the tables live: one folder (or URI) by default, a metastore schema by choice."""

    path: str = "warehouse"
    metastore_schema: str | None = None


class SparkSettings(Section):
    """The session that the command line opens; under spark-submit the submitted master wins."""

    master: str | None = "local[*]"
    app_name: str = "tgq"
    driver_memory: str = "4g"
    shuffle_partitions: Positive | None = None  # none: twice the default parallelism
    conf: dict[str, str] = {}


class ColumnMapping(Section):
    """Our field -> the source's column. A field set to null is not read; a named column that is absent is an error."""

    item_id: str = "item_id"
    title: str | None = "title"
    brand: str | None = "brand"
    category: str | None = "category"
    attributes: str | None = "attributes"
    image_uri: str | None = "image"
    image_bytes: str | None = "image_bytes"
    group_id: str | None = None
    variant_id: str | None = None


class CatalogSettings(Section):
    """The source: what to read and how its columns map to ours."""

    path: str | None = None
    format: Literal["auto", "parquet", "delta", "csv", "jsonl"] = "auto"
    table: str = "catalog.parquet"  # inside `path` where that is a folder that is not itself a table
    columns: ColumnMapping = ColumnMapping()
    optional_columns: tuple[str, ...] = ()  # fields of `columns` that may be absent from the source
    category_separator: str = ">"
    slice_columns: tuple[str, ...] = ()  # source columns kept for metric slices, e.g. overlay, background
    csv: dict[str, str] = {"header": "true", "multiLine": "true", "escape": '"'}


class MetadataSettings(Section):
    """Which metadata the encoder reads. What is left out here stays in the table for people and SQL."""

    fields: tuple[Literal["title", "brand", "category", "attributes"], ...] = ("title", "brand", "category", "attributes")
    category_levels: Positive | None = None  # none: the whole path
    attributes: tuple[str, ...] | None = None  # none: all


class ImageSettings(Section):
    """Limits of what is fetched and decoded; anything beyond them is quarantined with its reason."""

    max_bytes: Positive = 20 * 2**20
    max_pixels: Positive = 64_000_000
    allowed_hosts: tuple[str, ...] = ()
    allowed_roots: tuple[str, ...] = ()  # beside the catalog's own folder
    timeout_s: Annotated[float, Field(gt=0)] = 10.0
    retries: Annotated[int, Field(ge=0)] = 3
    verify: Literal["decode", "header"] = "decode"


class PairSettings(Section):
    """Where relevance comes from: rows of one group, a table of pairs, or a CSV of links."""

    source: Literal["auto", "group", "table", "links", "none"] = "auto"
    path: str | None = None  # of the table or CSV, relative to the catalog
    query_column: str = "query_item_id"
    positive_column: str = "positive_item_id"
    key_column: Literal["item_id", "group_id", "variant_id"] = "item_id"  # what the link's two ends name
    test_share: Share = 0.5


class EncoderSettings(Section):
    """The encoder and where it runs."""

    path: str = "champion"  # what was promoted in the warehouse, else the bundled one; `default`: the bundled one; or an encoder's folder
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


class EmbedSettings(Section):
    """How the embed step is cut and fed."""

    batch_tokens: Positive = 4096  # visual + text tokens that one batch is filled to
    task_items: Positive = 128
    slice_items: Positive | None = None  # what one commit holds; none: four tasks for every core or GPU
    decode_threads: Annotated[int, Field(ge=0)] = 0  # 0: as many as the task has cores
    prefetch_mb: Positive = 256  # decoded pictures that may wait for the model
    retry_quarantined: bool = False


class FeatureSettings(Section):
    """What the frozen towers said, kept for the next connector."""

    max_gb: Annotated[float, Field(ge=0)] = 20.0  # 0 keeps nothing


class IndexSettings(Section):
    """FAISS shards."""

    max_shard_items: Positive = 1_000_000
    memory_budget_gb: Annotated[float, Field(gt=0)] = 4.0
    factory: str | None = None  # none: chosen by size and budget
    recall_target: Share = 0.95
    recall_k: Positive = 10
    keep_generations: Positive = 3


class NeighborSettings(Section):
    """The item-to-item product."""

    k: Positive = 20
    exclude_same_image: bool = True
    block_rows: Positive = 16_384


class EvaluateSettings(Section):
    """Full-pool retrieval metrics."""

    ks: tuple[Positive, ...] = (1, 5, 10, 20, 50, 100)
    split: Literal["test", "train", "all"] = "test"
    queries_in_pool: bool = True
    exclude_same_image: bool = True
    baselines: bool = True
    replicates: Positive = 1000
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    seed: int = 0
    max_queries: Positive | None = None
    slices: tuple[str, ...] = ("category", "popularity", "has_brand", "has_attributes", "agreement_decile")
    min_slice_queries: Positive = 20


class CatalogChangeSettings(Section):
    """How far a catalog may change against that of the last published night. Null: not judged."""

    max_vanished: Share | None = 0.2  # share of the published items that are no longer in the catalog
    max_quarantined: Share | None = 0.1  # rise of the share of rows that are quarantined
    warn_changed: Share | None = 0.5  # share of the remaining items whose content changed: only noted
    accept: bool = False  # publish beyond the limits, for a planned change; the verdict records what was accepted


class GateSettings(Section):
    """What a night must show before it is published."""

    enabled: bool = True
    floors: dict[str, float] = {}  # null takes away a floor that an earlier layer set
    max_relative_drop: dict[str, float] = {}
    catalog_change: CatalogChangeSettings = CatalogChangeSettings()

    @field_validator("floors", "max_relative_drop", mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        return {name: limit for name, limit in value.items() if limit is not None} if isinstance(value, dict) else value


class PromoteSettings(Section):
    """What a candidate must show before it becomes the champion: that it is not worse."""

    share: Share = 0.15  # of the training groups that are asked: those that training itself holds out (its validation_share)
    margin: Share = 0.005  # how far MRR and hit rate may fall overall (one query, if more) where the interval does not tell; no interval may lie below 0


class TrackingSettings(Section):
    """MLflow."""

    enabled: bool = True
    uri: str | None = None  # none: sqlite inside the warehouse
    experiment: str = "tgq-nightly"
    registered_model: str = "tgq-encoder"


class ReportSettings(Section):
    """The HTML report."""

    strips: Annotated[int, Field(ge=0)] = 6
    strip_neighbors: Positive = 8
    thumbnail_px: Positive = 112


class Settings(Section):
    """All of it, validated and frozen."""

    warehouse: WarehouseSettings = WarehouseSettings()
    spark: SparkSettings = SparkSettings()
    catalog: CatalogSettings = CatalogSettings()
    metadata: MetadataSettings = MetadataSettings()
    images: ImageSettings = ImageSettings()
    pairs: PairSettings = PairSettings()
    encoder: EncoderSettings = EncoderSettings()
    embed: EmbedSettings = EmbedSettings()
    features: FeatureSettings = FeatureSettings()
    index: IndexSettings = IndexSettings()
    neighbors: NeighborSettings = NeighborSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    gate: GateSettings = GateSettings()
    promote: PromoteSettings = PromoteSettings()
    tracking: TrackingSettings = TrackingSettings()
    report: ReportSettings = ReportSettings()

    @model_validator(mode="after")
    def _combinations(self) -> Settings:
        if self.catalog.columns.image_uri is None and self.catalog.columns.image_bytes is None and not self.metadata.fields:
            raise ValueError("metadata.fields: there is neither an image column nor a metadata field to embed")
        if self.pairs.source in ("table", "links") and not self.pairs.path:
            raise ValueError(f"pairs.path: pairs.source is '{self.pairs.source}', which needs a path")
        if self.pairs.source == "group" and not self.catalog.columns.group_id:
            raise ValueError("catalog.columns.group_id: pairs.source is 'group', which needs the group's column")
        if self.encoder.device == "cpu" and self.encoder.dtype == "bfloat16":
            raise ValueError("encoder.dtype: bfloat16 is for GPUs; with encoder.device=cpu use float32")
        known = {"mrr", "map", "ndcg@10", "coverage", f"ann_recall@{self.index.recall_k}"}
        known |= {f"{metric}@{k}" for metric in ("hit_rate", "recall", "in_category_hit_rate") for k in self.evaluate.ks}
        for section in ("floors", "max_relative_drop"):
            for name in getattr(self.gate, section):
                if name not in known:
                    raise ValueError(f"gate.{section}: no night measures '{name}' under evaluate.ks and index.recall_k; "
                                     f"name one of {', '.join(sorted(known))}, or set it to null")  # fmt: skip
        unknown = [f for f in self.catalog.optional_columns if f not in ColumnMapping.model_fields]
        if unknown:
            raise ValueError(f"catalog.optional_columns: no such field {unknown}; fields are {list(ColumnMapping.model_fields)}")
        return self
