"""A night under a lease: it renews it until it publishes, and publishes nothing once another process has followed."""

import json
from dataclasses import asdict, replace

import pytest

from tgq.errors import LockedError
from tgq.evaluation import evaluate as judging
from tgq.index import build, neighbors
from tgq.publishing.publish import publish
from tgq.retrieval import manifest
from tgq.settings.sections import WarehouseSettings
from tgq.storage.files import Files
from tgq.storage.lease import FOLDER, Claim
from tgq.storage.lock import warehouse_lock

OTHER = Claim(2, "of another process", 4711, "another-machine", "2026-01-31 02:00:00 UTC", 120.0, 0, 0.0)


@pytest.fixture
def leased(make_night, items):
    """leased(run id): a judged night on a warehouse with items, and the settings of a lease on it."""

    def leased(run_id):
        night = make_night(run_id, evaluate={"baselines": False}, gate={"floors": {}})
        items(n=20, styles=10).write(night)
        for step in (build.build_index, neighbors.build_neighbors, judging.evaluate):
            step(night)
        return night, WarehouseSettings(path=night.warehouse.root, lock="lease")

    return leased


def test_a_night_that_lost_its_lease_publishes_nothing(leased):
    night, settings = leased("night-1")
    with warehouse_lock(settings) as lock:
        # as a process that found this one's claim too old
        assert Files(night.warehouse.root).create(f"{FOLDER}/{OTHER.number:012d}.json", json.dumps(asdict(OTHER)).encode())
        with pytest.raises(LockedError, match="has lost its lease of the warehouse .* to process 4711 on another-machine since 2026-01-31"):
            publish(replace(night, lock=lock))
    assert manifest.load_current(night.warehouse.root) is None and night.warehouse.read("item_neighbors").isEmpty()
    assert not night.warehouse.rows("index_shards", {})


def test_a_night_that_holds_its_lease_is_published(leased):
    night, settings = leased("night-1")
    with warehouse_lock(settings) as lock:
        publish(replace(night, lock=lock))
    assert manifest.load_current(night.warehouse.root).generation == "night-1"
