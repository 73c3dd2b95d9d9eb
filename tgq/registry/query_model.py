"""An encoder's query tower as an MLflow model of its own: a folder that needs no other file, and its registration. Nothing is pickled.

    config.json, model.safetensors   the query tower, as in an encoder's folder
    text/                            its text checkpoint, unless that is bundled with tgq or named by its name on the hub
    MLmodel                          how MLflow loads the folder, and the model's signature
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tgq.encoder.towers import hub
from tgq.errors import ModelError, UsageError
from tgq.query_tower.config import CONFIG, WEIGHTS, QueryTowerConfig, tower_folder, version_of
from tgq.storage.new_folder import new_folder

ALIAS = "champion"
TAG = "query_version"
ARTIFACTS = "query_tower"  # in the MLflow run that the model is logged to
TEXT = "text"


def save_query_model(encoder_folder: str | Path, folder: str | Path) -> Path:
    """Write the query tower of an encoder's folder as an MLflow model, to a new folder that needs no other file.

    `mlflow.pyfunc.load_model(folder)` loads it. Cost: a copy of the tower and of its checkpoint.

    Raises:
        UsageError: the folder exists, or cannot be written.
        ModelError: the encoder has no query tower, or an incomplete one.
    """
    query_version(encoder_folder)  # whole, or an error
    tower, out = _need_tower(encoder_folder), Path(folder).expanduser()
    if out.exists():
        raise UsageError(f"{out} exists", "give a new folder, or delete this one")
    with new_folder(out) as scratch:
        _write(tower, scratch)
    return out


def register_query_model(client: Any, name: str, encoder_folder: str | Path, run: Callable[[], str], champion: bool = True) -> str:
    """Register the query tower of an encoder's folder if its version is new, and set the alias `champion` to it. Returns MLflow's number.

    Args:
        client: an MlflowClient; its errors are raised as they are.
        name: of the registered model, which is created if it is absent.
        run: gives the id of the MLflow run that a new version is logged to.
        champion: whether to set the alias.

    Raises:
        ModelError: as `save_query_model`.
    """
    version = query_version(encoder_folder)
    if not is_registered(client, name):
        client.create_registered_model(name)
    known = client.search_model_versions(f"name = '{name}' and tags.`{TAG}` = '{version}'")
    number = str(max((int(one.version) for one in known), default=""))
    if not number:
        of = run()
        with tempfile.TemporaryDirectory() as scratch:
            client.log_artifacts(of, str(save_query_model(encoder_folder, Path(scratch) / "model")), ARTIFACTS)
        number = str(client.create_model_version(name, f"{client.get_run(of).info.artifact_uri}/{ARTIFACTS}", of, tags={TAG: version}).version)
    if champion:
        client.set_registered_model_alias(name, ALIAS, number)
    return number


def is_registered(client: Any, name: str) -> bool:
    """Whether there is a registered model of this name."""
    return bool(client.search_registered_models(f"name = '{name}'", max_results=1))


def query_version(encoder_folder: str | Path) -> str:
    """The version of an encoder's query tower.

    Raises:
        ModelError: the encoder has no query tower, or an incomplete one.
    """
    return version_of(_need_tower(encoder_folder))


def _need_tower(encoder_folder: str | Path) -> Path:
    tower = tower_folder(encoder_folder)
    if tower is None:
        raise ModelError(f"the encoder {encoder_folder} has no query tower", "train one with `tgq train-queries`")
    return tower


def _write(tower: Path, out: Path) -> None:
    """Write a tower's files, its checkpoint if that is in a local folder, and the `MLmodel` file."""
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
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    model = Model(signature=ModelSignature(Schema([ColSpec("string")]), Schema([TensorSpec(np.dtype(np.float32), (-1, dim))])))
    mlflow.pyfunc.add_to_model(model, loader_module="tgq.client.query_pyfunc", data=".")
    return str(model.to_yaml())
