"""A warehouse filled with items whose vectors are known, so that each step's answer can be worked out in numpy."""

import hashlib
import shutil
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    from tgq.encoder.tiny import write_tiny_encoder

    return write_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture(scope="session")
def mlflow_in(tmp_path_factory):
    """mlflow_in(folder): put an empty MLflow database there, unless there is one; to lay one out takes MLflow 4 seconds each time."""
    from tgq.config import TrackingSettings
    from tgq.tracking import open_tracker

    blank = tmp_path_factory.mktemp("mlflow")
    open_tracker(TrackingSettings(), str(blank))

    def put(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        if not Path(folder, "mlflow.db").exists():
            shutil.copy(blank / "mlflow.db", folder)

    return put


@dataclass
class Items:
    """n items in clusters: a cluster is a style (the relevance group), several styles share a category."""

    n: int = 300
    dim: int = 16
    styles: int = 60
    categories: int = 3
    seed: int = 0
    ids: list[str] = field(init=False)

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        self.style = np.arange(self.n) % self.styles
        centres = rng.standard_normal((self.styles, self.dim))
        self.vectors = unit(centres[self.style] + 0.6 * rng.standard_normal((self.n, self.dim))).astype(np.float32)
        self.image = (centres[self.style] + 1.5 * rng.standard_normal((self.n, self.dim))).astype(np.float16)
        self.text = rng.standard_normal((self.n, 8)).astype(np.float16)
        self.ids = [f"item-{i:04d}" for i in range(self.n)]
        self.category = [f"top{s % self.categories % 2} > c{s % self.categories}" for s in self.style]
        self.brand = [None if i % 3 == 0 else f"brand {i % 5}" for i in range(self.n)]
        self.image_hash = [hashlib.sha256(f"picture {i // 2 if i < 4 else i}".encode()).hexdigest() for i in range(self.n)]
        self.active = [True] * self.n
        self.content = [hashlib.sha256(f"{h}{self.seed}".encode()).hexdigest() for h in self.image_hash]

    def write(self, night, rows=None, features=True):
        """Append these items (all, or the rows named) to the night's tables, under its model."""
        from tgq.pipeline.models import versions_of

        model_version, tower_version = versions_of(night.model_folder)
        rows = range(self.n) if rows is None else rows
        now = datetime(2026, 1, 2, 3, 4, 5)
        catalog = [
            dict(item_id=self.ids[i], title=f"title {i}", brand=self.brand[i], category=self.category[i], image_hash=self.image_hash[i],
                 attributes={"colour": "red"} if i % 4 else {}, slices={"overlay": "yes" if i % 2 else "no"}, group_id=f"g{self.style[i]}",
                 content_hash=self.content[i], is_active=self.active[i], last_run_id=night.run_id, last_seen=now)
            for i in rows
        ]  # fmt: skip
        embeddings = [
            dict(item_id=self.ids[i], model_version=model_version, content_hash=self.content[i], category=self.category[i], has_image=True,
                 agreement=float(i % 100) / 100, run_id=night.run_id, embedding=self.vectors[i].tolist())
            for i in rows
        ]  # fmt: skip
        frozen = [
            dict(item_id=self.ids[i], tower_version=tower_version, content_hash=self.content[i], run_id=night.run_id,
                 image_features=self.image[i].tobytes(), text_features=self.text[i].tobytes())
            for i in rows
        ]  # fmt: skip
        append(night, "catalog_items", catalog)
        append(night, "item_embeddings", embeddings)
        if features:
            append(night, "item_features", frozen)

    def pairs(self):
        """(query, positive, weight) by style; two items of one style and one parity are the same variant: weight 0."""
        return [
            (i, j, 0.0 if (i // self.styles) % 4 == (j // self.styles) % 4 else 1.0)
            for i in range(self.n) for j in range(self.n) if i != j and self.style[i] == self.style[j]
        ]  # fmt: skip

    def write_vectors(self, night, model_version, vectors):
        """Append these items' vectors under another model."""
        append(night, "item_embeddings", [
            dict(item_id=self.ids[i], model_version=model_version, content_hash=self.content[i], agreement=float(i % 100) / 100, run_id=night.run_id,
                 embedding=vectors[i].astype(np.float32).tolist())
            for i in range(self.n)
        ])  # fmt: skip

    def write_pairs(self, night, pairs=None, split=lambda group: "test"):
        append(night, "relevance_pairs", [
            dict(query_item_id=self.ids[i], positive_item_id=self.ids[j], source="group", weight=w, split=split(f"g{self.style[i]}"),
                 group_id=f"g{self.style[i]}")
            for i, j, w in (self.pairs() if pairs is None else pairs)
        ])  # fmt: skip


def unit(matrix):
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def append(night, table, rows):
    schema = night.warehouse.read(table).schema
    frame = night.spark.createDataFrame([tuple(row.get(f.name) for f in schema.fields) for row in rows], schema)
    night.warehouse.append(frame, table)


@pytest.fixture
def items():
    return Items


@pytest.fixture
def make_night(spark, warehouse, tiny_encoder):
    """make_night(run_id, section={...}): a night on this test's warehouse."""
    from tgq.config import Settings
    from tgq.pipeline.night import Night

    def make(run_id="night-1", **sections):
        sections = {"neighbors": {"block_rows": 64}} | sections | {"encoder": {"path": str(tiny_encoder)}}
        settings = Settings.model_validate({"warehouse": {"path": warehouse.root}} | sections)
        return Night(spark, settings, warehouse, run_id, datetime.now(timezone.utc))

    return make
