"""Settings: YAML profiles merged in order, then environment variables, then `--set`; validated once into frozen, typed objects.

Merging is OmegaConf's, validation is pydantic's. What this module adds is provenance: every value knows the file, variable
or flag that it came from, so that an error can name it and `tgq config show` can print it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator
from yaml import YAMLError

from tgq.errors import ConfigError

ENV_PREFIX = "TGQ__"
SECRET = re.compile(r"secret|password|passwd|token(?!s)|credential|access[._-]?key|account[._-]?key|private[._-]?key", re.IGNORECASE)
PASSWORD = re.compile(r"(://[^/@:\s]*:)[^/@\s]+@")
STARS = "***"
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


class GateSettings(Section):
    """What a night must show before it is published."""

    enabled: bool = True
    floors: dict[str, float] = {}  # null takes away a floor that an earlier layer set
    max_relative_drop: dict[str, float] = {}

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


@dataclass(frozen=True)
class Loaded:
    """Settings with the origin of each value ("built-in default" where no layer set it)."""

    settings: Settings
    origins: Mapping[str, str]

    def origin(self, key: str) -> str:
        """The layer that set `key` last, also where it set a whole group above it or a part below."""
        parts = key.split(".")
        above = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
        below = [k for k in self.origins if k.startswith(key + ".")]
        return next((self.origins[c] for c in (*above, *below) if c in self.origins), "built-in default")


def data_folder(name: str) -> Path:
    """The folder `conf` or `sql`: at the top of a checkout, inside the package when installed from a wheel."""
    package = Path(__file__).parents[1]
    beside = package.parent / name
    return beside if (package.parent / "setup.py").is_file() and beside.is_dir() else package / name


def load(
    profiles: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Merge `conf/base.yaml`, the profiles in order, `TGQ__section__key=value` variables and `key.path=value` overrides.

    Args:
        profiles: names under `conf/` (`local`, `cluster`, `catalogs/luma`) or paths of YAML files.
        overrides: `--set` strings; values are YAML, so `[a, b]`, `null` and `3` have their types.
        environ: environment to read; the process's own by default.

    Raises:
        ConfigError: unknown key, wrong type, impossible combination, unreadable file; names key and origin.
    """
    environ = os.environ if environ is None else environ
    merged = OmegaConf.create({})
    origins: dict[str, str] = {}
    for origin, layer in _layers(profiles, overrides, environ):
        for key in _leaves(OmegaConf.to_container(layer)):
            origins[key] = origin
        try:
            merged = OmegaConf.merge(merged, layer)
        except OmegaConfBaseException as e:
            raise ConfigError(f"{origin}: {str(e).splitlines()[0]}", "give this key the same shape as in conf/base.yaml") from e
    try:
        values = OmegaConf.to_container(merged, resolve=True)
        settings = Settings.model_validate(values)
    except OmegaConfBaseException as e:
        raise ConfigError(f"configuration: {str(e).splitlines()[0]}", "check the ${...} reference") from e
    except ValidationError as e:
        raise _explain(e, Loaded(Settings.model_construct(), origins)) from None
    return Loaded(settings, origins)


def _layers(
    profiles: Iterable[str | Path], overrides: Iterable[str], environ: Mapping[str, str]
) -> Iterable[tuple[str, DictConfig]]:
    conf = data_folder("conf")
    yield "conf/base.yaml", _read(conf / "base.yaml", "conf/base.yaml")
    for profile in profiles:
        path = Path(profile)
        known = conf / f"{profile}.yaml"
        if path.suffix in (".yaml", ".yml"):
            yield str(profile), _read(path, str(profile))
        elif known.is_file():
            yield f"conf/{profile}.yaml", _read(known, f"conf/{profile}.yaml")
        else:
            names = sorted(p.relative_to(conf).with_suffix("").as_posix() for p in conf.rglob("*.yaml"))
            raise ConfigError(f"profile '{profile}' is neither a YAML file nor one of {names}", "name one of these, or a path that ends in .yaml")
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX):
            key = name[len(ENV_PREFIX) :].lower().replace("__", ".")
            yield f"${name}", _dotted(f"{key}={environ[name]}", f"${name}")
    for override in overrides:
        yield f"--set {override}", _dotted(override, f"--set {override}")


def _read(path: Path, shown: str) -> DictConfig:
    try:
        layer = OmegaConf.load(path)
    except FileNotFoundError:
        raise ConfigError(f"{shown}: no such file", "name a profile under conf/ or an existing YAML file") from None
    except (YAMLError, OmegaConfBaseException, OSError) as e:
        raise ConfigError(f"{shown}: {' '.join(str(e).split())[:300]}", "write valid YAML") from e
    if not isinstance(layer, DictConfig):
        raise ConfigError(f"{shown}: holds a {type(layer).__name__}, not sections", "write sections, as in conf/base.yaml")
    return layer


def _dotted(text: str, origin: str) -> DictConfig:
    key, equals, _ = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{origin}: not of the form key.path=value", "write for example --set embed.task_items=64")
    try:
        return OmegaConf.from_dotlist([text])
    except (YAMLError, OmegaConfBaseException) as e:
        raise ConfigError(f"{origin}: {' '.join(str(e).split())[:200]}", "quote the value as YAML") from e


def _leaves(node: Any, prefix: str = "") -> Iterable[str]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix


def _explain(error: ValidationError, loaded: Loaded) -> ConfigError:
    """The first of pydantic's findings, with the key's path and where the value came from."""
    first = error.errors()[0]
    key = ".".join(str(p) for p in first["loc"])
    if first["type"] == "extra_forbidden":
        section: Any = Settings
        for part in first["loc"][:-1]:
            section = section.model_fields[part].annotation
        return ConfigError(f"{key}: unknown key (from {loaded.origin(key)})", f"known here are {sorted(section.model_fields)}")
    if first["type"] == "value_error":
        return ConfigError(str(first["ctx"]["error"]), "change one of the two settings")
    shown = repr(first["input"])[:80]
    return ConfigError(f"{key}: {first['msg']}, found {shown} (from {loaded.origin(key)})", "correct the value")


def dataclass_of(kind: type, overrides: Iterable[str], flag: str) -> Any:
    """A dataclass of plain fields with some of them set by 'key=value'.

    Raises:
        ConfigError: a key that it has not, or a value of another type; names the flag.
    """
    values: dict[str, str] = {}
    for text in overrides:
        key, mark, value = text.partition("=")
        if not mark or key not in kind.__dataclass_fields__:
            raise ConfigError(f"{flag} {text}: no such key", f"write KEY=VALUE with one of {', '.join(kind.__dataclass_fields__)}")
        values[key] = value
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{flag} {key}={values.get(key)}: {first['msg']}", "give a value of the field's type") from None


def flat(settings: Settings) -> dict[str, Any]:
    """Every setting by its dotted key, for printing and for MLflow parameters."""

    def walk(node: Any, prefix: str) -> Iterable[tuple[str, Any]]:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                yield from walk(value, f"{prefix}.{key}" if prefix else key)
        else:
            yield prefix, node

    return dict(walk(settings.model_dump(mode="json"), ""))


def redacted(settings: Settings) -> dict[str, Any]:
    """`flat`, fit to be shown: values of keys that name a secret, and passwords in URIs, are stars."""
    return {key: STARS if value is not None and SECRET.search(key) else PASSWORD.sub(rf"\1{STARS}@", value) if isinstance(value, str) else value
            for key, value in flat(settings).items()}  # fmt: skip
