"""Training a query tower: the loss, the closed-form start, and stages that find what a made-up shop hides."""

import ir_measures
import numpy as np
import pytest
import torch
from ir_measures import RR, nDCG

from tgq.encoder.connectors.moe_bilinear import BilinearExperts
from tgq.errors import SourceError, UsageError
from tgq.query_tower.config import QueryTowerConfig
from tgq.query_tower.tower import QueryTower
from tgq.query_training.config import QueryTrainConfig
from tgq.query_training.data.judged import Items, JudgedQueries
from tgq.query_training.data.split import is_validation
from tgq.query_training.initialisation import side_targets
from tgq.query_training.item_side import ItemSide
from tgq.query_training.loss import listwise
from tgq.query_training.measure import graded_metrics
from tgq.query_training.trainer import QuerySets, train_queries

DIM, N = 12, 60
NOUNS, COLOURS = ("shirt", "shoe", "mug", "bag", "lamp"), ("red", "blue", "green")


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def tower(tiny_encoder_dir):
    torch.manual_seed(0)
    return QueryTower(QueryTowerConfig("0" * 16, DIM, text="towers/text", trained_layers=1), relative_to=tiny_encoder_dir).eval()


@pytest.fixture
def shop(tower):
    """Items whose text feature knows the noun and whose picture feature knows the colour; embeddings hold both."""
    rng = np.random.default_rng(1)
    noun, colour = np.arange(N) % len(NOUNS), np.arange(N) // len(NOUNS) % len(COLOURS)
    of_noun, of_colour = rng.normal(size=(len(NOUNS), 5)), rng.normal(size=(len(COLOURS), 5))
    text, image = of_noun[noun] + 0.05 * rng.normal(size=(N, 5)), of_colour[colour] + 0.05 * rng.normal(size=(N, 5))
    vectors = unit(np.concatenate([text, image, np.zeros((N, DIM - 10))], axis=1))
    items = Items(vectors.astype(np.float32), np.zeros((N, 0), np.float32), image.astype(np.float32))

    def queries(words):
        texts = [f"{COLOURS[c]} {NOUNS[n]}{w}" for w in words for n in range(len(NOUNS)) for c in range(len(COLOURS))]
        keys = [(n, c) for _ in words for n in range(len(NOUNS)) for c in range(len(COLOURS))]
        lists = [[(i, 2.0 if colour[i] == c else 1.0) for i in np.flatnonzero(noun == n)] for n, c in keys]
        offsets = np.concatenate([[0], np.cumsum([len(each) for each in lists])])
        flat = [pair for each in lists for pair in each]
        return JudgedQueries(texts, offsets, np.array([i for i, _ in flat]), np.array([g for _, g in flat]), np.full((len(texts), 0), -1))

    generated = JudgedQueries.of_single_items([f"{NOUNS[n]} sale" for n in noun], np.arange(N))
    return items, QuerySets(queries(("", " new")), queries((" sale",)), generated)


def test_listwise_is_cross_entropy_with_the_gains():
    logits, gains = torch.randn(3, 4), torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0], [2, 0, 0, 2.0]])
    expected = (torch.nn.functional.cross_entropy(logits[:1], torch.tensor([1])) - torch.log_softmax(logits[2], 0)[[0, 3]].mean()) / 2
    assert torch.allclose(listwise(logits, gains), expected), "a query without a gain adds nothing"
    assert listwise(logits, torch.zeros(3, 4)) == 0


def test_metrics_agree_with_another_implementation():
    rng = np.random.default_rng(0)
    vectors, asking = unit(rng.normal(size=(200, 8))).astype(np.float32), unit(rng.normal(size=(9, 8))).astype(np.float32)
    items = [rng.choice(200, 12, replace=False) for _ in range(9)]
    gains = np.concatenate([[3.0, *rng.integers(0, 4, 11)] for _ in range(9)])
    queries = JudgedQueries([str(i) for i in range(9)], np.arange(0, 109, 12), np.concatenate(items), gains, np.full((9, 0), -1))
    found = graded_metrics(asking, vectors, queries)
    run = [ir_measures.ScoredDoc(str(q), str(i), float(s)) for q, row in enumerate(asking @ vectors.T) for i, s in enumerate(row)]
    qrels = [ir_measures.Qrel(str(q), str(i), int(g)) for q, i, g in zip(queries.rows, queries.items, gains, strict=True)]
    for name, measure in (("ndcg@1", nDCG @ 1), ("ndcg@10", nDCG @ 10), ("mrr", RR)):
        assert found[name].mean() == pytest.approx(ir_measures.calc_aggregate([measure], qrels, run)[measure], abs=1e-6), name


def test_equal_scores_count_against_an_item():
    queries = JudgedQueries(["a"], np.array([0, 1]), np.array([3]), np.ones(1), np.full((1, 0), -1))
    assert graded_metrics(np.ones((1, 2), np.float32), np.ones((5, 2), np.float32), queries)["mrr"][0] == pytest.approx(1 / 5)


