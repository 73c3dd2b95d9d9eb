"""MLflow: one run per night, found again by its tag, and the encoder as a registered model.

MLflow is slow to import (4 s of CPU) and takes another 4 to 8 s to lay out a new sqlite file, once per warehouse. So it is
imported on first use, and nothing else here costs more than some milliseconds.

A server that does not answer is an error before the night's work begins. Once it has begun, nothing that MLflow does may lose
it: later failures are kept in `Tracker.problems` and said at its end.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tgq.errors import TrackingError
from tgq.settings.sections import TrackingSettings

RUN_TAG = "tgq.run_id"
MODEL_TAG = "model_version"
CHAMPION = "champion"
SQLITE = "sqlite:///"
ANSWER_S = 5.0  # how long a tracking server may take to show that it lives
PARAMS_PER_CALL, METRICS_PER_CALL = 100, 1000  # MLflow's own limits
PARAM_CHARACTERS, NAME_CHARACTERS = 6000, 250
SLICE_CHARACTERS = 180  # of a slice in a metric's name: leaves room for the system before it and the metric behind it
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a night tells nobody else about itself
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # of 7, which would be minutes of silence
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class Tracker:
    """The MLflow run of one night. Without a client (`tracking.enabled=false`) every method does nothing.

    Attributes:
        run: MLflow's run id, once `start` was called.
        problems: what MLflow could not take, a line each.
    """

    def __init__(self, settings: TrackingSettings, client: Any = None, artifacts: str | None = None):
        self.settings, self.client, self.artifacts = settings, client, artifacts
        self.run: str | None = None
        self.problems: list[str] = []
        self._began: int = 0

    def start(self, run_id: str, tags: Mapping[str, Any] | None = None, began: datetime | None = None) -> str | None:
        """The run tagged with `run_id`: an interrupted night's own, else a new one.

        Raises:
            TrackingError: MLflow refused.
        """
        if self.client is None:
            return None
        began = began or datetime.now(timezone.utc)
        self._began = int(began.timestamp() * 1000)
        labels = {k: str(v) for k, v in (tags or {}).items() if v is not None}
        with _named(f"MLflow at {_shown(self.client.tracking_uri)}"):
            experiment = self._experiment()
            found = self.client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run_id}'", max_results=1)
            if found:
                self.run = found[0].info.run_id
                self.client.update_run(self.run, status="RUNNING")
                for key, value in labels.items():
                    self.client.set_tag(self.run, key, value)
            else:
                created = self.client.create_run(experiment, self._began, {RUN_TAG: run_id, **labels}, run_name=run_id)
                self.run = created.info.run_id
        return self.run

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = self.settings.experiment
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name, artifact_location=self.artifacts))
            except MlflowException:  # another process was first
                found = self.client.get_experiment_by_name(name)
        if found.lifecycle_stage == "deleted":
            raise TrackingError(f"the MLflow experiment '{name}' was deleted", "restore it, or set another tracking.experiment")
        return str(found.experiment_id)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Parameters, flat. The first value of a name stands: MLflow's parameters never change, also for a night taken up again."""

        def log() -> None:
            from mlflow.entities import Param

            known = self.client.get_run(self.run).data.params
            new = [Param(_name(k), _text(v)[:PARAM_CHARACTERS]) for k, v in params.items() if _name(k) not in known]
            for cut in range(0, len(new), PARAMS_PER_CALL):
                self.client.log_batch(self.run, params=new[cut : cut + PARAMS_PER_CALL])

        self._tell(log)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Numbers by name, stamped with the night's beginning, so that telling them twice changes nothing. NaN is left out.

        step: of a curve, where the run is a training.
        """

        def log() -> None:
            from mlflow.entities import Metric

            rows = [Metric(_name(k), float(v), self._began, step) for k, v in metrics.items() if v is not None and v == v]
            for cut in range(0, len(rows), METRICS_PER_CALL):
                self.client.log_batch(self.run, metrics=rows[cut : cut + METRICS_PER_CALL])

        self._tell(log)

    def log_versions(self, read: Mapping[str, int], written: Mapping[str, int]) -> None:
        """Delta versions by table, as tags `delta.read.<table>` and `delta.written.<table>`: a night taken up again moves them."""
        self.log_tags({f"delta.{way}.{table}": v for way, found in (("read", read), ("written", written)) for table, v in found.items()})

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        """Tags; a later value replaces an earlier one."""

        def log() -> None:
            from mlflow.entities import RunTag

            self.client.log_batch(self.run, tags=[RunTag(_name(k), _text(v)[:PARAM_CHARACTERS]) for k, v in tags.items()])

        self._tell(log)

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """A local file, or all that is in a local folder, under `folder` of the run's artifacts. What is absent is no problem."""
        path = Path(path)
        if path.is_dir():
            self._tell(lambda: self.client.log_artifacts(self.run, str(path), folder))
        elif path.is_file():
            self._tell(lambda: self.client.log_artifact(self.run, str(path), folder))

    def log_text(self, text: str, name: str) -> None:
        """A text as an artifact at the path `name`."""
        self._tell(lambda: self.client.log_text(self.run, text, name))

    def log_json(self, value: Any, name: str) -> None:
        """A value as a JSON artifact."""
        self.log_text(json.dumps(value, indent=1, default=str), name)

    def publish_encoder(self, folder: str | Path, model_version: str, champion: bool = True) -> str | None:
        """Register the encoder where this `model_version` is new, and point the alias `champion` at it. MLflow's version number.

        champion: whether the next night embeds with it; else the alias stays where it is.

        The folder (safetensors and JSON) is copied as it stands, with an `MLmodel` beside it by which `mlflow.pyfunc.load_model` loads
        it. Nothing is pickled.
        """

        def register() -> str:
            name, client = self.settings.registered_model, self.client
            if not client.search_registered_models(f"name = '{name}'", max_results=1):
                client.create_registered_model(name)
            known = client.search_model_versions(f"name = '{name}' and tags.`{MODEL_TAG}` = '{model_version}'")
            if known:
                number = max(known, key=lambda v: int(v.version)).version
            else:
                client.log_artifacts(self.run, str(folder), "encoder")
                client.log_text(self.run, pyfunc_description(Path(folder)), "encoder/MLmodel")
                source = f"{client.get_run(self.run).info.artifact_uri}/encoder"
                number = client.create_model_version(name, source, self.run, tags={MODEL_TAG: model_version}).version
            if champion:
                client.set_registered_model_alias(name, CHAMPION, number)
            return str(number)

        number: str | None = self._tell(register)
        return number

    def finish(self, status: str = "FINISHED") -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self._tell(lambda: self.client.set_terminated(self.run, status))

    def _tell(self, call: Callable[[], Any]) -> Any:
        if self.client is None or self.run is None:
            return None
        try:
            with _named("MLflow"):
                return call()
        except TrackingError as e:
            self.problems.append(e.found)
            return None


