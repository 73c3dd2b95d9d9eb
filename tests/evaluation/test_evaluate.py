import json

import ir_measures
import numpy as np
import pytest
from ir_measures import AP, RR, R, Success, nDCG

from tgq.errors import UsageError
from tgq.evaluation import evaluate as step
from tgq.index import build, generations
from tgq.index.pool import gather_items, write_pool
from tgq.publishing.verdict import read_verdict
from tgq.retrieval import manifest

OPTIONS = {"replicates": 100, "min_slice_queries": 30, "slices": ("category", "popularity", "has_brand", "agreement_decile", "overlay")}


def reference(data, order, vectors, ids, ignored=True):
    """Per-query values by ir_measures from a full ranking; ties by the pool's order, ignored and same-picture items taken out."""
    rows = np.array([data.ids.index(i) for i in order])
    vectors = vectors.astype(np.float64)[rows]
    scores = np.round(vectors @ vectors.T, 6)
    run, relevant = {}, {}
    weights = {}
    for i, j, w in data.pairs():
        weights.setdefault(data.ids[i], {})[data.ids[j]] = w
    for place, query in enumerate(order):
        if query not in ids:
            continue
        picture = data.image_hash[data.ids.index(query)]
        hidden = {i for i in order if data.image_hash[data.ids.index(i)] == picture} | {i for i, w in weights[query].items() if w == 0}
        ranking = [order[j] for j in np.lexsort((np.arange(len(order)), -scores[place])) if order[j] not in hidden and j != place]
        run[query] = {item: float(len(order) - r) for r, item in enumerate(ranking)}
        relevant[query] = {i: 1 for i, w in weights[query].items() if w > 0}
    measures = {"mrr": RR, "map": AP, "ndcg@10": nDCG @ 10, "recall@5": R @ 5, "hit_rate@1": Success @ 1, "hit_rate@10": Success @ 10}
    values = ir_measures.iter_calc(list(measures.values()), relevant, run)
    found = {}
    for value in values:
        found.setdefault(str(value.measure), {})[value.query_id] = value.value
    return {name: found[str(measure)] for name, measure in measures.items()}


def rows_of(warehouse, run_id):
    rows = warehouse.read("retrieval_metrics").where(f"run_id = '{run_id}'").collect()
    assert len({(r.model_version, r.slice, r.metric, r.k) for r in rows}) == len(rows)
    return {(r.model_version, r.slice, step.metric_key(r.asDict())): r for r in rows}


def test_metrics_are_those_of_ir_measures_for_every_system_and_slice(make_night, items, warehouse):
    night, data = make_night(evaluate=OPTIONS), items(n=200, styles=20)
    data.write(night)
    night.spark.sql(f"DELETE FROM tgq.item_embeddings WHERE item_id = '{data.ids[60]}'")  # active, relevant, and without a vector
    night.spark.sql(f"UPDATE tgq.catalog_items SET is_active = false WHERE item_id = '{data.ids[61]}'")  # gone: no relevance any more
    data.write_pairs(night)
    build.build_index(night)
    result = step.evaluate(night)

    pool = write_pool(night)
    order = gather_items(pool, ("item_id",), np.arange(pool.rows))["item_id"].to_pylist()
    assert pool.rows == 198 and result.rows_in == 198
    assert result.figures["pairs"]["queries_without_embedding"] == 1
    rows = rows_of(warehouse, "night-1")
    model = pool.model_version
    gone = data.pairs()
    data.pairs = lambda: [(i, j, w) for i, j, w in gone if 61 not in (i, j)]
    image, text = (m.astype(np.float32) / np.linalg.norm(m.astype(np.float32), axis=1, keepdims=True) for m in (data.image, data.text))
    systems = {model: data.vectors, "frozen_image": image, "frozen_text": text, "frozen_concat": np.hstack([image, text]) / 2**0.5}
    for system, vectors in systems.items():
        for name, values in reference(data, order, vectors, set(order)).items():
            row = rows[system, "all", name]
            assert row.value == pytest.approx(np.mean(list(values.values())), abs=2e-3), (system, name)
            assert (row.n_queries, row.pool_size) == (198, 198)
            assert row.ci_low <= row.value <= row.ci_high

    values = reference(data, order, data.vectors, set(order))["hit_rate@1"]
    for name, member in {
        "category=top0": lambda i: data.category[i].startswith("top0 "), "overlay=yes": lambda i: i % 2 == 1,
        "has_brand=false": lambda i: data.brand[i] is None,
    }.items():  # fmt: skip
        inside = [v for item, v in values.items() if member(data.ids.index(item))]
        row = rows[model, name, "hit_rate@1"]
        assert row.value == pytest.approx(np.mean(inside), abs=1e-9) and row.n_queries == len(inside)
    slices = {s for _, s, _ in rows}
    assert "agreement_decile=1" not in slices and result.figures["slices_too_small"] >= 10  # 20 queries each, under the limit
    assert rows[model, "all", "in_category_hit_rate@1"].value >= rows[model, "all", "hit_rate@1"].value

    assert rows[model, "all", "coverage"].value == pytest.approx(198 / 199)
    assert rows[model, "all", "ann_recall@10"].value == 1.0  # flat shards
    difference = next(d for d in result.figures["differences"] if (d["baseline"], d["metric"], d["k"]) == ("frozen_text", "hit_rate", 1))
    expected = rows[model, "all", "hit_rate@1"].value - rows["frozen_text", "all", "hit_rate@1"].value
    assert difference["value"] == pytest.approx(expected) and difference["ci_low"] < expected < difference["ci_high"]

    # once more: the same rows, not more of them
    step.evaluate(night)
    again = rows_of(warehouse, "night-1")
    assert again.keys() == rows.keys()
    for key, row in rows.items():
        assert (again[key].value, again[key].ci_low) == (pytest.approx(row.value), row.ci_low and pytest.approx(row.ci_low))


