"""tgq's commands as child processes, with the environment that a user would set, and what they leave in a warehouse."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np

from tests.s3.server import TOP

SETTINGS = (
    "spark.master=local[2,4]", "spark.driver_memory=1g", "spark.shuffle_partitions=1", "spark.sized_for=small", "tracking.enabled=false",
)  # fmt: skip
LONGEST_S = 1200


@dataclass
class Shell:
    """Runs commands of tgq on one warehouse. `environment` names the store."""

    warehouse: str
    environment: dict[str, str]

    def start(self, *command, sets=SETTINGS, **environment):
        """Start a command in a session of its own. Returns the process."""
        own = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        own |= {"PYTHONPATH": os.pathsep.join(filter(None, [str(TOP), os.environ.get("PYTHONPATH")])), "OMP_NUM_THREADS": "1"}
        own |= self.environment | environment
        options = [part for one in sets for part in ("--set", one)]
        line = [sys.executable, "-m", "tgq.cli.app", *map(str, command), "--warehouse", self.warehouse, *options]
        return subprocess.Popen(
            line, cwd=TOP, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, stdin=subprocess.DEVNULL
        )

    def run(self, *command, code=0, sets=SETTINGS, **environment):
        """Run a command to its end. Returns what it printed, and its errors."""
        process = self.start(*command, sets=sets, **environment)
        try:
            printed, errors = process.communicate(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            end(process)
            raise
        assert process.returncode == code, f"{' '.join(map(str, command))}: {process.returncode}\n{printed[-1000:]}\n{errors[-3000:]}"
        return printed, errors

    def night(self, catalog, encoder, summary, *sets, code=0):
        """A night. Returns its summary."""
        began = time.monotonic()
        options = SETTINGS + (f"encoder.path={encoder}", *sets)
        self.run("nightly", "--conf", "local", "--conf", "catalogs/demo", "--catalog", catalog, "--summary", summary, sets=options, code=code)
        print(f"a night on {self.warehouse}: {time.monotonic() - began:.0f} s")
        return json.loads(summary.read_text())

    def search(self, *query, **environment):
        """The hits of a search."""
        return [json.loads(line) for line in self.run("search", *query, "--json", **environment)[0].splitlines()]


def end(process):
    """Kill a process that `Shell.start` started, with the JVM and the workers that it started."""
    os.killpg(process.pid, 9)
    process.communicate()


def rows(warehouse, query, *key):
    """Rows of a query, by the values of some columns."""
    found = {tuple(row[name] for name in key): row for row in warehouse.sql(query).to_pylist()}
    return found


def contents(warehouse):
    """What a night leaves for its readers, without ids and times of runs, and without the place of the catalog."""
    items = rows(warehouse, "SELECT item_id, title, brand, category, content_hash, image_hash, group_id, is_active FROM catalog_items", "item_id")
    pairs = rows(
        warehouse, "SELECT query_item_id, positive_item_id, source, weight, split FROM relevance_pairs", "query_item_id", "positive_item_id"
    )
    neighbors = rows(warehouse, "SELECT item_id, rank, neighbor_id FROM published_neighbors", "item_id", "rank")
    metrics = rows(
        warehouse, f"SELECT model_version, task, slice, metric, k, value, n_queries FROM retrieval_metrics WHERE run_id = '{warehouse.published.run_id}'",
        "model_version", "task", "slice", "metric", "k",
    )  # fmt: skip
    quarantine = sorted(
        (row["stage"], row["reason"], row["item_id"] or "") for row in warehouse.sql("SELECT stage, reason, item_id FROM quarantine").to_pylist()
    )
    return {"items": items, "pairs": pairs, "neighbors": neighbors, "metrics": metrics, "quarantine": quarantine}


def vectors(warehouse):
    """The published vectors by item."""
    found = warehouse.embeddings(["item_id", "embedding"])
    return dict(zip(found["item_id"].to_pylist(), np.array(found["embedding"].to_pylist(), np.float32), strict=True))


def need_same(found, expected):
    """Check that two warehouses have the same contents and vectors."""
    one, other = contents(found), contents(expected)
    assert one["items"] and one["pairs"] and one["neighbors"] and one["metrics"] and one["quarantine"]
    for name in one:
        if name != "metrics":
            assert one[name] == other[name], name
    assert one["metrics"].keys() == other["metrics"].keys()
    for key, row in one["metrics"].items():
        assert row["n_queries"] == other["metrics"][key]["n_queries"], key
        assert np.isclose(row["value"], other["metrics"][key]["value"], atol=1e-6, equal_nan=True), key
    ours, theirs = vectors(found), vectors(expected)
    assert ours.keys() == theirs.keys()
    assert max(np.abs(ours[item] - theirs[item]).max() for item in ours) < 1e-6