def pyfunc_description(folder: Path) -> str:
    """The text of an `MLmodel` file: how MLflow loads an encoder's folder, and the signature of what it then predicts."""
    import mlflow.pyfunc
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    from tgq.encoder.model import EncoderConfig

    dim = EncoderConfig.read(folder).dim
    columns = [ColSpec("string", name, required=False) for name in ("title", "brand", "category", "attributes")]
    inputs = Schema([*columns, ColSpec("binary", "image", required=False)])
    model = Model(signature=ModelSignature(inputs, Schema([TensorSpec(np.dtype(np.float32), (-1, dim))])))
    mlflow.pyfunc.add_to_model(model, loader_module="tgq.client.pyfunc", data=".")
    return str(model.to_yaml())


def open_tracker(settings: TrackingSettings, warehouse_root: str) -> Tracker:
    """Connect: to `tracking.uri`, else to `mlflow.db` inside the warehouse. A sqlite file has its `mlartifacts/` beside it, not
    wherever the command was called.

    Raises:
        TrackingError: the server does not answer within seconds, the file is no database of this MLflow, or the warehouse is no
            local folder and no URI is set.
    """
    if not settings.enabled:
        return Tracker(settings)
    uri = settings.uri
    if uri is None:
        if "://" in warehouse_root:
            raise TrackingError(
                f"MLflow cannot keep a sqlite file in {warehouse_root}", "set tracking.uri to a server, or tracking.enabled=false"
            )
        root = Path(warehouse_root).expanduser().resolve()
        root.mkdir(parents=True, exist_ok=True)
        uri = f"{SQLITE}{root / 'mlflow.db'}"
    artifacts = (Path(uri.removeprefix(SQLITE)).resolve().parent / "mlartifacts").as_uri() if uri.startswith(SQLITE) else None
    if uri.startswith(("http://", "https://")):
        _ask(uri)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    with _named(f"MLflow at {_shown(uri)}"):
        from mlflow import MlflowClient

        for logger in ("mlflow", "alembic"):
            logging.getLogger(logger).setLevel(logging.WARNING)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)  # the first question is the one that fails
    return Tracker(settings, client, artifacts)


