"""Search queries in a night's evaluation: exact agreement with ir_measures, slices, the gate, and nights that measure the same."""

import json
import shutil

import numpy as np
import pytest
import torch
from pyspark.sql import functions as F

from tests.evaluation.search_reference import bm25, measured
from tests.fixtures.nights import append, unit
from tgq.errors import ModelError
from tgq.evaluation import evaluate as step
from tgq.evaluation.averages import Averages
from tgq.evaluation.carrying import search_examples
from tgq.evaluation.search import reading
from tgq.evaluation.search.hashing import xxhash64
from tgq.evaluation.search.held import Held
from tgq.evaluation.search.scoring import COMPARED, SearchScoring, systems_of
from tgq.evaluation.search.stored import Stored
from tgq.evaluation.search.vectors import QueryEncoder
from tgq.index import build, generations
from tgq.index.pool import gather_items, write_pool
from tgq.metrics.names import metric_key, task_of
from tgq.query_tower.config import FOLDER, QueryTowerConfig
from tgq.query_tower.tower import QueryTower
from tgq.registry.loading import load_query_tower, load_text_tower, versions_of
from tgq.retrieval.bm25 import TextIndex

OPTIONS = {"replicates": 50, "min_slice_queries": 3, "slices": ()}
GRADES = {"irrelevant_grade": 1.0, "relevant_grade": 3.0}
COLOURS = ("red", "green", "blue", "black", "white")
KINDS = ("shoe", "mug", "lamp", "shirt")
N, GONE, BARE = 90, 7, 8  # items; one that is inactive, one without a vector


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, tiny_encoder):
    """The tiny encoder with a query tower."""
    folder = shutil.copytree(tiny_encoder, tmp_path_factory.mktemp("search") / "encoder")
    torch.manual_seed(5)
    tower = QueryTower(QueryTowerConfig(versions_of(str(folder))[0], 16, text="towers/text"), relative_to=folder)
    tower.save(folder / FOLDER)
    return str(folder)


@pytest.fixture
def shop(make_night, items, encoder):
    """shop(run_id, **sections): a night with N items, 24 texts of queries and their judgments; the tables are filled by the first one."""
    data = items(n=N, styles=15)
    data.title = [f"{COLOURS[i % 5]} {KINDS[i % 4]}" + (" sale" if i % 7 == 0 else "") for i in range(N)]
    data.vectors[40:50] = data.vectors[40]  # ties
    data.active[GONE] = False
    data.image_hash[3] = None
    data.text = np.random.default_rng(2).standard_normal((N, 24)).astype(np.float16)

    def make(run_id="night-1", **sections):
        night = make_night(run_id, **{"evaluate": OPTIONS, "queries": GRADES} | sections)
        night = night.__class__(night.spark, night.settings.model_copy(
            update={"encoder": night.settings.encoder.model_copy(update={"path": encoder})}), night.warehouse, run_id, night.started_at)  # fmt: skip
        if run_id == "night-1":
            data.write(night)
            append_texts(night, data)
            append(night, "relevance_queries", data.queries)
            append(night, "query_judgments", data.judgments)
        return night

    rng = np.random.default_rng(1)
    texts = [f"{c} {k}" for c in COLOURS for k in KINDS] + ["red", "sale mug black today now", "nothing known here", "lamp"]
    data.queries = [
        dict(query_id=f"q{i:02d}", text=text, normalised_text=text, split="train" if i == 20 else "test", source="human" if i % 3 else "generated",
             popularity=None if i == 1 else float(max(1, 40 - 8 * i)), run_id="r")
        for i, text in enumerate(texts)
    ]  # fmt: skip
    data.queries.append(data.queries[2] | {"query_id": "q-again", "text": "RED  LAMP"})
    data.judgments = []
    for query in data.queries[:-1]:
        rows, at = rng.choice(N, 12, replace=False), int(query["query_id"][1:])
        rows = np.append(rows, [GONE, BARE] if at in (0, 5) else []).astype(int)
        for n, row in enumerate(dict.fromkeys(rows.tolist())):
            grade = float(rng.integers(1, 4)) if at % 6 else float(1 + (n < 2))  # of every sixth query no item is relevant
            data.judgments.append(dict(query_id=query["query_id"], item_id=data.ids[row], grade=grade, weight=1.0, source="judgments", run_id="r"))
    data.judgments += [judgment | {"query_id": "q-again"} for judgment in data.judgments if judgment["query_id"] == "q02"]
    data.judgments.append(dict(query_id="q03", item_id=data.ids[89], grade=3.0, weight=0.0, source="clicks", run_id="r"))  # not judged
    make.data = data
    return make


