"""BM25 is the formula of its docstring, and an index that is read again gives the same scores."""

import math

import numpy as np
import pytest

from tgq.retrieval.bm25 import K1, B, TextIndex, best_rows, words_of
from tgq.retrieval.fusion import reciprocal_rank_fusion

TEXTS = ["Red shirt Acme", "red red shoe, size 8", "Blue mug", "", "Café crème mug", "shirt"]


def formula(query, texts):
    """BM25 in plain Python."""
    rows = [words_of(text) for text in texts]
    mean = sum(map(len, rows)) / len(rows)
    out = []
    for row in rows:
        score = 0.0
        for word in words_of(query):
            n, f = sum(word in other for other in rows), row.count(word)
            idf = math.log(1 + (len(rows) - n + 0.5) / (n + 0.5))
            score += idf * f / (f + K1 * (1 - B + B * len(row) / mean))
        out.append(score)
    return np.array(out)


@pytest.mark.parametrize("query", ["red", "red shirt", "RED red mug 8", "cafe", "CRE\u0300ME mug", "absent mug"])
def test_scores_are_the_formula(query):
    np.testing.assert_allclose(TextIndex.build(TEXTS).scores(query), formula(query, TEXTS), rtol=1e-5)


def test_a_query_without_known_words_finds_nothing():
    index = TextIndex.build(TEXTS)
    for query in ("absent", "?!", ""):
        assert not index.scores(query).any() and len(best_rows(index.scores(query), 5)) == 0


@pytest.mark.parametrize("texts", [["", ""], ["..."], ["one"]])
def test_texts_with_few_words_or_none(texts, recwarn):
    index = TextIndex.build(texts)
    expected = formula("one two", texts) if texts == ["one"] else [0] * len(texts)
    assert len(index) == len(texts) and index.scores("one two").tolist() == pytest.approx(expected) and not recwarn.list


def test_words_have_no_case_and_no_accents():
    assert words_of("Caf\u00e9-CR\u00c8ME 2XL, \u00bd") == words_of("cafe\u0301 cre\u0300me 2xl 1\u20442") == ["cafe", "creme", "2xl", "1", "2"]
    assert words_of("Stra\u00dfe") == ["strasse"]


def test_a_saved_index_is_mapped_and_gives_the_same(tmp_path):
    index = TextIndex.build(TEXTS)
    index.save(tmp_path / "index")
    loaded = TextIndex.load(tmp_path / "index")
    assert isinstance(loaded._index.scores["data"], np.memmap) and len(loaded) == len(TEXTS)
    for query in ("red shirt", "mug", "absent"):
        np.testing.assert_array_equal(loaded.scores(query), index.scores(query))


@pytest.mark.parametrize("name, content", [("data.csc.index.npy", b""), ("params.index.json", b"{"), ("indptr.csc.index.npy", None), ("vocab.index.json", b"")])
def test_a_damaged_index_is_an_error(tmp_path, name, content):
    TextIndex.build(TEXTS).save(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="no complete index"):
        TextIndex.load(tmp_path)


def test_best_rows():
    scores = np.array([0, 2, 1, 2, 0, 3], np.float32)
    assert best_rows(scores, 3).tolist() == [5, 1, 3] and best_rows(scores, 9).tolist() == [5, 1, 3, 2]
    assert best_rows(scores, 9, np.array([0, 2, 3])).tolist() == [3, 2]


def test_fusion_is_the_sum_of_reciprocal_ranks():
    found = reciprocal_rank_fusion([["a", "b", "c"], ["c", "d"]])
    assert [item for item, _ in found] == ["c", "a", "b", "d"]  # b and d are both second once; b stands in the first ranking
    assert dict(found) == pytest.approx({"a": 1 / 61, "b": 1 / 62, "c": 1 / 63 + 1 / 61, "d": 1 / 62})
    assert reciprocal_rank_fusion([[], []]) == []
    assert reciprocal_rank_fusion([["a", "b"], ["b"]], k=1)[0][0] == "b"
