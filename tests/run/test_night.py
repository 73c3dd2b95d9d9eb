"""Opening runs: continuing, joining, valid ids."""

import time
from datetime import timezone

import pytest

from tgq.errors import UsageError
from tgq.run.opening import open_night
from tgq.settings.load import load_settings
from tgq.storage.files import Files


@pytest.fixture
def begin(spark, tmp_path, empty_tables):
    def begin(catalog="shop", **more):
        overrides = [f"warehouse.path={tmp_path / 'warehouse'}", *([f"catalog.path={catalog}"] if catalog else [])]
        return open_night(spark, load_settings(["local"], overrides, {}).settings, **more)

    return begin


def test_a_continued_run_keeps_its_start_in_any_time_zone(begin, monkeypatch):
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    time.tzset()
    try:
        first, again = begin(), begin()
        assert again.run_id == first.run_id and again.started_at == first.started_at
        stored = again.warehouse.read("pipeline_runs").selectExpr("unix_micros(started_at)").first()[0]
        assert stored == round(first.started_at.astimezone(timezone.utc).timestamp() * 1e6)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_later_step_in_another_folder_uses_the_runs_catalog(begin, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    first = begin()
    monkeypatch.chdir(tmp_path)
    later = begin(catalog=None, begins=False)
    assert later.run_id == first.run_id and later.settings.catalog.path == str(tmp_path / "here" / "shop")


def test_a_new_run_removes_the_staging_of_other_runs(begin):
    first = begin()
    left = first.staging("pool", "block.arrow")
    Files(first.warehouse.root).write(left.removeprefix(first.warehouse.root + "/"), b"x")
    begin(run_id="another")
    assert Files(first.warehouse.root).list("_staging") in ([], ["another"])


@pytest.mark.parametrize("run_id", ["a/b", "../x", "a:b", "", "x" * 121])
def test_a_run_id_must_be_able_to_name_a_generation(begin, run_id):
    with pytest.raises(UsageError, match="run id"):
        begin(run_id=run_id)


def test_a_step_without_a_run_says_how_to_begin_one(begin):
    with pytest.raises(UsageError, match="begin one with `tgq ingest`"):
        begin(begins=False)
