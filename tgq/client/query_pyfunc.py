"""The query tower as an MLflow model: texts in, vectors out. `tgq promote` and nights register it; `tgq.registry.query_model` has its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tgq.errors import UsageError
from tgq.registry.query_model import TAG, query_version, register_query_model, save_query_model
from tgq.settings.sections import TrackingSettings

if TYPE_CHECKING:
    import pandas as pd

    from tgq.query_tower.tower import QueryTower

__all__ = ["NAME", "QueryModel", "log_query_model", "save_query_model"]

NAME: str = TrackingSettings().registered_query_model


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
    from tgq.registry.tracking import open_tracker, tracking_errors

    version = query_version(encoder_folder)
    tracker = open_tracker(TrackingSettings(uri=tracking_uri), "")

    def run() -> str:
        return str(tracker.start(f"query-tower-{version}", {TAG: version}))

    with tracking_errors("MLflow"):
        number = register_query_model(tracker.client, name, encoder_folder, run)
    tracker.finish()
    return number


def _load_pyfunc(path: str) -> QueryModel:
    """Load the model; MLflow calls this with its folder."""
    from tgq.inference.device import choose_device
    from tgq.query_tower.tower import QueryTower

    return QueryModel(QueryTower.load(path, choose_device("auto")))
