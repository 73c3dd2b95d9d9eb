"""Attribute-guided contrastive learning, against its formulas worked out the long way."""

import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.data.test_sampling import rows_of
from tests.training.loss.test_losses import unit
from tests.training.test_trainer import CONFIG, drawn, weights
from tgq.encoder.config import EncoderConfig
from tgq.encoder.model import TGQFormer
from tgq.encoder.tiny import write_tiny_encoder
from tgq.errors import ModelError
from tgq.training import worker
from tgq.training.data import batches
from tgq.training.data.dataset import TrainingSet
from tgq.training.loss.attributes import AttributeSimilarity, log_weights
from tgq.training.loss.losses import info_nce

SHIRTS = ["tops | color: blue, size: M", "tops | color: blue, size: S", "tops | color: red red, size: M", "", "hats | color: blue", "hats | color: green"]
MUGS = ["mugs | color: blue", "mugs | color: blue", "mugs | color: white, size: M", "plates | color: blue"]
WORDS = [text.replace("|", " ").replace(",", " ").replace(":", " ").lower().split() for text in SHIRTS + MUGS]


def rows_with(texts, catalogs) -> TrainingSet:
    """A training set whose rows have these attribute strings, each written once. The second metadata view must not be read."""
    unique = tuple(dict.fromkeys(["something else", *texts]))
    rows = rows_of([f"g{n}" for n in range(len(texts))], range(len(texts)), catalogs, [(0, 1), (2, 4)])
    return replace(rows, texts=unique, metadata_index=np.array([(unique.index(text), 0) for text in texts]))


@pytest.fixture
def shops():
    return rows_with(SHIRTS + MUGS, ["shirts"] * len(SHIRTS) + ["mugs"] * len(MUGS))


def bm25(query: list[str], item: list[str], catalog: list[list[str]]) -> float:
    """Lucene's BM25 of the words of an item for the words of a query."""
    n, mean, score = len(catalog), np.mean([len(words) for words in catalog]), 0.0
    for word in query:
        frequency, rows = Counter(item)[word], sum(word in words for words in catalog)
        score += math.log(1 + (n - rows + 0.5) / (rows + 0.5)) * frequency / (frequency + 1.5 * (0.25 + 0.75 * len(item) / mean))
    return score


def expected(words: list[list[str]]) -> np.ndarray:
    """The similarities of all rows of one catalog with these words."""
    limit = math.log(len(words) + 1) / 2.5
    return np.array([[min(1.0, bm25(q, c, words) / max(bm25(q, q, words), limit)) for c in words] for q in words])


def test_similarity_is_the_bm25_of_the_rows_of_a_catalog_as_a_share_of_the_querys_own(shops):
    similarity, first = AttributeSimilarity(shops), len(SHIRTS)
    shirts, mugs = np.arange(first), np.arange(first, len(shops))
    np.testing.assert_allclose(similarity.between(shirts, shirts), expected(WORDS[:first]), rtol=1e-5)
    np.testing.assert_allclose(similarity.between(mugs, mugs), expected(WORDS[first:]), rtol=1e-5)
    some = np.array([4, 0, 0])
    np.testing.assert_allclose(similarity.between(some, shirts[::-1]), expected(WORDS[:first])[some][:, ::-1], rtol=1e-5)
    found = similarity.between(shirts, shirts)
    assert (found[3] == 0).all() and (found[:, 3] == 0).all(), "a row without attributes is like no row, not even like itself"
    assert found[0, 2] > found[0, 4] > 0, "the size counts, although it is one letter"
    assert np.diag(found)[[0, 1, 2]].tolist() == [1, 1, 1]


def test_rows_may_all_have_no_attributes():
    none = AttributeSimilarity(rows_with(["", "", ""], ["a", "a", "b"]))
    assert (none.between(np.arange(3), np.arange(3)) == 0).all()
    some = np.array([0, 1])
    assert (none.log_weights(some, some[::-1], some[:0], 0.0).by_query == 1).all(), "w is e for all pairs"