def append_texts(night, data):
    """The texts that the encoder reads; of one item another title than the catalog's, as if it was masked."""
    rows = [(data.ids[i], data.title[i] if i != 5 else "mug") for i in range(N)]
    night.spark.createDataFrame(rows, "item_id string, metadata_text string").createOrReplaceTempView("texts_of_test")
    night.spark.sql("MERGE INTO tgq.catalog_items t USING texts_of_test s ON t.item_id = s.item_id "
                    "WHEN MATCHED THEN UPDATE SET metadata_text = s.metadata_text")
    night.spark.sql(f"DELETE FROM tgq.item_embeddings WHERE item_id = '{data.ids[BARE]}'")


def rows_of(night, task="query_item"):
    rows = [row for row in night.warehouse.rows("retrieval_metrics", {"run_id": night.run_id}) if task_of(row) == task]
    assert len({(r["model_version"], r["slice"], r["metric"], r["k"]) for r in rows}) == len(rows)
    return {(r["model_version"], r["slice"], metric_key(r)): r for r in rows}


def expected(night, data, pool):
    """(query ids, system -> values by ir_measures), with the pool's own order."""
    order = gather_items(pool, ("item_id",), np.arange(pool.rows))["item_id"].to_pylist()
    rows = [data.ids.index(i) for i in order]
    asked = [query for query in data.queries if query["split"] == "test"]
    texts = [query["text"] for query in asked]
    gains, lost = [], []
    for query in asked:
        own = {j["item_id"]: j["grade"] - 1 for j in data.judgments if j["query_id"] == query["query_id"] and j["weight"] > 0}
        gains.append({order.index(i): gain for i, gain in own.items() if i in order})
        lost.append([gain for i, gain in own.items() if i == data.ids[BARE] and gain > 0])
    vectors = load_query_tower(night.model_folder).encode_queries(texts)
    with torch.no_grad():
        frozen = unit(load_text_tower(night.model_folder).pooled(texts).numpy())
    features = unit(data.text[rows].astype(np.float32))
    words = [data.title[i] if i != 5 else "mug" for i in rows]
    scores = {
        pool.model_version: np.round(vectors.astype(np.float64) @ data.vectors[rows].T.astype(np.float64), 6),
        "frozen_text": np.round(frozen.astype(np.float64) @ features.T.astype(np.float64), 6),
        "bm25": np.round(np.stack([bm25(words, text) for text in texts]), 5),
    }
    return asked, {system: measured(of_system, gains, 2, lost) for system, of_system in scores.items()}


