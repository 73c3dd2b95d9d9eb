"""Runs the nightly DAG under a real Airflow and prints what happened: a night, a refused one, a killed one, a cleared task, a backfill.

`make airflow-demo` calls it. It starts `airflow standalone` with sqlite and a Spark standalone cluster of one worker in a new folder, sets
connection and Variables as the how-to says, and ends all servers at the end. The encoder is tiny, and the catalog has few items.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from airflow_api import Airflow
from processes import Servers, free_ports, kill_driver, listens

PROJECT = Path(__file__).parents[2]
PROFILE = """\
# one Spark cluster on this machine, an encoder that costs nothing, and few figures: the demo is about the DAG
spark:
  master: null
  sized_for: small
encoder:
  path: {folder}/encoder
evaluate:
  baselines: false
  bm25: false
  replicates: 100
report:
  strips: 1
tracking:
  enabled: false
"""


# for sessions of a minute: the JVM's optimising compiler takes longer than it saves
DEFAULTS = """\
spark.driver.extraJavaOptions   -XX:TieredStopAtLevel=1 -XX:+UseSerialGC
spark.executor.extraJavaOptions -XX:TieredStopAtLevel=1 -XX:+UseSerialGC
"""


def main() -> None:
    """Read the options, lay out the folder, start the servers, and play the scenes."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tgq", type=Path, required=True, help="Environment with tgq and pyspark.")
    options.add_argument("--airflow", type=Path, required=True, help="Environment with Airflow and its Spark provider.")
    options.add_argument("--folder", type=Path, required=True, help="New folder for all that the demo writes; an earlier one is replaced.")
    options.add_argument("--items", type=int, default=100, help="Items of the catalog.")
    given = options.parse_args()
    tgq, airflow, folder = (Path(os.path.abspath(path)) for path in (given.tgq, given.airflow, given.folder))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end too
    lay_out(folder, tgq, given.items)
    with Servers(folder / "logs") as servers:
        client, master = start(servers, folder, tgq, airflow)
        for scene in scenes(client, master, folder):
            print(scene, flush=True)


