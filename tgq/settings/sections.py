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

    master: str | None = "local[*]"  # none: spark-submit's --master decides
    app_name: str = "tgq"  # as Spark's pages show it
    driver_memory: str = "4g"  # of the JVM; under spark-submit its own option decides
    shuffle_partitions: Positive | None = None  # none: twice the default parallelism
    conf: dict[str, str] = {}  # any other Spark setting, by its full name


class ColumnMapping(Section):
    """Our field -> the source's column. A field set to null is not read; a named column that is absent is an error."""

    item_id: str = "item_id"  # unique; rows that share an id go to quarantine
    title: str | None = "title"  # what the item is called
    brand: str | None = "brand"  # who makes it
    category: str | None = "category"
    attributes: str | None = "attributes"
    image_uri: str | None = "image"
    image_bytes: str | None = "image_bytes"
    group_id: str | None = None
    variant_id: str | None = None  # views of one variant are neither hit nor miss for each other


class CatalogSettings(Section):
    """The source: what to read and how its columns map to ours."""

    path: str | None = None
    format: Literal["auto", "parquet", "delta", "csv", "jsonl"] = "auto"  # auto: by the file's name
    table: str = "catalog.parquet"  # inside `path` where that is a folder that is not itself a table
    columns: ColumnMapping = ColumnMapping()
    optional_columns: tuple[str, ...] = ()  # fields of `columns` that may be absent from the source
    category_separator: str = ">"  # between the levels of a category path
    slice_columns: tuple[str, ...] = ()  # source columns kept for metric slices, e.g. overlay, background
    csv: dict[str, str] = {"header": "true", "multiLine": "true", "escape": '"'}  # options of Spark's CSV reader


class MetadataSettings(Section):
    """Which metadata the encoder reads. What is left out here stays in the table for people and SQL."""

    fields: tuple[Literal["title", "brand", "category", "attributes"], ...] = ("title", "brand", "category", "attributes")  # without what names the answer
    category_levels: Positive | None = None  # none: the whole path
    attributes: tuple[str, ...] | None = None  # none: all


class ImageSettings(Section):
    """Limits of what is fetched and decoded; anything beyond them is quarantined with its reason."""

    max_bytes: Positive = 20 * 2**20  # of one picture file
    max_pixels: Positive = 64_000_000  # width x height of one picture
    allowed_hosts: tuple[str, ...] = ()  # web hosts that pictures may come from: images.shop.com, or *.shop.com; none: no web access
    allowed_roots: tuple[str, ...] = ()  # folders and object-store URIs that pictures may come from, beside the catalog's own folder
    timeout_s: Annotated[float, Field(gt=0)] = 10.0  # to connect, and between two reads
    retries: Annotated[int, Field(ge=0)] = 3  # further attempts after a timeout, a broken connection, HTTP 429 or 5xx
    verify: Literal["decode", "header"] = "decode"  # header is cheaper, but does not notice a truncated picture


class PairSettings(Section):
    """Where relevance comes from: rows of one group, a table of pairs, or a CSV of links."""

    source: Literal["auto", "group", "table", "links", "none"] = "auto"  # auto: by catalog.columns.group_id
    path: str | None = None  # of the table or CSV, relative to the catalog
    query_column: str = "query_item_id"  # of the table: the query's id
    positive_column: str = "positive_item_id"  # of the table: the id of what is relevant to it
    key_column: Literal["item_id", "group_id", "variant_id"] = "item_id"  # what the link's two ends name
    test_share: Share = 0.5  # share of the groups, by hash, that measure and are never trained on


class EncoderSettings(Section):
    """The encoder and where it runs."""

    path: str = "champion"  # what was promoted in the warehouse, else the bundled one; `default`: the bundled one; or an encoder's folder
    device: Literal["auto", "cpu", "cuda"] = "auto"  # cuda without a GPU is an error
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on a GPU that has it, else float32


class EmbedSettings(Section):
    """How the embed step is cut and fed."""

    batch_tokens: Positive = 4096  # visual + text tokens that one batch is filled to
    task_items: Positive = 128  # items of one Spark task
    slice_items: Positive | None = None  # what one commit holds; none: four tasks for every core or GPU
    decode_threads: Annotated[int, Field(ge=0)] = 0  # 0: as many as the task has cores
    prefetch_mb: Positive = 256  # decoded pictures that may wait for the model
    retry_quarantined: bool = False  # read refused inputs again although they did not change


class FeatureSettings(Section):
    """What the frozen towers said, kept for the next connector."""

    max_gb: Annotated[float, Field(ge=0)] = 20.0  # 0 keeps nothing


class IndexSettings(Section):
    """FAISS shards."""

    max_shard_items: Positive = 1_000_000  # a larger category is split
    memory_budget_gb: Annotated[float, Field(gt=0)] = 4.0  # of one loaded shard; decides how far it is compressed
    factory: str | None = None  # FAISS factory string; none: chosen by size and budget
    recall_target: Share = 0.95  # against exact search: nprobe or efSearch is doubled until a shard reaches it
    recall_k: Positive = 10  # the K of that recall
    keep_generations: Positive = 3  # published generations that a rollback can reach


class NeighborSettings(Section):
    """The item-to-item product."""

    k: Positive = 20  # neighbours of each item
    exclude_same_image: bool = True  # an item with the identical picture is no neighbour
    block_rows: Positive = 16_384  # rows of the pool that a worker holds at once


class EvaluateSettings(Section):
    """Full-pool retrieval metrics."""

    ks: tuple[Positive, ...] = (1, 5, 10, 20, 50, 100)  # cutoffs K of hit rate, recall and in-category hit rate
    split: Literal["test", "train", "all"] = "test"  # whose pairs are the queries
    queries_in_pool: bool = True  # false: a query that is relevant to no other query is no candidate
    exclude_same_image: bool = True  # an item with the query's own picture is neither hit nor miss
    baselines: bool = True  # measure the frozen towers' features too
    replicates: Positive = 1000  # bootstrap replicates
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95  # of the intervals
    seed: int = 0  # of the bootstrap and of the sample of queries
    max_queries: Positive | None = None  # a sample of so many, by hash; none: all
    slices: tuple[str, ...] = ("category", "popularity", "has_brand", "has_attributes", "agreement_decile")  # these, and any of catalog.slice_columns
    min_slice_queries: Positive = 20  # a slice with fewer queries is left out


class GateSettings(Section):
    """What a night must show before it is published."""

    enabled: bool = True  # false: every night is published
    floors: dict[str, float] = {}  # metric: smallest value; null takes away a floor that an earlier layer set
    max_relative_drop: dict[str, float] = {}  # metric: largest relative fall since the last published night

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

    enabled: bool = True  # false: nothing is written to MLflow
    uri: str | None = None  # none: sqlite inside the warehouse
    experiment: str = "tgq-nightly"  # a night is a run of it
    registered_model: str = "tgq-encoder"  # the encoder's name; the alias `champion` marks the promoted version


class ReportSettings(Section):
    """The HTML report."""

    strips: Annotated[int, Field(ge=0)] = 6  # examples of each kind: an item and its neighbours in a row
    strip_neighbors: Positive = 8  # neighbours in a row
    thumbnail_px: Positive = 112  # side of a picture in the report


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