def test_training_finds_the_items_and_keeps_the_best_weights(tower, shop):
    items, sets = shop
    config = QueryTrainConfig(steps=40, batch=16, others=32, trained_layers=1, lr=1e-2, layers_lr=3e-3, evaluate_every=20)
    logged = []
    history = train_queries(tower, items, sets, config, log=lambda stage, step, values: logged.append((stage, step)))
    assert list(dict.fromkeys(row["stage"] for row in history)) == ["start", "domain", "picture", "both", "fusion"], "no item has a text feature"
    assert logged == [(row["stage"], row["step"]) for row in history]
    best = max(row["validation_ndcg"] for row in history)
    final = graded_metrics(tower.encode_queries(list(sets.validation.texts)), items.vectors, sets.validation)["ndcg@10"].mean()
    assert final == pytest.approx(best, abs=0.02), "the best weights, rounded to float16"
    assert best > history[0]["validation_ndcg"] + 0.01, "gradient steps improve on the closed-form start"
    assert all(torch.equal(value, value.half().float()) for value in tower.own_state().values())


def test_the_same_seed_gives_the_same_tower(tower, shop, tiny_encoder_dir):
    items, sets = shop
    config, weights = QueryTrainConfig(steps=3, batch=8, others=8, evaluate_every=3), []
    for _ in range(2):
        torch.manual_seed(5)
        again = QueryTower(tower.config, relative_to=tiny_encoder_dir).eval()
        train_queries(again, items, sets, config)
        weights.append(again.own_state())
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())


def test_without_pictures_or_judged_queries_the_other_stages_run(tower, shop):
    items, sets = shop
    plain = Items(items.vectors, items.text, np.zeros((N, 0), np.float32))
    empty = sets.training.subset(np.zeros(0, np.int64))
    history = train_queries(tower, plain, QuerySets(empty, sets.validation, sets.generated), QueryTrainConfig(steps=2, batch=4, others=8))
    assert [row["stage"] for row in history] == ["start", "domain", "fusion"]
    with pytest.raises(SourceError, match="0 queries to train on"):
        train_queries(tower, plain, QuerySets(empty, sets.validation, empty), QueryTrainConfig())


def test_generated_queries_keep_what_judged_ones_do_not_cover(tower, shop, tiny_encoder_dir):
    items, sets = shop
    shirts = np.flatnonzero([text.split()[1] == "shirt" for text in sets.training.texts])
    few, found = QuerySets(sets.training.subset(shirts), sets.validation.subset(shirts[shirts < len(sets.validation)]), sets.generated), {}
    for weight in (0.0, 2.0):
        torch.manual_seed(0)
        trained = QueryTower(tower.config, relative_to=tiny_encoder_dir).eval()
        config = QueryTrainConfig(stages="fusion", steps=40, batch=16, others=32, lr=1e-2, evaluate_every=40, generated_weight=weight)
        train_queries(trained, items, few, config)
        found[weight] = np.sum(trained.encode_queries(sets.generated.texts) * items.vectors, axis=1).mean()
    assert found[2.0] > found[0.0] + 0.02, "cosine of generated queries and their items, of all nouns"


def test_a_joint_training_moves_the_items_and_keeps_the_best_side(tower, shop):
    items, sets = shop
    torch.manual_seed(0)
    text = np.random.default_rng(0).normal(size=(N, 6)).astype(np.float32)
    items = Items(items.vectors, text, items.image)
    base = BilinearExperts(5, 6, DIM, image_root=False)
    side = ItemSide(base, items)
    items = Items(side.vectors(), text, items.image)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    config = QueryTrainConfig(stages="fusion", steps=40, batch=16, others=32, lr=3e-3, evaluate_every=20, joint=True)
    history = train_queries(tower, items, sets, config, side, own_text=False)
    assert any(not torch.equal(value, before[name]) for name, value in base.state_dict().items())
    found = graded_metrics(tower.encode_queries(list(sets.validation.texts)), side.vectors(), sets.validation)["ndcg@10"].mean()
    assert found == pytest.approx(max(row["validation_ndcg"] for row in history), abs=0.02)


def test_a_side_tells_what_it_knows_of_the_embeddings(shop):
    items, _ = shop
    target = side_targets(items.image, items.vectors)
    colour = np.arange(N) // len(NOUNS) % len(COLOURS)
    alike, other = (np.mean([target[i] @ target[j] for i in range(N) for j in range(i) if (colour[i] == colour[j]) == same]) for same in (True, False))
    assert alike > 0.95 > 0.5 > other
    assert not side_targets(np.zeros((N, 0), np.float32), items.vectors).any()


def test_an_unknown_stage_is_refused():
    with pytest.raises(UsageError, match="no stage 'dom'"):
        _ = QueryTrainConfig(stages="dom,fusion").order


def test_a_text_validates_whatever_its_case_and_blanks():
    texts = [f"red shirt {i}" for i in range(2000)]
    share = sum(is_validation(text, 0.15) for text in texts) / len(texts)
    assert 0.12 < share < 0.18
    assert all(is_validation(text, 0.15) == is_validation(f"  {text.upper()} ", 0.15) for text in texts[:200])
    assert not any(is_validation(text, 0.0) for text in texts) and all(is_validation(text, 1.0) for text in texts[:50])