def lay_out(folder: Path, tgq: Path, items: int) -> None:
    """Write the catalog, one that lacks a third of its items, the encoder, the profile, and the DAG folder."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "logs").mkdir(parents=True)
    for name, count in (("catalog", items), ("shrunk", items * 2 // 3)):
        subprocess.run([tgq / "bin" / "tgq", "demo-catalog", folder / name, "--items", str(count)], check=True, stdout=subprocess.DEVNULL)
    write = "import sys; from tgq.encoder.tiny import write_tiny_encoder; write_tiny_encoder(sys.argv[1])"
    subprocess.run([tgq / "bin" / "python", "-c", write, folder / "encoder"], check=True)
    (folder / "demo.yaml").write_text(PROFILE.format(folder=folder))
    (folder / "spark-conf").mkdir()
    (folder / "spark-conf" / "spark-defaults.conf").write_text(DEFAULTS)
    (folder / "dags").mkdir()
    for file in (PROJECT / "airflow_dags").glob("*.py"):
        shutil.copy(file, folder / "dags")


def start(servers: Servers, folder: Path, tgq: Path, airflow: Path) -> tuple[Airflow, str]:
    """Start the Spark cluster and Airflow. Returns Airflow's client and the URL of Spark's master."""
    master, master_page, worker_page, api, worker_logs, trigger_logs = free_ports(6)
    python = tgq / "bin" / "python"
    home = subprocess.run([python, "-c", "import pyspark; print(pyspark.__path__[0])"], check=True, capture_output=True, text=True).stdout.strip()
    environ = dict(os.environ) | {
        "SPARK_HOME": home, "SPARK_CONF_DIR": str(folder / "spark-conf"), "PYSPARK_PYTHON": str(python), "SPARK_LOCAL_IP": "127.0.0.1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    url, spark_class = f"spark://127.0.0.1:{master}", str(Path(home, "bin", "spark-class"))
    servers.start(
        "spark-master", [spark_class, "org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", str(master), "--webui-port", str(master_page)],
        environ, lambda: listens(master),
    )  # fmt: skip
    servers.start(
        "spark-worker", [spark_class, "org.apache.spark.deploy.worker.Worker", url, "--host", "127.0.0.1", "--cores", "2", "--memory", "3g",
                         "--webui-port", str(worker_page), "--work-dir", str(folder / "spark-work")],
        environ, lambda: listens(worker_page),
    )  # fmt: skip
    client = Airflow(f"http://127.0.0.1:{api}", folder / "airflow")
    environ |= {
        "PATH": f"{airflow / 'bin'}:{tgq / 'bin'}:{os.environ['PATH']}",  # both environments: airflow's programs, and spark-submit
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{client.url}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(api),
        "AIRFLOW__API__BASE_URL": client.url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
    }
    servers.start("airflow", [str(airflow / "bin" / "airflow"), "standalone"], environ, client.is_up, seconds=300)
    client.log_in()
    give_up = time.monotonic() + 120
    while not client.has_dag():
        if time.monotonic() > give_up:
            raise SystemExit(f"airflow-demo: Airflow has not read the DAG: see {folder / 'logs' / 'airflow.log'}")
        time.sleep(1)
    client.unpause()
    return client, url


def scenes(airflow: Airflow, master: str, folder: Path) -> Iterator[str]:
    """Play the scenes one after the other. Yields what happened, as text.

    Raises:
        SystemExit: a scene ended otherwise than it should.
    """
    airflow.trigger("nothing-set")
    yield from told(airflow, "nothing-set", "Nothing is set: the first task says what to do", expect="failed")
    said = [line for line in airflow.log("nothing-set", "check", 1) if line.startswith(("the connection spark_default", "neither the Variable"))]
    need(len(said) == 4, f"the check has said {len(said)} things, not 4")
    yield "\n".join(f"      {line}" for line in said)
    while not airflow.is_idle():
        time.sleep(1)

    airflow.set_connection("spark_default", "spark", master)
    for name, value in {
        "catalog": folder / "catalog", "warehouse": folder / "warehouse", "project": PROJECT, "profile": folder / "demo.yaml",
        "catalog_profile": "catalogs/demo",
    }.items():  # fmt: skip
        airflow.set_variable(f"tgq_{name}", str(value))
    airflow.trigger("night-1")
    yield from told(airflow, "night-1", f"A night, a task for each step, on {master}")

    airflow.trigger("night-2", whole_night=True, catalog=str(folder / "shrunk"))
    yield from told(airflow, "night-2", "A whole night in one task, refused because a third of the catalog vanished")
    refused = [extra for name, extra in airflow.events("night-2") if name == "tgq_refused_night"]
    need(len(refused) == 1, "the refused night has emitted no event of its asset")
    yield f"    asset tgq_refused_night: {'; '.join(refused[0]['reasons'])}"

    airflow.trigger("night-3", whole_night=True)
    killed: list[int] = []

    def kill_while_embedding() -> None:
        embeds = any(line.strip() == "embed" for line in airflow.log("night-3", "whole.night", 1))
        if embeds and not killed and (process := kill_driver("tgq-night-night-3")):
            killed.append(process)

    yield from told(airflow, "night-3", "A night whose driver is killed as it begins to embed", meanwhile=kill_while_embedding)
    attempts = max(task["try_number"] for task in airflow.tasks("night-3") if task["task_id"] == "whole.night")
    need(bool(killed) and attempts == 2, f"the driver was killed {len(killed)} times, and the night took {attempts} tries")
    yield f"    driver {killed[0]} was killed; the second try went on as the run night-3"

    cleared = airflow.clear("night-3", "whole.gate")
    yield from told(airflow, "night-3", f"Cleared tasks: {', '.join(cleared)}")

    run = airflow.backfill("2026-02-03", whole_night=True)
    yield from told(airflow, run, "A backfill of one day: a night of the present catalog under a run id of its own")
    yield f"\nAll of this is in {folder}"


def told(airflow: Airflow, run: str, title: str, expect: str = "success", meanwhile: Callable[[], object] = lambda: None) -> Iterator[str]:
    """Wait for a run, and call `meanwhile` every second. Yields a title, and for each try of a task that ends its seconds and lines of log.

    Raises:
        SystemExit: the run did not end as expected.
    """
    began, state, told_of = time.monotonic(), "", set()
    yield f"\n{title}\n  run {run}"
    for now in airflow.states(run):
        state = now
        meanwhile()
        for task in airflow.tasks(run):
            attempt = (task["task_id"], task["try_number"], task["start_date"])
            if task["state"] in ("success", "failed", "up_for_retry") and attempt not in told_of:
                told_of.add(attempt)
                lines = len(airflow.log(run, task["task_id"], task["try_number"]))
                yield f"    {task['task_id']:20} try {task['try_number']} {task['state']:12} {task['duration'] or 0:6.0f} s {lines:5} lines of log"
    yield f"  {state} after {(time.monotonic() - began) / 60:.1f} minutes"
    need(state == expect, f"run {run} is {state}, not {expect}")


def need(met: bool, otherwise: str) -> None:
    """End the demo with a line if a condition is not met."""
    if not met:
        raise SystemExit(f"airflow-demo: {otherwise}")


if __name__ == "__main__":
    main()