def test_attributes_that_do_not_identify_an_item_are_not_alike():
    """100 rows in two departments: each row has half of the catalog's attribute strings."""
    rows = rows_with([f"department {'fruit' if n % 2 else 'dairy'}" for n in range(100)], ["a"] * 100)
    found = AttributeSimilarity(rows).between(np.array([0]), np.arange(100))[0]
    assert (found[0::2] == found[0]).all() and 0 < found[0] < 0.2 and found[1] < 0.02


def batch(rows, threshold):
    """Similarities and log weights of a batch of three pairs with two hard negatives."""
    left, right, hard = np.array([0, 3, 4]), np.array([1, 2, 5]), np.array([2, 5])
    return expected(WORDS[: len(SHIRTS)]), (left, right, hard), AttributeSimilarity(rows).log_weights(left, right, hard, threshold)


@pytest.mark.parametrize("threshold", [0.15, 0.5, 1.0])
def test_the_loss_is_that_of_the_paper_in_both_directions(shops, threshold):
    similarity, (left, right, hard), guidance = batch(shops, threshold)
    queries, positives, extra, scale = unit(3, 8, 1), unit(3, 8, 2), unit(2, 8, 3), torch.tensor(7.0)
    known, known_hard = torch.zeros(3, 3, dtype=torch.bool), torch.zeros(3, 2, dtype=torch.bool)
    known[0, 2] = known_hard[1, 0] = True
    cosines, hard_cosines, losses, masked = (7 * queries @ positives.T).tolist(), (7 * queries @ extra.T).tolist(), [], 0

    def term(query, candidate, scaled_cosine):
        return math.exp(1 + math.tanh(similarity[query, candidate])) * math.exp(scaled_cosine)

    for i in range(3):
        own = term(left[i], right[i], cosines[i][i])
        others = [(right[j], cosines[i][j]) for j in range(3) if j != i and not known[i, j]]
        others += [(hard[j], hard_cosines[i][j]) for j in range(2) if not known_hard[i, j]]
        kept = [(j, value) for j, value in others if similarity[right[i], j] <= threshold]
        masked += len(others) - len(kept)
        losses.append(-math.log(own / (own + sum(term(left[i], j, value) for j, value in kept))))
        own = term(right[i], left[i], cosines[i][i])
        others = [(left[j], cosines[j][i]) for j in range(3) if j != i and not known[j, i]]
        kept = [(j, value) for j, value in others if similarity[left[i], j] <= threshold]
        masked += len(others) - len(kept)
        losses.append(-math.log(own / (own + sum(term(right[i], j, value) for j, value in kept))))
    assert (masked > 0) == (threshold < 1)
    assert float(info_nce(queries, positives, scale, known, extra, known_hard, guidance)) == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_candidate_with_the_positives_attributes_is_no_negative_and_the_positive_stays(shops):
    alike = log_weights(np.full((2, 3), 0.5), np.array([[1.0, 0.95, 0.9], [0.2, 1.0, 0.91]]), 0.9)
    assert alike.isinf().tolist() == [[False, True, False], [False, False, True]]
    assert alike[0, 0] == pytest.approx(1 + math.tanh(0.5))
    everything = np.arange(len(SHIRTS))
    assert not AttributeSimilarity(shops).log_weights(everything, everything, everything, 1.0).by_query.isinf().any(), "1 masks none"


@pytest.mark.parametrize("hard", [0, 4])
def test_equal_weights_give_the_plain_loss(hard):
    queries, positives, scale, known = unit(5, 8, 1), unit(5, 8, 2), torch.tensor(7.0), torch.eye(5, dtype=torch.bool)
    known[0, 3] = True
    more = (unit(hard, 8, 3), torch.zeros(5, hard, dtype=torch.bool))
    guidance = log_weights(np.full((5, 5 + hard), 0.3), np.zeros((5, 5 + hard)), 0.9), log_weights(np.full((5, 5), 0.3), np.zeros((5, 5)), 0.9)
    plain, guided = (float(info_nce(queries, positives, scale, known, *more, given)) for given in (None, guidance))
    assert guided == pytest.approx(plain, rel=1e-6)


