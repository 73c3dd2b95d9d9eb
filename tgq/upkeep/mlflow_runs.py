"""MLflow runs beyond the newest: found, and deleted with their artifacts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from tgq.errors import TrackingError
from tgq.registry.tracking import SQLITE, Tracker, tracking_errors

PAGE = 1000


def runs_beyond(tracker: Tracker, keep: int) -> list[str]:
    """Ids of the experiment's runs beyond the newest `keep`. Runs that a registered encoder or query tower came from are left out.

    Raises:
        TrackingError: MLflow failed.
    """
    client, settings = tracker.client, tracker.settings
    if client is None:
        return []
    with tracking_errors("MLflow"):
        experiment = client.get_experiment_by_name(settings.experiment)
        if experiment is None:
            return []
        models = (settings.registered_model, settings.registered_query_model)
        registered = {version.run_id for name in models for version in client.search_model_versions(f"name = '{name}'")}
        runs, token = [], None
        while True:
            page = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"], max_results=PAGE, page_token=token)
            runs += [run.info.run_id for run in page]
            token = page.token
            if not token:
                return [run for run in runs[keep:] if run not in registered]


def delete_runs(tracker: Tracker, runs: Sequence[str]) -> None:
    """Delete runs with their artifacts. On a tracking server they are only marked as deleted; `mlflow gc` there frees their space.

    Raises:
        TrackingError: MLflow failed.
    """
    if not runs:
        return
    with tracking_errors("MLflow"):
        for run in runs:
            tracker.client.delete_run(run)
    uri = tracker.client.tracking_uri
    if uri.startswith(SQLITE):
        command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri, "--tracking-uri", uri, "--run-ids", ",".join(runs)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise TrackingError(f"mlflow gc failed: {done.stderr.strip().splitlines()[-1:]}", "run it by hand; the runs are marked as deleted")
