"""MLflow: one MLflow run per nightly run, and the encoder as a registered model.

MLflow takes 4 s of CPU to import, and another 4 to 8 s to create a sqlite file, once per warehouse. It is therefore imported on
first use.

A tracking server that does not answer is an error before the run's work begins. Later failures of MLflow do not stop the run:
they are collected in `Tracker.problems` and reported at its end.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tgq.errors import TrackingError
from tgq.metrics.names import is_baseline, metric_key
from tgq.registry.champion import need_own_files
from tgq.registry.query_model import ALIAS, is_registered, register_query_model
from tgq.registry.query_model import TAG as QUERY_TAG
from tgq.settings.sections import TrackingSettings

RUN_TAG = "tgq.run_id"
MODEL_TAG = "model_version"
CHAMPION = ALIAS
SQLITE = "sqlite:///"
ANSWER_S = 5.0  # timeout of the first request to a tracking server
PARAMS_PER_CALL, METRICS_PER_CALL = 100, 1000  # MLflow's own limits
PARAM_CHARACTERS, NAME_CHARACTERS = 6000, 250
SLICE_CHARACTERS = 180  # of a slice in a metric's name: leaves room for the system before it and the metric behind it
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # MLflow's default of 7 waits for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class Tracker:
    """The MLflow run of one nightly run. Without a client (`tracking.enabled=false`) every method does nothing.

    Attributes:
        run: MLflow's run id; None before `start`.
        problems: failed calls, a line each.
    """

    def __init__(self, settings: TrackingSettings, client: Any = None, artifacts: str | None = None):
        self.settings, self.client, self.artifacts = settings, client, artifacts
        self.run: str | None = None
        self.problems: list[str] = []
        self._began: int = 0

    def start(self, run_id: str, tags: Mapping[str, Any] | None = None, began: datetime | None = None) -> str | None:
        """Continue the MLflow run tagged with `run_id`, or create it. Returns MLflow's run id.

        Raises:
            TrackingError: MLflow failed.
        """
        if self.client is None:
            return None
        began = began or datetime.now(timezone.utc)
        self._began = int(began.timestamp() * 1000)
        labels = {k: str(v) for k, v in (tags or {}).items() if v is not None}
        with tracking_errors(f"MLflow at {_without_password(self.client.tracking_uri)}"):
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
            except MlflowException:  # another process created it
                found = self.client.get_experiment_by_name(name)
        if found.lifecycle_stage == "deleted":
            raise TrackingError(f"the MLflow experiment '{name}' was deleted", "restore it, or set another tracking.experiment")
        return str(found.experiment_id)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters. A name that already has a value keeps it, because MLflow's parameters cannot change."""

        def log() -> None:
            from mlflow.entities import Param

            known = self.client.get_run(self.run).data.params
            new = [Param(_name(k), _text(v)[:PARAM_CHARACTERS]) for k, v in params.items() if _name(k) not in known]
            for cut in range(0, len(new), PARAMS_PER_CALL):
                self.client.log_batch(self.run, params=new[cut : cut + PARAMS_PER_CALL])

        self._collect_errors(log)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log numbers by name; NaN is left out. The timestamp is the start of the run, so logging them again changes nothing.

        Args:
            step: the training step, for curves.
        """

        def log() -> None:
            from mlflow.entities import Metric

            rows = [Metric(_name(k), float(v), self._began, step) for k, v in metrics.items() if v is not None and v == v]
            for cut in range(0, len(rows), METRICS_PER_CALL):
                self.client.log_batch(self.run, metrics=rows[cut : cut + METRICS_PER_CALL])

        self._collect_errors(log)

    def log_versions(self, read: Mapping[str, int], written: Mapping[str, int]) -> None:
        """Log Delta versions by table, as tags `delta.read.<table>` and `delta.written.<table>`. A continued run overwrites them."""
        self.log_tags({f"delta.{way}.{table}": v for way, found in (("read", read), ("written", written)) for table, v in found.items()})

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        """Log tags; a later value replaces an earlier one."""

        def log() -> None:
            from mlflow.entities import RunTag

            self.client.log_batch(self.run, tags=[RunTag(_name(k), _text(v)[:PARAM_CHARACTERS]) for k, v in tags.items()])

        self._collect_errors(log)

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Log a local file, or the contents of a local folder, under `folder` of the run's artifacts. An absent path is ignored."""
        path = Path(path)
        if path.is_dir():
            self._collect_errors(lambda: self.client.log_artifacts(self.run, str(path), folder))
        elif path.is_file():
            self._collect_errors(lambda: self.client.log_artifact(self.run, str(path), folder))

    def log_text(self, text: str, name: str) -> None:
        """Log a text as the artifact `name`."""
        self._collect_errors(lambda: self.client.log_text(self.run, text, name))

    def log_json(self, value: Any, name: str) -> None:
        """Log a value as the JSON artifact `name`."""
        self.log_text(json.dumps(value, indent=1, default=str), name)

    def publish_encoder(self, folder: str | Path, model_version: str, champion: bool = True, query_version: str = "") -> str | None:
        """Register the encoder if it is new with this query tower, and set the alias `champion` to it. Returns MLflow's version number.

        The folder's files (safetensors and JSON) are copied unchanged; an added `MLmodel` file lets `mlflow.pyfunc.load_model`
        load them. Nothing is pickled.

        Args:
            champion: whether to set the alias.
            query_version: of its query tower; empty: it has none.
        """

        def register() -> str:
            name, client = self.settings.registered_model, self.client
            if not client.search_registered_models(f"name = '{name}'", max_results=1):
                client.create_registered_model(name)
            same_items = client.search_model_versions(f"name = '{name}' and tags.`{MODEL_TAG}` = '{model_version}'")
            known = [version for version in same_items if version.tags.get(QUERY_TAG, "") == query_version]  # MLflow cannot ask for absent tags
            if known:
                number = max(known, key=lambda v: int(v.version)).version
            else:
                need_own_files(Path(folder))
                client.log_artifacts(self.run, str(folder), "encoder")
                client.log_text(self.run, pyfunc_description(Path(folder)), "encoder/MLmodel")
                tags = {MODEL_TAG: model_version} | ({QUERY_TAG: query_version} if query_version else {})
                source = f"{client.get_run(self.run).info.artifact_uri}/encoder"
                number = client.create_model_version(name, source, self.run, tags=tags).version
            if champion:
                client.set_registered_model_alias(name, CHAMPION, number)
            return str(number)

        number: str | None = self._collect_errors(register)
        return number

    def publish_query_tower(self, folder: str | Path, query_version: str, champion: bool = True) -> str | None:
        """Register the encoder's query tower as a model of its own, texts in and vectors out, and set its alias `champion` to it. Returns MLflow's number.

        Args:
            query_version: of the tower; empty: the encoder has none, so no query tower is the champion's and the alias is removed.
            champion: whether to set or remove the alias.
        """

        def register() -> str:
            name, client = self.settings.registered_query_model, self.client
            if query_version:
                return register_query_model(client, name, folder, lambda: str(self.run), champion)
            if champion and is_registered(client, name):
                client.delete_registered_model_alias(name, CHAMPION)
            return ""

        number: str | None = self._collect_errors(register)
        return number

    def finish(self, status: str = "FINISHED") -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self._collect_errors(lambda: self.client.set_terminated(self.run, status))

    def end_failed(self, run_ids: Collection[str]) -> None:
        """End the MLflow runs of these failed runs that are still said to be running: a night whose disk is full can end itself nowhere."""

        def end() -> None:
            for run in self.client.search_runs([self._experiment()], "attributes.status = 'RUNNING'"):
                if run.data.tags.get(RUN_TAG) in run_ids and run.info.run_id != self.run:
                    self.client.set_terminated(run.info.run_id, "FAILED")

        if run_ids:
            self._collect_errors(end)

    def _collect_errors(self, call: Callable[[], Any]) -> Any:
        """The result of the call; None if it failed, with its error in `problems`."""
        if self.client is None or self.run is None:
            return None
        try:
            with tracking_errors("MLflow"):
                return call()
        except TrackingError as e:
            self.problems.append(e.found)
            return None


