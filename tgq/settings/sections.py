"""The settings as frozen, typed sections: names, types, defaults, and the combinations that are errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tgq.settings.enrich import EnrichSettings
from tgq.settings.section import Positive, Section, Share, need_networks


class WarehouseSettings(Section):
    """Where the tables, shards and reports are stored."""

    path: str = "warehouse"  # folder or URI
    metastore_schema: str | None = None  # schema that registers the tables; null: tables are found by their folder
    lock: Literal["auto", "file", "lease", "none"] = "auto"  # auto: file in a folder, lease on an object store; none: the scheduler keeps nights apart
    lease_seconds: Annotated[float, Field(gt=0)] = 120.0  # a process that has not renewed its lease for so long may lose it; it renews six times in this time

    @model_validator(mode="after")
    def _lockable(self) -> WarehouseSettings:
        if self.lock == "file" and "://" in self.path and not self.path.startswith("file:"):
            raise ValueError(f"warehouse.lock: 'file' needs a folder, but warehouse.path is '{self.path}'")
        return self


class SparkSettings(Section):
    """The Spark session."""

    master: str | None = "local[*]"  # null: spark-submit's --master
    app_name: str = "tgq"  # name of the Spark application
    driver_memory: str = "4g"  # of the driver JVM; under spark-submit its own option applies
    shuffle_partitions: Positive | None = None  # null: twice the default parallelism
    sized_for: Literal["auto", "small", "large"] = "auto"  # small: little is compiled, which pays for some thousand items on one machine; auto: by size
    conf: dict[str, str] = {}  # further Spark options, by their full names


Column = str | tuple[str, ...]


class ColumnMapping(Section):
    """Field: source column, or several columns of which the first filled one is used.

    A field set to null is not read. A named column must exist, unless its name ends in `?` or has its default value and its
    field is in `catalog.optional_columns`."""

    item_id: Column = "item_id"  # unique; rows that share an id are quarantined
    title: Column | None = "title"  # name of the item
    brand: Column | None = "brand"  # brand of the item
    category: Column | None = "category"  # 'a > b > c', or an array of levels
    attributes: Column | dict[str, Column] | None = "attributes"  # a map, a struct, or JSON text; or one column for each attribute
    image_uri: Column | None = "image"  # URI, or a path relative to the catalog
    image_bytes: Column | None = "image_bytes"  # binary column, instead of or in addition to image_uri
    additional_images: Column | None = None  # further pictures, stored but not embedded
    group_id: Column | None = None  # items of one group are relevant to each other
    variant_id: Column | None = None  # views of one variant are not judged for each other


class CsvSettings(Section):
    """CSV files, and the encoding of all text files."""

    sep: Annotated[str, Field(min_length=1, max_length=1)] | None = None  # null: found in the header
    quote: Annotated[str, Field(max_length=1)] | None = '"'  # null: quotes have no meaning
    escape: Annotated[str, Field(min_length=1, max_length=1)] = '"'  # the quote character: quotes in a cell are doubled
    header: bool = True  # false: columns are called _c0, _c1, ...
    multiLine: bool = True  # a quoted cell may contain line breaks; false: several tasks read a large file
    max_cell_lines: Positive = 200  # a quoted cell of more lines counts as never closed
    encoding: str | None = None  # null: by byte order mark, else UTF-8


class CatalogSettings(Section):
    """The catalog to read."""

    path: str | None = None  # a table, or a folder that holds one
    format: Literal["auto", "parquet", "delta", "csv", "jsonl", "xml"] = "auto"  # auto: by the name of the file
    table: str = "catalog.parquet"  # name of the table inside `path`, if `path` is not itself a table
    columns: ColumnMapping = ColumnMapping()
    optional_columns: tuple[str, ...] = ()  # fields whose column may be absent
    category_separator: Annotated[str, Field(min_length=1)] = ">"  # between the levels of a category path
    category_list_separator: str | None = None  # between several category paths in one cell, of which the first is used; null: a cell is one path
    missing: tuple[str, ...] = ("nan", "None", "NULL", "N/A", "<NA>", "NaT")  # cells that mean "no value", in any case
    inherit: tuple[Literal["title", "brand", "category", "image_uri"], ...] = ()  # empty fields are taken from the group's first row
    slice_columns: tuple[str, ...] = ()  # source columns stored for metric slices, e.g. overlay, background
    csv: CsvSettings = CsvSettings()


class MetadataSettings(Section):
    """The metadata that the encoder reads. Fields left out here are still stored in `catalog_items`."""

    fields: tuple[Literal["title", "brand", "category", "attributes"], ...] = ("title", "brand", "category", "attributes")  # none that names the answer
    category_levels: Positive | None = None  # number of levels from the top; null: all
    attributes: tuple[str, ...] | None = None  # names of attributes; null: all


class ImageSettings(Section):
    """Limits on fetching and decoding pictures. An item whose picture exceeds them is quarantined."""

    max_bytes: Positive = 20 * 2**20  # of an encoded picture
    max_pixels: Positive = 64_000_000  # width x height of a picture
    allowed_hosts: tuple[str, ...] = ()  # web hosts, e.g. images.shop.com or *.shop.com; empty: no web access
    private_networks: tuple[str, ...] = ()  # networks, e.g. 10.0.0.0/8, in which a host that is listed by its full name may have its address
    allowed_roots: tuple[str, ...] = ()  # folders and object-store URIs, in addition to the catalog's folder
    timeout_s: Annotated[float, Field(gt=0)] = 10.0  # to connect, and between two reads
    retries: Annotated[int, Field(ge=0)] = 3  # after a timeout, a broken connection, HTTP 429 or 5xx
    verify: Literal["decode", "header"] = "decode"  # how ingest checks pictures; header is faster but does not notice truncated ones

    @field_validator("private_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return need_networks("images.private_networks", value)


class PairSettings(Section):
    """Relevance pairs: the source, and the split."""

    source: Literal["auto", "group", "table", "links", "none"] = "auto"  # auto: items of one group, if the catalog has groups
    path: str | None = None  # of the table or links, relative to the catalog
    query_column: str = "query_item_id"  # column of the table or links: the query
    positive_column: str = "positive_item_id"  # column of the table or links: the item that is relevant to it
    key_column: Literal["item_id", "group_id", "variant_id"] = "item_id"  # what the two columns contain
    test_share: Share = 0.5  # share of the groups, by hash, for evaluation; the others are for training


class QueryColumns(Section):
    """Columns of the file of queries. A name that ends in `?` may be absent; a field set to null is not read."""

    query_id: Column = "query_id"  # several rows with one id must have one text
    text: Column = "query"  # what was typed
    source: Column | None = "source?"  # where the query is from, e.g. human or generated
    popularity: Column | None = "popularity?"  # how often it is searched; what is no number above or equal 0 is left empty


class JudgmentColumns(Section):
    """Columns of the judgments."""

    query_id: Column = "query_id"  # a query of the file of queries
    item_id: Column = "item_id"  # an item of the catalog
    grade: Column = "grade"  # a number, or a word of queries.labels
    weight: Column | None = "weight?"  # of the judgment; 1 where empty or no number, never below 0
    event_time: Column | None = "event_time?"  # when it was judged


class ClickSettings(Section):
    """Grades from a click log: one row for each item that was shown for a query at a rank, clicked or not."""

    path: str | None = None  # of the log, relative to the catalog; null: none; a name that ends in `?` may be absent
    query: Column = "query"  # column: what was typed
    item_id: Column = "item_id"  # column: the item shown
    rank: Column = "rank"  # column: its place, counted from 0 or 1
    clicked: Column = "clicked"  # column: true or false, 1 or 0
    thresholds: Annotated[tuple[float, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)  # where grades 1, 2, ... begin: clicks over those expected
    prior_clicks: Annotated[float, Field(gt=0)] = 2.0  # expected clicks that the average counts for, beside the log's own of a query and item
    prior_impressions: Annotated[float, Field(gt=0)] = 100.0  # impressions that 1 / rank counts for, beside the log's own of a rank
    min_examined: Annotated[float, Field(ge=0)] = 20.0  # impressions, each counted by how far its rank is examined; pairs with fewer have no grade


class QuerySettings(Section):
    """Queries of a search and graded items for them: where they are, and the split. Off while no path is set."""

    path: str | None = None  # of the queries, relative to the catalog; in a folder queries.parquet; a name that ends in `?` may be absent
    judgments: str | None = None  # of the judgments, relative to the catalog; in a folder judgments.parquet; a name that ends in `?` may be absent
    columns: QueryColumns = QueryColumns()
    judgment_columns: JudgmentColumns = JudgmentColumns()
    clicks: ClickSettings = ClickSettings()
    labels: dict[str, float] = {}  # grades that are words, e.g. {exact: 3, partial: 1, irrelevant: 0}, in any case
    highest_grade: Annotated[float, Field(gt=0)] = 3.0  # grades are 0 to this; others are quarantined
    irrelevant_grade: Annotated[float, Field(ge=0)] = 0.0  # grades up to this have no gain; the gain in NDCG of others is the grade minus this
    relevant_grade: float | None = None  # from this grade on an item is relevant for recall, MRR, MAP and hit rate; null: each with a gain is
    test_share: Share = 0.5  # share of the texts, by hash, for evaluation; the others are for training


class EncoderSettings(Section):
    """The encoder and its device."""

    path: str = "champion"  # champion: the warehouse's champion, or the bundled encoder if none; default: the bundled encoder; or a folder
    device: Literal["auto", "cpu", "cuda"] = "auto"  # cuda: an error without a GPU
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on a GPU that supports it, else float32


class EmbedSettings(Section):
    """Sizes and threads of the embed step."""

    batch_tokens: Positive = 4096  # visual + text tokens per batch
    task_items: Positive = 128  # items of a Spark task: a quarter of them where the model is slow, eight times as many where it is fast
    slice_items: Positive | None = None  # items per commit; null: about a minute of work
    decode_threads: Annotated[int, Field(ge=0)] = 0  # per task; 0: one per core of the task
    prefetch_mb: Positive = 256  # decoded pictures waiting for the model, per task
    compile: bool = False  # torch.compile the vision tower: takes each worker up to a minute, see benchmarks/gpu.py
    retry_quarantined: bool = False  # read quarantined inputs again even if they have not changed


class DuplicateSettings(Section):
    """Near-duplicate pictures, by a perceptual hash of every picture that the embed step decodes."""

    enabled: bool = False  # hash pictures, and find clusters of near-duplicates after the embed step
    max_distance: Annotated[int, Field(ge=0, le=32)] = 6  # bits of 64 in which the hashes of two near-duplicates may differ
    max_colour_difference: Annotated[int, Field(ge=0, le=255)] = 8  # levels by which red, green or blue of their mean colours may; 255: any


class FeatureSettings(Section):
    """The feature cache: outputs of the frozen towers, from which a new connector embeds the catalog."""

    max_gb: Annotated[float, Field(ge=0)] = 20.0  # GiB; 0 turns the cache off


class IndexSettings(Section):
    """FAISS shards."""

    max_shard_items: Positive = 1_000_000  # larger categories are split
    memory_budget_gb: Annotated[float, Field(gt=0)] = 4.0  # GiB, for all shards together
    factory: str | None = None  # FAISS factory string; null: chosen from size and budget
    recall_target: Share = 0.95  # against exact search; nprobe or efSearch is doubled until a shard reaches it
    recall_k: Positive = 10  # K of this recall
    keep_generations: Positive = 3  # published generations that can be rolled back to


class NeighborSettings(Section):
    """Item neighbours."""

    k: Positive = 20  # neighbours per item
    exclude_same_image: bool = True  # an item with the same picture is no neighbour
    exclude_duplicates: bool = False  # nor one with a near-duplicate of it; needs duplicates.enabled
    block_rows: Positive = 16_384  # rows per block of the candidate pool


QuerySlice = Literal["category", "popularity", "length", "has_picture", "source"]


class EvaluateSettings(Section):
    """Retrieval metrics on the full pool, of items and of search queries."""

    ks: tuple[Positive, ...] = (1, 5, 10, 20, 50, 100)  # cut-offs K of the metrics
    split: Literal["test", "train", "all"] = "test"  # relevance pairs that give the queries, and search queries
    queries_in_pool: bool = True  # false: a query that is no positive of another query is no candidate
    exclude_same_image: bool = True  # an item with the query's picture is no candidate
    exclude_duplicates: bool = False  # nor one with a near-duplicate of it; needs duplicates.enabled
    baselines: bool = True  # evaluate the features of the frozen towers too
    bm25: bool = True  # evaluate BM25 too, with search queries over the metadata that the encoder reads
    replicates: Positive = 1000  # number of bootstrap replicates
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95  # of the intervals
    seed: int = 0  # of the bootstrap and of max_queries
    max_queries: Positive | None = None  # a random sample of so many; null: all
    slices: tuple[str, ...] = ("category", "popularity", "has_brand", "has_attributes", "agreement_decile")  # any of these and of catalog.slice_columns
    query_slices: tuple[QuerySlice, ...] = ("category", "popularity", "length", "has_picture", "source")  # of search queries, by their best item
    min_slice_queries: Positive = 20  # a smaller slice is left out


class CatalogChangeSettings(Section):
    """How far a catalog may change against that of the last published night. Null: not judged."""

    max_vanished: Share | None = 0.2  # share of the published items that are no longer in the catalog
    max_quarantined: Share | None = 0.1  # rise of the share of rows that are quarantined
    warn_changed: Share | None = 0.5  # share of the remaining items whose content changed: only noted
    accept: bool = False  # publish beyond the limits, for a planned change; the verdict records what was accepted


class GateSettings(Section):
    """The quality gate: conditions for publishing a run. A limit set to null removes one that an earlier layer set."""

    enabled: bool = True  # false: every run is published
    floors: dict[str, float] = {}  # metric: lowest value
    max_relative_drop: dict[str, float] = {}  # metric: largest relative drop against the last published run
    catalog_change: CatalogChangeSettings = CatalogChangeSettings()

    @field_validator("floors", "max_relative_drop", mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        return {name: limit for name, limit in value.items() if limit is not None} if isinstance(value, dict) else value


class PromoteSettings(Section):
    """Conditions for promoting a candidate to champion."""

    share: Share = 0.15  # of the training groups, and of the texts of training queries, that are for validation; as the training's validation_share
    margin: Share = 0.005  # by which overall metrics may fall (or one query, if more); no interval may lie below 0


class TrackingSettings(Section):
    """MLflow."""

    enabled: bool = True  # false: nothing is written to MLflow
    uri: str | None = None  # null: a sqlite file in the warehouse
    experiment: str = "tgq-nightly"  # name of the MLflow experiment; each run is an MLflow run
    registered_model: str = "tgq-encoder"  # name of the registered encoder; the alias `champion` marks the champion
    registered_query_model: str = "tgq-query-tower"  # name of the registered query tower, which takes texts; with the same alias


class MaintainSettings(Section):
    """What `tgq maintain` keeps. Generations: `index.keep_generations`."""

    keep_reports: Positive = 90  # newest runs whose reports are kept, beside those of kept generations
    keep_mlflow_runs: Positive = 365  # newest MLflow runs, beside those that a registered encoder came from
    retain_hours: Annotated[float, Field(ge=0)] = 168.0  # for old versions of tables; at least a week longer than a kept generation is old
    clock_margin_hours: Annotated[float, Field(ge=0)] = 1.0  # by which clocks of machines and of the object store may differ
    file_mb: Positive = 128  # size up to which the files of a table are joined
    small_files: Positive = 8  # a table's files are joined if they are so many more than its size needs


class ReportSettings(Section):
    """The HTML report."""

    strips: Annotated[int, Field(ge=0)] = 6  # example queries per section
    strip_neighbors: Positive = 8  # neighbours per example query
    thumbnail_px: Positive = 112  # side of a picture


class Settings(Section):
    """All sections."""

    warehouse: WarehouseSettings = WarehouseSettings()
    spark: SparkSettings = SparkSettings()
    catalog: CatalogSettings = CatalogSettings()
    metadata: MetadataSettings = MetadataSettings()
    images: ImageSettings = ImageSettings()
    pairs: PairSettings = PairSettings()
    queries: QuerySettings = QuerySettings()
    encoder: EncoderSettings = EncoderSettings()
    enrich: EnrichSettings = EnrichSettings()
    embed: EmbedSettings = EmbedSettings()
    duplicates: DuplicateSettings = DuplicateSettings()
    features: FeatureSettings = FeatureSettings()
    index: IndexSettings = IndexSettings()
    neighbors: NeighborSettings = NeighborSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    gate: GateSettings = GateSettings()
    promote: PromoteSettings = PromoteSettings()
    tracking: TrackingSettings = TrackingSettings()
    report: ReportSettings = ReportSettings()
    maintain: MaintainSettings = MaintainSettings()

    @model_validator(mode="after")
    def _combinations(self) -> Settings:
        if self.catalog.columns.image_uri is None and self.catalog.columns.image_bytes is None and not self.metadata.fields:
            raise ValueError("metadata.fields: neither an image column nor a metadata field is set")
        if self.pairs.source in ("table", "links") and not self.pairs.path:
            raise ValueError(f"pairs.path: null, but pairs.source is '{self.pairs.source}'")
        if self.pairs.source == "group" and not self.catalog.columns.group_id:
            raise ValueError("catalog.columns.group_id: null, but pairs.source is 'group'")
        if self.catalog.inherit and not self.catalog.columns.group_id:
            raise ValueError("catalog.columns.group_id: null, but catalog.inherit is set")
        if self.queries.judgments and not self.queries.path:
            raise ValueError(f"queries.path: null, but queries.judgments is '{self.queries.judgments}'")
        lowest, relevant, highest = self.queries.irrelevant_grade, self.queries.relevant_grade, self.queries.highest_grade
        if not lowest < highest:
            raise ValueError(f"queries.irrelevant_grade: {lowest:g} leaves no grade with a gain, because queries.highest_grade is {highest:g}")
        if relevant is not None and not lowest < relevant <= highest:
            raise ValueError(f"queries.relevant_grade: {relevant:g} must be above queries.irrelevant_grade ({lowest:g}) and at most {highest:g}")
        thresholds = self.queries.clicks.thresholds
        if list(thresholds) != sorted(set(thresholds)):
            raise ValueError(f"queries.clicks.thresholds: {list(thresholds)} must rise")
        if self.queries.clicks.path and len(thresholds) > self.queries.highest_grade:
            raise ValueError(f"queries.clicks.thresholds: {len(thresholds)} of them, but queries.highest_grade is {self.queries.highest_grade:g}")
        if self.encoder.device == "cpu" and self.encoder.dtype == "bfloat16":
            raise ValueError("encoder.dtype: bfloat16 needs a GPU, but encoder.device is 'cpu'")
        known = {"mrr", "map", "ndcg@10", "coverage", f"ann_recall@{self.index.recall_k}"}
        known |= {f"{metric}@{k}" for metric in ("hit_rate", "recall", "in_category_hit_rate") for k in self.evaluate.ks}
        known |= {"query_mrr", "query_map", "query_judged_ndcg@10", *(f"query_ndcg@{k}" for k in (1, 5, 10))}
        known |= {f"query_{metric}@{k}" for metric in ("hit_rate", "recall") for k in self.evaluate.ks}
        for section in ("floors", "max_relative_drop"):
            for name in getattr(self.gate, section):
                if name not in known:
                    raise ValueError(f"gate.{section}: '{name}' is not measured with these evaluate.ks and index.recall_k; "
                                     f"the metrics are {', '.join(sorted(known))}")  # fmt: skip
        for section in ("neighbors", "evaluate"):
            if getattr(self, section).exclude_duplicates and not self.duplicates.enabled:
                raise ValueError(f"{section}.exclude_duplicates: true, but duplicates.enabled is false, so near-duplicates are not known")
        unknown = [f for f in self.catalog.optional_columns if f not in ColumnMapping.model_fields]
        if unknown:
            raise ValueError(f"catalog.optional_columns: unknown fields {unknown}; the fields are {list(ColumnMapping.model_fields)}")
        return self
