"""The query tower as an MLflow model: texts in, vectors out. Nothing is pickled.

    config.json, model.safetensors   the query tower, as in an encoder's folder
    text/                            its text checkpoint, unless that is bundled with tgq or named by its name on the hub
    MLmodel                          how MLflow loads the folder, and the model's signature
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tgq.errors import ModelError, UsageError
from tgq.query_tower.config import CONFIG, WEIGHTS, QueryTowerConfig, tower_folder, version_of
from tgq.storage.new_folder import new_folder

if TYPE_CHECKING:
    import pandas as pd

    from tgq.query_tower.tower import QueryTower

NAME = "tgq-query-tower"  # of the registered model
TAG = "query_version"
TEXT = "text"


class QueryModel:
    """The object that `mlflow.pyfunc` wraps."""

    def __init__(self, tower: QueryTower):
        self.tower = tower

    def predict(self, queries: pd.DataFrame | pd.Series, params: dict[str, Any] | None = None) -> np.ndarray:
        """Unit vectors, float32 [n, De], to be compared with item embeddings by inner product.

        Args:
            queries: a series of texts, or a frame with one column of them.

        Raises:
            UsageError: the frame has several columns, or a query is no text or empty; with its position.
        """
        if getattr(queries, "ndim", 1) == 2:
            if queries.shape[1] != 1:
                raise UsageError(f"there are {queries.shape[1]} columns", "give one column, the texts of the queries")
            queries = queries.iloc[:, 0]
        texts = list(queries)
        for n, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise UsageError(f"query {n} is {'empty' if isinstance(text, str) else 'no text'}", "leave it out, or give at least a word")
        return self.tower.encode_queries(texts)


def save_query_model(encoder_folder: str | Path, folder: str | Path) -> Path:
    """Write the query tower of an encoder's folder as an MLflow model, to a new folder that needs no other file.

    `mlflow.pyfunc.load_model(folder)` loads it. Cost: a copy of the tower and of its checkpoint.

    Raises:
        UsageError: the folder exists, or cannot be written.
        ModelError: the encoder has no query tower, or an incomplete one.
    """
    tower, out = _need_tower(encoder_folder), Path(folder).expanduser()
    version_of(tower)  # whole, or an error
    if out.exists():
        raise UsageError(f"{out} exists", "give a new folder, or delete this one")
    with new_folder(out) as scratch:
        _write(tower, scratch)
    return out


def log_query_model(encoder_folder: str | Path, tracking_uri: str, name: str = NAME) -> str:
    """Register the query tower of an encoder's folder in MLflow if its version is new, and set the alias `champion` to it.

    Args:
        tracking_uri: of a server, or `sqlite:///` and a file; the artifacts then go to `mlartifacts/` beside it, as those of a night.
        name: of the registered model.

    Returns:
        MLflow's number of the version.

    Raises:
        ModelError: as `save_query_model`.
        TrackingError: MLflow does not answer, or refuses.
    """
    from tgq.registry.champion import CHAMPION
    from tgq.registry.tracking import open_tracker, tracking_errors
    from tgq.settings.sections import TrackingSettings

    version = version_of(_need_tower(encoder_folder))
    tracker = open_tracker(TrackingSettings(uri=tracking_uri), "")
    client = tracker.client
    with tracking_errors("MLflow"):
        if not client.search_registered_models(f"name = '{name}'", max_results=1):
            client.create_registered_model(name)
        known = client.search_model_versions(f"name = '{name}' and tags.`{TAG}` = '{version}'")
        number = str(max((int(one.version) for one in known), default=""))
        if not number:
            run = tracker.start(f"query-tower-{version}", {TAG: version})
            with tempfile.TemporaryDirectory() as scratch:
                client.log_artifacts(run, str(save_query_model(encoder_folder, Path(scratch) / "model")), "query_tower")
            source = f"{client.get_run(run).info.artifact_uri}/query_tower"
            number = str(client.create_model_version(name, source, run, tags={TAG: version}).version)
            tracker.finish()
        client.set_registered_model_alias(name, CHAMPION, number)
    return number


def _need_tower(encoder_folder: str | Path) -> Path:
    tower = tower_folder(encoder_folder)
    if tower is None:
        raise ModelError(f"the encoder {encoder_folder} has no query tower", "train one with `tgq train-queries`")
    return tower


def _write(tower: Path, out: Path) -> None:
    """Write a tower's files, its checkpoint if that is in a local folder, and the `MLmodel` file."""
    from tgq.encoder.towers import hub

    config = QueryTowerConfig.read(tower)
    if (tower / config.text).expanduser().is_dir():  # a bundled name and a name on the hub mean the same on every machine
        shutil.copytree(hub.resolve(config.text, tower), out / TEXT)
        config = replace(config, text=TEXT)
    shutil.copyfile(tower / WEIGHTS, out / WEIGHTS)
    (out / CONFIG).write_text(json.dumps(asdict(config), indent=1) + "\n")
    (out / "MLmodel").write_text(description(config.dim))


def description(dim: int) -> str:
    """The text of the `MLmodel` file of a tower whose vectors have the width `dim`."""
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    model = Model(signature=ModelSignature(Schema([ColSpec("string")]), Schema([TensorSpec(np.dtype(np.float32), (-1, dim))])))
    mlflow.pyfunc.add_to_model(model, loader_module="tgq.client.query_pyfunc", data=".")
    return str(model.to_yaml())


def _load_pyfunc(path: str) -> QueryModel:
    """Load the model; MLflow calls this with its folder."""
    from tgq.inference.device import choose_device
    from tgq.query_tower.tower import QueryTower

    return QueryModel(QueryTower.load(path, choose_device("auto")))