def pyfunc_description(folder: Path) -> str:
    """The text of the `MLmodel` file: how MLflow loads an encoder's folder, and the model's signature."""
    import mlflow.pyfunc
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    from tgq.encoder.config import EncoderConfig

    dim = EncoderConfig.read(folder).dim
    columns = [ColSpec("string", name, required=False) for name in ("title", "brand", "category", "attributes")]
    inputs = Schema([*columns, ColSpec("binary", "image", required=False)])
    model = Model(signature=ModelSignature(inputs, Schema([TensorSpec(np.dtype(np.float32), (-1, dim))])))
    mlflow.pyfunc.add_to_model(model, loader_module="tgq.client.pyfunc", data=".")
    return str(model.to_yaml())


def open_tracker(settings: TrackingSettings, warehouse_root: str) -> Tracker:
    """Connect to `tracking.uri`, or to `mlflow.db` in the warehouse. Artifacts of a sqlite file go to `mlartifacts/` in its folder.

    Raises:
        TrackingError: the server does not answer, the file is no database of this MLflow version, or `tracking.uri` is not set and
            the warehouse is not a local folder.
    """
    if not settings.enabled:
        return Tracker(settings)
    uri = settings.uri
    if uri is None:
        if "://" in warehouse_root:
            raise TrackingError(
                f"MLflow cannot use a sqlite file in {warehouse_root}", "set tracking.uri to a server, or tracking.enabled=false"
            )
        root = Path(warehouse_root).expanduser().resolve()
        root.mkdir(parents=True, exist_ok=True)
        uri = f"{SQLITE}{root / 'mlflow.db'}"
    artifacts = (Path(uri.removeprefix(SQLITE)).resolve().parent / "mlartifacts").as_uri() if uri.startswith(SQLITE) else None
    if uri.startswith(("http://", "https://")):
        _check_server(uri)
    with tracking_errors(f"MLflow at {_without_password(uri)}"):
        import_mlflow()
        from mlflow import MlflowClient

        for logger in ("mlflow", "alembic"):
            logging.getLogger(logger).setLevel(logging.WARNING)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)  # MLflow connects with its first request
    return Tracker(settings, client, artifacts)