def test_metrics_are_those_of_ir_measures_for_every_system_and_slice(shop):
    night, data = shop(), shop.data
    build.build_index(night)
    result = step.evaluate(night)
    pool = write_pool(night)
    assert pool.rows == N - 2
    asked, systems = expected(night, data, pool)
    rows = rows_of(night)
    assert result.rows_in == len(asked) == result.figures["search"]["queries"] == 24
    assert result.figures["search"]["positives_without_embedding"] == sum(
        j["item_id"] == data.ids[BARE] and j["grade"] > 1 for j in data.judgments) > 0  # fmt: skip
    for system, by_metric in systems.items():
        for name, values in by_metric.items():
            known = [v for v in values if v is not None]
            row = rows[system, "all", f"query_{name}"]
            assert row["value"] == pytest.approx(np.mean(known), abs=1e-9), (system, name)
            assert (row["n_queries"], row["pool_size"]) == (len(known), N - 2)
            assert row["ci_low"] <= row["value"] <= row["ci_high"]
    assert 0 < len([v for v in systems["bm25"]["mrr"] if v is not None]) < len(asked), "queries with gains only have no MRR"
    assert not any(metric in ("coverage", "ann_recall") for _, _, metric in rows)
    assert {metric_key(r) for r in night.warehouse.rows("retrieval_metrics", {}) if task_of(r) == "item_item"} == {"coverage", "ann_recall@10"}

    judged = {(j["query_id"], j["item_id"]): j["grade"] for j in data.judgments if j["weight"] > 0 and j["item_id"] != data.ids[GONE]}

    def best(query):
        found = [(-grade, item == data.ids[BARE], item) for (q, item), grade in judged.items() if q == query["query_id"]]
        return data.ids.index(min(found)[2])

    searched = {p: p * sum(q["popularity"] == p for q in asked) for p in {q["popularity"] for q in asked} - {None}}

    def share(query):
        p, third = query["popularity"], sum(searched.values()) / 3
        if p is None:
            return None
        more, less = (sum(n for other, n in searched.items() if (other > p) == above and other != p) for above in (True, False))
        return "head" if more < third else "tail" if less < third else "torso"

    values = systems[pool.model_version]["ndcg@10"]
    slices = {
        "source": lambda q: q["source"], "has_picture": lambda q: str(data.image_hash[best(q)] is not None).lower(), "popularity": share,
        "length": lambda q: ("0", "1", "2", "3", "4+")[min(4, len(q["normalised_text"].split()))],
        "category": lambda q: data.category[best(q)].split(" >")[0],
    }  # fmt: skip
    small = 0
    for name, value_of in slices.items():
        members = {}
        for query, value in zip(asked, values, strict=True):
            members.setdefault(value_of(query), []).append(value)
        assert len(members) > 1 or name == "has_picture"
        for value, inside in members.items():
            row = rows.get((pool.model_version, f"{name}={value}", "query_ndcg@10"))
            if value is None or len(inside) < 3:
                assert row is None
                small += value is not None
            else:
                assert row["value"] == pytest.approx(np.mean(inside)) and row["n_queries"] == len(inside), (name, value)
    assert result.figures["search"]["slices_too_small"] == small > 0

    difference = next(d for d in result.figures["search"]["differences"] if (d["baseline"], d["metric"], d["k"]) == ("bm25", "ndcg", 10))
    assert difference["value"] == pytest.approx(np.mean(values) - np.mean(systems["bm25"]["ndcg@10"]))
    assert difference["ci_low"] < difference["value"] < difference["ci_high"] and result.figures["differences"] == []

    examples = search_examples(night)
    assert [e["ndcg"] for e in examples if e["choice"] == "best"] == pytest.approx(sorted(values, reverse=True)[:6])
    assert [e["ndcg"] for e in examples if e["choice"] == "worst"] == pytest.approx(sorted(values)[:6])
    for example in examples:
        own = {item: grade for (q, item), grade in judged.items() if q == example["query_id"]}
        assert example["marks"] == ["" if i not in own else "hit" if own[i] > 1 else "miss" for i in example["item_ids"]]
        assert example["scores"] == sorted(example["scores"], reverse=True) and len(example["scores"]) == 8
        assert own[example["best_item"]] == max(own.values())


def test_grades_that_float32_does_not_hold_are_compared_as_written(shop):
    night, data = shop(queries={"irrelevant_grade": 1.33, "relevant_grade": 2.67}), shop.data
    grades = {0: 1.33, 1: 2.66, 2: 2.67}
    append(night, "relevance_queries", [data.queries[3] | {"query_id": "fractions"}])
    append(night, "query_judgments", [data.judgments[0] | {"query_id": "fractions", "item_id": data.ids[i], "grade": grade} for i, grade in grades.items()])
    queries = reading.judged_queries(night, write_pool(night), night.staging("fractions")).queries.to_pylist()
    (row,) = (row for row in queries if row["query_id"] == "fractions")
    assert sorted((p["gain"], p["relevant"]) for p in row["positives"]) == [(1.33, False), (1.34, True)] and len(row["ignored"]) == 1


def in_order(table):
    return sorted(table.to_pylist(), key=lambda row: (row.get("choice", ""), row["query_id"]))


