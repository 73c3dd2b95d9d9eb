"""A client of Airflow's REST API, as far as the demo needs it: settings, runs, logs, asset events."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DAG = "tgq_nightly"
ENDED = ("success", "failed")


class Airflow:
    """A running Airflow.

    Args:
        url: of the API server.
        home: AIRFLOW_HOME, with the generated password and the logs of the tasks.
    """

    def __init__(self, url: str, home: Path):
        self.url, self.home = url, home
        self._token = ""

    def log_in(self) -> None:
        """Get a token with the password that `airflow standalone` generated."""
        [(user, password)] = json.loads((self.home / "simple_auth_manager_passwords.json.generated").read_text()).items()
        self._token = self._call("POST", "/auth/token", {"username": user, "password": password})["access_token"]

    def is_up(self) -> bool:
        """Whether the API server answers, and the scheduler and the DAG processor have reported."""
        try:
            health = self._call("GET", "/api/v2/monitor/health")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return all((health.get(part) or {}).get("status") == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))

    def has_dag(self) -> bool:
        """Whether the DAG has been read."""
        try:
            self._call("GET", f"/api/v2/dags/{DAG}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return False
            raise
        return True

    def set_variable(self, name: str, value: str) -> None:
        """Set a Variable that is not set yet."""
        self._call("POST", "/api/v2/variables", {"key": name, "value": value})

    def set_connection(self, name: str, kind: str, host: str) -> None:
        """Set a connection, in place of the one that Airflow may bring."""
        try:
            self._call("DELETE", f"/api/v2/connections/{name}")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
        self._call("POST", "/api/v2/connections", {"connection_id": name, "conn_type": kind, "host": host})

    def unpause(self) -> None:
        """Let the scheduler run the DAG."""
        self._call("PATCH", f"/api/v2/dags/{DAG}?update_mask=is_paused", {"is_paused": False})

    def trigger(self, run: str, **params: Any) -> None:
        """Begin a run with parameters."""
        self._call("POST", f"/api/v2/dags/{DAG}/dagRuns", {"dag_run_id": run, "logical_date": None, "conf": params})

    def backfill(self, day: str, **params: Any) -> str:
        """Begin a backfill of one day (ISO). Returns the id of its run."""
        wanted = {"dag_id": DAG, "from_date": f"{day}T00:00:00Z", "to_date": f"{day}T23:59:59Z", "dag_run_conf": params, "max_active_runs": 1}
        made = self._call("POST", "/api/v2/backfills", wanted)["id"]
        runs = self._call("GET", f"/api/v2/dags/{DAG}/dagRuns?run_type=backfill&order_by=-run_after")["dag_runs"]
        found: list[str] = [run["dag_run_id"] for run in runs if day in run["dag_run_id"]]
        if not found:
            raise SystemExit(f"airflow-demo: the backfill {made} of {day} made no run")
        return found[0]

    def clear(self, run: str, task: str) -> list[str]:
        """Clear a task of a run, with all that comes after it. Returns the tasks."""
        wanted = {"dry_run": False, "only_failed": False, "reset_dag_runs": True, "dag_run_id": run, "task_ids": [task], "include_downstream": True}
        cleared = self._call("POST", f"/api/v2/dags/{DAG}/clearTaskInstances", wanted)["task_instances"]
        return sorted(one["task_id"] for one in cleared)

    def tasks(self, run: str) -> list[dict[str, Any]]:
        """The tasks of a run that have begun, in the order in which they began."""
        found: list[dict[str, Any]] = self._call("GET", f"/api/v2/dags/{DAG}/dagRuns/{_quoted(run)}/taskInstances?limit=100")["task_instances"]
        return sorted((one for one in found if one["try_number"] and one["start_date"]), key=lambda one: (one["start_date"], one["task_id"]))

    def states(self, run: str, seconds: float = 3600) -> Iterator[str]:
        """The state of a run, every second until it has ended.

        Raises:
            SystemExit: it has not ended in time.
        """
        give_up, state = time.monotonic() + seconds, ""
        while state not in ENDED:
            if time.monotonic() > give_up:
                raise SystemExit(f"airflow-demo: the run {run} has not ended within {seconds:.0f} s")
            time.sleep(1)
            state = self._call("GET", f"/api/v2/dags/{DAG}/dagRuns/{_quoted(run)}")["state"]
            yield state

    def is_idle(self) -> bool:
        """Whether no run is queued or running, such as the one that Airflow begins when the DAG is unpaused."""
        return all(run["state"] in ENDED for run in self._call("GET", f"/api/v2/dags/{DAG}/dagRuns")["dag_runs"])

    def log(self, run: str, task: str, attempt: int) -> list[str]:
        """The lines that a try of a task has logged."""
        file = self.home / "logs" / f"dag_id={DAG}" / f"run_id={run}" / f"task_id={task}" / f"attempt={attempt}.log"
        lines = file.read_text().splitlines() if file.is_file() else []
        return [str(json.loads(line).get("event", "")) if line.startswith("{") and line.endswith("}") else line for line in lines]

    def events(self, run: str) -> list[tuple[str, dict[str, Any]]]:
        """(asset, extra) of the asset events that a run has emitted, in the order of their time."""
        found = self._call("GET", f"/api/v2/assets/events?source_dag_id={DAG}&source_run_id={_quoted(run)}&order_by=timestamp")["asset_events"]
        return [(one["name"], one["extra"] or {}) for one in found]

    def _call(self, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._token}"} if self._token else {})
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")