def test_without_pairs_a_night_has_coverage_and_recall_and_is_judged_by_them(make_night, items, warehouse):
    gate = {"floors": {"coverage": 0.9, "hit_rate@10": 0.5}, "max_relative_drop": {"mrr": 0.1}}
    night = make_night(gate=gate)
    with pytest.raises(UsageError, match="no verdict"):
        read_verdict(night)
    items(n=30).write(night)
    build.build_index(night)
    result = step.evaluate(night)
    assert result.figures["relevance"] == "no relevance pairs"
    assert {(r.metric, r.k) for r in warehouse.read("retrieval_metrics").collect()} == {("coverage", 0), ("ann_recall", 10)}
    assert read_verdict(night)["passed"]


def test_a_night_that_fell_is_refused_and_leaves_the_published_generation(make_night, items, warehouse):
    gate = {"floors": {"coverage": 0.5}, "max_relative_drop": {"hit_rate@1": 0.05}}
    options = {"replicates": 50, "slices": ()}
    night, data = make_night(evaluate=options, gate=gate), items(n=80, styles=10)
    data.write(night)
    data.write_pairs(night)
    build.build_index(night)
    assert step.evaluate(night).figures["gate"]["passed"]
    generations.publish_index(night, {"item_embeddings": 1})

    night.spark.sql("UPDATE tgq.item_embeddings SET embedding = transform(embedding, (x, i) -> CAST(IF(i = 0, 1, 0) AS FLOAT))")
    bad = make_night("night-2", evaluate=options, gate=gate)
    build.build_index(bad)
    verdict = step.evaluate(bad).figures["gate"]
    assert not verdict["passed"] and "hit_rate@1 fell by" in verdict["reasons"][0]
    assert read_verdict(bad) == verdict
    assert manifest.load_current(warehouse.root).generation == "night-1"
    off = make_night("night-2", evaluate=options, gate=gate | {"enabled": False})
    assert step.evaluate(off).figures["gate"]["passed"]


def test_queries_may_leave_the_pool(make_night, items, warehouse):
    """One query, whose best neighbours are queries too: out of the pool they stand in nobody's way."""
    data = items(n=40, styles=40)
    data.vectors[0], data.vectors[1], data.vectors[2] = np.eye(16, dtype=np.float32)[:3]
    data.vectors[1] = (data.vectors[0] * 0.99 + data.vectors[1] * 0.1411).astype(np.float32)
    data.vectors[2] = (data.vectors[0] * 0.9 + data.vectors[2] * 0.4359).astype(np.float32)
    data.vectors[3:] = -np.abs(data.vectors[3:]) * (np.arange(16) == 0) + 0.01
    found = {}
    for keep in (True, False):
        night = make_night(f"keep-{keep}", evaluate={"queries_in_pool": keep, "baselines": False, "replicates": 20, "exclude_same_image": False})
        if keep:
            data.write(night)
            data.write_pairs(night, [(0, 2, 1.0), (1, 2, 1.0)])
        figures = step.evaluate(night).figures
        rows = rows_of(warehouse, night.run_id)
        row = next(r for (_, s, name), r in rows.items() if (s, name) == ("all", "hit_rate@1"))
        found[keep] = (row.value, row.pool_size, figures["queries_hidden_from_pool"])
    assert found == {True: (0.0, 40, 0), False: (1.0, 38, 2)}


def test_an_unchanged_pool_is_not_measured_again(make_night, items, warehouse, monkeypatch):
    options = {"replicates": 50, "slices": ("category",), "min_slice_queries": 10}
    night, data = make_night(evaluate=options), items(n=80, styles=10)
    data.write(night)
    data.write_pairs(night)
    build.build_index(night)
    first = step.evaluate(night)
    generations.publish_index(night, {"item_embeddings": 1})
    assert not first.figures["carried"]

    def stamped(run_id):
        return {key: (row.value, row.ci_low, row.ci_high, row.n_queries, row.pool_size) for key, row in rows_of(warehouse, run_id).items()}

    second = make_night("night-2", evaluate=options)
    build.build_index(second)
    with monkeypatch.context() as patch:
        patch.setattr(step, "measure", None)  # would fail if it were called
        again = step.evaluate(second)
    timed = {"carried", "evaluate_seconds", "gate"}  # the gate judges the second night against the first
    assert again.figures["carried"] and stamped("night-2") == stamped("night-1")
    figures = ({k: v for k, v in result.figures.items() if k not in timed} for result in (again, first))
    assert len({json.dumps(of_night, sort_keys=True) for of_night in figures}) == 1
    assert (again.rows_in, again.rows_out) == (first.rows_in, first.rows_out)

    # another setting, and other pairs: measured again
    wider = make_night("night-3", evaluate=options | {"level": 0.9})
    build.build_index(wider)
    assert not step.evaluate(wider).figures["carried"]
    data.write_pairs(second, data.pairs()[:40])
    assert not step.evaluate(second).figures["carried"]