def metric_names(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Rows of `retrieval_metrics` as MLflow metrics, e.g. `hit_rate_at_10`, `frozen_image/mrr`, `category=Bags/hit_rate_at_10`.

    The overall slice also has its interval (`..._ci_low`, `..._ci_high`). Characters that MLflow does not take become `_`, and a
    long slice is cut, never the metric behind it; slices that would then share a name are told apart by a short hash.
    """
    out: dict[str, float] = {}
    owner: dict[str, str] = {}
    for row in rows:
        name = row["metric"] + (f"_at_{row['k']}" if row["k"] else "")
        if row["slice"] != "all":
            part = _clean(row["slice"].replace("=", "/", 1)).strip("/. ")
            if len(part) > SLICE_CHARACTERS or owner.setdefault(part, row["slice"]) != row["slice"]:
                part = f"{part[:SLICE_CHARACTERS].strip('/. ')}_{_digest(row['slice'])}"
            name = f"{part}/{name}"
        if row["model_version"].startswith("frozen_"):
            name = f"{row['model_version']}/{name}"
        out[name] = row["value"]
        if row["slice"] == "all" and row.get("ci_low") is not None:
            out |= {f"{name}_ci_low": row["ci_low"], f"{name}_ci_high": row["ci_high"]}
    return out


def _clean(text: str) -> str:
    """Characters that MLflow takes: of words (of any script), `_ - . /` and space; no empty or dotted path parts."""
    return "/".join(re.sub(r"[^\w.\- ]+", "_", part).strip(". ") or "_" for part in text.split("/"))


def _name(text: str) -> str:
    """A name that MLflow takes, with a hash in place of its end if it is too long."""
    name = _clean(text)
    return name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 8]}_{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:7]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _ask(uri: str) -> None:
    """Any answer will do; silence will not."""
    import requests

    try:
        requests.get(uri.rstrip("/") + "/health", timeout=ANSWER_S)
    except requests.RequestException as e:
        raise TrackingError(
            f"the tracking server {_shown(uri)} does not answer ({type(e).__name__})",
            "start it, correct tracking.uri, or set tracking.enabled=false",
        ) from e


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """MLflow's, sqlalchemy's and the system's errors as one of ours, in one line."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as e:  # MLflow lets through errors of every library below it
        line = " ".join(str(e).split())[:200]
        raise TrackingError(f"{what}: {type(e).__name__}: {line}", "mend it, set another tracking.uri, or tracking.enabled=false") from e


def _shown(uri: str) -> str:
    """A URI without the password that it may carry."""
    return re.sub(r"//[^/@]*@", "//", uri)
