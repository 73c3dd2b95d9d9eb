"""The gate on changes to the catalog: what a night is compared with, what is refused, and what is recorded when it is accepted."""

from datetime import datetime, timezone

import pytest

from tgq.cli.app import main
from tgq.evaluation import evaluate as step
from tgq.index import build, generations
from tgq.publishing.verdict import read_verdict, refusal
from tgq.run.night import StepResult
from tgq.run.records import record

NOW = datetime(2026, 1, 31, 2, tzinfo=timezone.utc)


@pytest.fixture
def judged(make_night):
    """judged(run id, rows, quarantined, embed_quarantined=, accept=): the night's verdict on the tables as they are."""

    def judged(run_id, rows=None, quarantined=0, embed_quarantined=0, **limits):
        night = make_night(run_id, evaluate={"baselines": False}, gate={"floors": {}, "catalog_change": limits})
        if rows is not None:
            record(night, "ingest", "done", NOW, NOW, StepResult(rows_in=rows, quarantined=quarantined))
            snapshot = {"snapshot": {"quarantined": embed_quarantined}}
            record(night, "embed", "done", NOW, NOW, StepResult(rows_in=rows, quarantined=embed_quarantined + 7, figures=snapshot))
        return night, step.evaluate(night).figures["gate"]

    return judged


def publish(night):
    build.build_index(night)
    generations.publish_index(night, night.warehouse.versions("catalog_items", "item_embeddings"))


def test_a_night_is_compared_with_the_last_published_one(judged, items, make_night):
    items(n=20, styles=10).write(make_night("night-1"))
    first, verdict = judged("night-1", 30, 10)
    assert verdict["passed"] and verdict["catalog_change"] is None, "a third is quarantined; a first night has nothing to compare with"
    publish(first)

    # 5 of 20 vanish: refused, and again in the next night, because the night between was not published
    sql = first.spark.sql
    sql("UPDATE tgq.catalog_items SET is_active = false WHERE item_id >= 'item-0015'")
    for run_id in ("night-2", "night-3"):
        night, verdict = judged(run_id, 25, 10)
        change = verdict["catalog_change"]
        assert not verdict["passed"] and verdict["reasons"] == [
            "5 of the 20 published items vanished from the catalog (25.0%); the limit is 20.0%"
        ]
        assert change["against"] == "night-1" and change["vanished_share"] == 0.25 and change["refused"] and change["accepted"] == []
        error = refusal(read_verdict(night))
        assert error.exit_code == 3 and "--accept-catalog-change" in str(error)

    # one is back: 4 of 20 is the limit. All others have other content, which is noted. Quarantined: 33 % to 42 %
    sql("UPDATE tgq.catalog_items SET is_active = true WHERE item_id = 'item-0015'")
    sql("UPDATE tgq.catalog_items SET content_hash = concat(content_hash, 'x') WHERE is_active")
    sql("UPDATE tgq.item_embeddings SET content_hash = concat(content_hash, 'x')")
    second, verdict = judged("night-4", 24, 8, embed_quarantined=2)
    assert verdict["passed"] and "16 of the 16 remaining items have another content (100.0%)" in verdict["notes"][0]
    named = ("published", "vanished", "changed", "rows", "quarantined", "last_rows", "last_quarantined")
    assert [verdict["catalog_change"][name] for name in named] == [20, 4, 16, 24, 10, 30, 10]
    publish(second)

    # the same items, and quarantined rows that rise by half
    _, verdict = judged("night-5", 40, 24)
    assert not verdict["passed"] and verdict["catalog_change"]["vanished"] == 0
    assert verdict["reasons"][0].startswith("24 of 40 rows are quarantined (60.0%), after 41.7% in the last published run")

    # a planned change is recorded as accepted, in the verdict and in the run's row
    night, verdict = judged("night-6", 40, 24, accept=True)
    assert verdict["passed"] and not verdict["reasons"] and verdict == read_verdict(night) and refusal(verdict) is None
    assert verdict["catalog_change"]["accepted"] == [verdict["notes"][0].removeprefix("accepted by gate.catalog_change.accept: ")]
    assert "24 of 40 rows" in verdict["catalog_change"]["accepted"][0]


def test_a_night_whose_rows_are_not_recorded_is_judged_by_its_items(judged, items, make_night):
    items(n=10, styles=5).write(make_night("night-1"))
    publish(judged("night-1")[0])
    _, verdict = judged("night-2", 10, 9)
    assert verdict["passed"] and verdict["catalog_change"]["last_rows"] == 0


@pytest.mark.parametrize("command", ["nightly", "evaluate"])
def test_the_flag_is_the_setting_and_wins_over_the_environment(command, monkeypatch):
    from tgq.cli.commands import nightly as commands

    seen = []
    monkeypatch.setattr(commands, "run_steps", lambda loaded, *_: seen.append(loaded))
    monkeypatch.setenv("TGQ__gate__catalog_change__accept", "false")
    for flags, wanted in (((), False), (("--accept-catalog-change",), True)):
        with pytest.raises(SystemExit) as ended:
            main([command, "--catalog", ".", *flags])
        assert ended.value.code == 0 and seen.pop().settings.gate.catalog_change.accept is wanted