def import_mlflow() -> None:
    """Import the library, which takes 2 s, with DEFAULTS in its environment."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401


def metric_names(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Rows of `retrieval_metrics` as MLflow metrics, e.g. `hit_rate_at_10`, `frozen_image/mrr`, `category/Bags/hit_rate_at_10`, and of search
    queries `query_ndcg_at_10`, `bm25/query_mrr`.

    The overall slice also has its interval (`..._ci_low`, `..._ci_high`). Characters that MLflow refuses become `_`. A long slice is
    cut, never the metric behind it. If two slices then have the same name, one gets a short hash as a suffix.
    """
    out: dict[str, float] = {}
    owner: dict[str, str] = {}
    for row in rows:
        name = metric_key(row).replace("@", "_at_")
        if row["slice"] != "all":
            part = _clean(row["slice"].replace("=", "/", 1)).strip("/. ")
            if len(part) > SLICE_CHARACTERS or owner.setdefault(part, row["slice"]) != row["slice"]:
                part = f"{part[:SLICE_CHARACTERS].strip('/. ')}_{_digest(row['slice'])}"
            name = f"{part}/{name}"
        if is_baseline(row["model_version"]):
            name = f"{row['model_version']}/{name}"
        out[name] = row["value"]
        if row["slice"] == "all" and row.get("ci_low") is not None:
            out |= {f"{name}_ci_low": row["ci_low"], f"{name}_ci_high": row["ci_high"]}
    return out


def _clean(text: str) -> str:
    """Characters that MLflow takes: of words (of any script), `_ - . /` and space; no empty or dotted path parts."""
    return "/".join(re.sub(r"[^\w.\- ]+", "_", part).strip(". ") or "_" for part in text.split("/"))


def _name(text: str) -> str:
    """A name that MLflow accepts. A hash replaces the end of one that is too long."""
    name = _clean(text)
    return name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 8]}_{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:7]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _check_server(uri: str) -> None:
    """Raise TrackingError if the server does not answer. Any HTTP status counts as an answer."""
    import requests

    try:
        requests.get(uri.rstrip("/") + "/health", timeout=ANSWER_S)
    except requests.RequestException as e:
        raise TrackingError(
            f"the tracking server {_without_password(uri)} does not answer ({type(e).__name__})",
            "start it, correct tracking.uri, or set tracking.enabled=false",
        ) from e


@contextlib.contextmanager
def tracking_errors(what: str) -> Iterator[None]:
    """Turn any error of the block into a one-line TrackingError."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as e:  # MLflow passes on errors of its libraries
        line = " ".join(str(e).split())[:200]
        raise TrackingError(f"{what}: {type(e).__name__}: {line}", "repair MLflow, set another tracking.uri, or tracking.enabled=false") from e


def _without_password(uri: str) -> str:
    """The URI without user and password."""
    return re.sub(r"//[^/@]*@", "//", uri)