def test_sets_that_are_stored_joined_or_divided_keep_their_attributes(shops, tmp_path):
    everything, first = np.arange(len(shops)), len(SHIRTS)
    shops.save(tmp_path / "rows.npz")
    np.testing.assert_array_equal(*(AttributeSimilarity(rows).between(everything, everything) for rows in (shops, TrainingSet.load(tmp_path / "rows.npz"))))
    mugs = shops.subset(np.arange(first, len(shops)))
    np.testing.assert_allclose(AttributeSimilarity(mugs).between(*[np.arange(len(mugs))] * 2), expected(WORDS[first:]), rtol=1e-5)
    joined = AttributeSimilarity(TrainingSet.concatenate([mugs, shops.subset(np.arange(first))]))
    np.testing.assert_allclose(joined.between(*[np.arange(len(mugs), len(shops))] * 2), expected(WORDS[:first]), rtol=1e-5)
    part = np.array([4, 0, 2])
    fewer = AttributeSimilarity(shops.subset(part)).between(*[np.arange(3)] * 2)
    np.testing.assert_allclose(fewer, expected([WORDS[at] for at in part]), rtol=1e-5, err_msg="frequencies are those of the rows in the set")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"), dim=24)


def with_attributes(encoder) -> TrainingSet:
    """The drawn set, whose texts say a colour that a third of the groups have, a kind of six groups and the group itself."""
    rows = drawn(encoder)
    return replace(rows, texts=tuple(f"color {g % 3} kind {g // 6} code {g}" for g in (int(name[1:]) for name in rows.group)))


def test_training_with_attributes_learns_something_else_and_repeats_itself(folder):
    config = replace(CONFIG, lr=1e-2, hard=1)
    (plain, without), (once, guided), (again, _) = (weights(folder, replace(config, agcl=agcl), make=with_attributes) for agcl in (False, True, True))
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not all(torch.equal(once[name], plain[name]) for name in once)
    assert guided[0] == without[0], "the initialisation is the same"
    assert all(np.isfinite(values["loss"]) and 0 <= values["masked_by_attributes"] < 1 for values in guided[1:])
    assert "masked_by_attributes" not in without[1]
    fewer = weights(folder, replace(config, agcl=True, agcl_threshold=0.3), make=with_attributes)[1]
    assert fewer[-1]["masked_by_attributes"] > guided[-1]["masked_by_attributes"], "a lower threshold masks more"


def test_training_without_the_option_reads_no_attributes(folder, monkeypatch):
    monkeypatch.setattr(batches, "AttributeSimilarity", None)
    assert len(weights(folder, CONFIG)[1]) == 3


def test_a_checkpoint_of_other_attributes_is_refused(folder, tmp_path):
    path, config = tmp_path / "checkpoint.safetensors", replace(CONFIG, steps=2, agcl=True)
    weights(folder, config, path)
    weights(folder, config, path)
    with pytest.raises(ModelError, match="other data"):
        weights(folder, config, path, make=with_attributes)


def test_two_processes_have_the_curve_of_one(folder, tmp_path):
    config = replace(CONFIG, steps=2, hard=1, chunk=16, agcl=True, agcl_threshold=0.5)
    shape = EncoderConfig.read(folder)
    shape = replace(shape, vision=str(Path(folder, shape.vision).resolve()), text=str(Path(folder, shape.text).resolve()))
    rows = with_attributes(TGQFormer(shape))
    for processes in (1, 2):
        worker.prepare(tmp_path / str(processes), shape, config, rows, "cpu")
    worker.run(tmp_path / "1")
    group = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "tgq.training.worker", str(tmp_path / "2")]
    subprocess.run(group, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    one, two = (worker.read_curve(tmp_path / str(processes)) for processes in (1, 2))
    assert len(one) == 2 and one[-1]["masked_by_attributes"] > 0
    for single, shared in zip(one, two, strict=True):
        assert shared == pytest.approx(single, rel=1e-4, abs=1e-7)