@pytest.mark.parametrize("most", [None, 10])
def test_queries_in_the_driver_and_those_in_parquet_give_the_same(shop, monkeypatch, most):
    night = shop(evaluate=OPTIONS | {"max_queries": most})
    append(night, "relevance_queries", [
        dict(query_id="long", text="Ein sehr langer Satz über rote Schuhe", normalised_text="ein sehr langer satz über rote schuhe", split="test",
             source="human", popularity=3.0, run_id="r")
    ])  # fmt: skip
    append(night, "query_judgments", [dict(query_id="long", item_id=shop.data.ids[i], grade=2.0, weight=1.0, source="clicks", run_id="r") for i in (BARE, 4)])
    pool = write_pool(night)
    scoring = SearchScoring(pool, tuple(systems_of(pool, True, True)), (1, 10), QueryEncoder.of(night), night.staging("bm25"))
    options, found = night.settings.evaluate, []
    for kind, little in ((Held, reading.LITTLE_ITEMS), (Stored, 0)):
        monkeypatch.setattr(reading, "LITTLE_ITEMS", little)
        assert reading.build_index(night, pool, scoring.index) == pool.rows
        words = TextIndex.load(scoring.index)
        queries = reading.judged_queries(night, pool, night.staging("both"))
        scores = queries.score(scoring, options.query_slices)
        slices, small = scores.large_slices(options)
        averages = Averages(scoring.systems, scoring.columns, COMPARED, slices, options.replicates, options.seed, options.level)
        rows = {(r["system"], r["slice"], r["metric"], r["k"]): (r["value"], r["ci_low"], r["ci_high"], r["n_queries"]) for r in scores.averages(averages)}
        extremes = in_order(scores.extremes(3, options.seed))
        assert isinstance(queries, kind) and queries.totals.queries == (most or 25) and len(extremes) == 6
        tables = (queries.queries if kind is Held else queries.queries.toArrow()), (scores.scored if kind is Held else scores.scored.toArrow())
        found.append((rows, (slices, small, queries.totals, extremes, *map(in_order, tables), [words.scores(w).tolist() for w in ("red", "mug sale")])))
        kept = queries.where(lambda text: text.startswith("red")).totals
        found[-1][1][-1].append((kept.queries, kept.positives))
    (held, same), (stored, others) = found
    assert held.keys() == stored.keys() and held
    for key, values in held.items():
        assert values == pytest.approx(stored[key], nan_ok=True, abs=1e-9), key
    for row, other in zip(same[5], others[5], strict=True):  # scores of vectors depend in their last digit on the batch
        assert np.frombuffer(row.pop("metrics")) == pytest.approx(np.frombuffer(other.pop("metrics")), nan_ok=True, abs=1e-9)
        assert row.pop("ndcg") == pytest.approx(other.pop("ndcg"), abs=1e-9)
    assert same == others


@pytest.mark.parametrize("seed", [None, 0, 7, -3, 2**40])
def test_the_hash_of_a_text_is_that_of_spark(spark, seed):
    texts = ["", "a", "red", "red shoes", "12345678", "naïve café", "x" * 31, "y" * 32, "z" * 67, "語" * 40, "0123456789ab"]
    hashed = F.xxhash64("text") if seed is None else F.xxhash64("text", F.lit(seed))
    rows = spark.createDataFrame([(text,) for text in texts], "text string").select("text", hashed.alias("hash")).collect()
    assert {row["text"]: row["hash"] for row in rows} == {text: xxhash64(text, seed) for text in texts}


def test_a_night_is_refused_by_the_floor_of_a_metric_of_queries(shop):
    night = shop(gate={"floors": {"query_ndcg@10": 0.99, "query_judged_ndcg@10": 0.01}})
    build.build_index(night)
    gate = step.evaluate(night).figures["gate"]
    assert not gate["passed"] and len(gate["reasons"]) == 1 and gate["reasons"][0].startswith("query_ndcg@10 is 0.")


def test_a_night_without_queries_is_as_before_and_its_floor_is_not_judged(make_night, items):
    night = make_night(evaluate=OPTIONS, gate={"floors": {"query_ndcg@10": 0.3}, "max_relative_drop": {"query_mrr": 0.1}})
    items(n=30).write(night)
    build.build_index(night)
    result = step.evaluate(night)
    assert "search" not in result.figures and result.rows_in == 0 and rows_of(night) == {} and search_examples(night) == []
    assert result.figures["gate"]["passed"] and {note.split(":")[0] for note in result.figures["gate"]["notes"]} == {
        "query_ndcg@10 was not judged", "query_mrr was not judged"
    }  # fmt: skip


def test_an_unchanged_night_carries_the_figures_until_a_judgment_or_the_tower_changes(shop, encoder):
    night = shop()
    build.build_index(night)
    first = step.evaluate(night)
    generations.publish_index(night, {"item_embeddings": 1})
    second = shop("night-2")
    build.build_index(second)
    again = step.evaluate(second)
    assert not first.figures["carried"] and again.figures["carried"] and again.rows_in == first.rows_in
    assert json.dumps(again.figures["search"], sort_keys=True) == json.dumps(first.figures["search"], sort_keys=True)
    assert search_examples(second) == search_examples(night) != []
    figures = ({key: (row["value"], row["ci_low"], row["n_queries"]) for key, row in rows_of(n).items()} for n in (night, second))
    assert next(figures) == next(figures) != {}
    for other in ({"queries": GRADES | {"relevant_grade": 2.0}}, {"evaluate": OPTIONS | {"bm25": False}}):
        assert step.carrying.measured_before(second, key_of(shop("night-3", **other))) is None
    before = key_of(second)
    append(second, "query_judgments", [shop.data.judgments[0] | {"query_id": "q03", "item_id": shop.data.ids[88]}])
    assert before != key_of(second)


def key_of(night):
    pool = write_pool(night)
    return step.carrying.key_of(night, pool, step.staged_shards(night) or [])


def test_a_tower_of_another_model_is_an_error(shop, encoder, tmp_path):
    night = shop()
    other = shutil.copytree(encoder, tmp_path / "other")
    config = other / FOLDER / "config.json"
    config.write_text(config.read_text().replace(versions_of(encoder)[0], "0" * 16))
    settings = night.settings.model_copy(update={"encoder": night.settings.encoder.model_copy(update={"path": str(other)})})
    with pytest.raises(ModelError, match="is for item embeddings of model 0000000000000000, these are of"):
        step.evaluate(night.__class__(night.spark, settings, night.warehouse, night.run_id, night.started_at))


def test_without_a_query_tower_the_encoder_reads_a_query_as_a_title(tiny_encoder):
    from tgq.encoder.text import metadata_text
    from tgq.evaluation.search.vectors import QueryEncoder
    from tgq.registry.loading import load_encoder

    texts = ["red shoe", "a much longer query about a blue cotton shirt", "mug"]
    found = QueryEncoder(str(tiny_encoder), "cpu", "float32").vectors("embedding", texts)
    encoder = load_encoder(str(tiny_encoder), "cpu", "float32")
    for text, vector in zip(texts, found, strict=True):
        alone = encoder.encode(None, torch.tensor([-1]), [metadata_text(text, None, None, None)], [""]).embedding.numpy()[0]
        np.testing.assert_allclose(vector, alone, atol=1e-5)


@pytest.mark.parametrize("trained_layers", [0, 1])
def test_a_tower_over_the_frozen_checkpoint_takes_its_features(tiny_encoder, tmp_path, monkeypatch, trained_layers):
    from tgq.encoder.towers.text import TextTower

    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    config = QueryTowerConfig(versions_of(str(folder))[0], 16, text="towers/text", text_length=8, trained_layers=trained_layers)
    QueryTower(config, relative_to=folder).save(folder / FOLDER)
    encoder = QueryEncoder(str(folder), "cpu", "float32")
    odd = ["a much longer query about a blue cotton shirt", "two  blanks", "cafe\u0301 mug"]
    texts = ["red shoe", *odd, "mug"]
    expected = {kind: encoder.vectors(kind, texts) for kind in ("embedding", "text")}
    run, seen = TextTower._tokenized, []
    monkeypatch.setattr(TextTower, "_tokenized", lambda tower, texts: seen.extend(texts) or run(tower, texts))
    found = encoder.all_vectors(["embedding", "text"], texts)
    for kind, vectors in expected.items():
        np.testing.assert_allclose(found[kind], vectors, atol=1e-6)
    assert len(seen) == 2 * len(texts) if trained_layers else len(seen) == len(texts) + len(odd), "only texts that both read alike are shared"
