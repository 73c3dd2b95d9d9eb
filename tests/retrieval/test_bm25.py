"""BM25 is the formula of its docstring, and an index that is read again gives the same scores."""

import math
import shutil

import numpy as np
import pytest

from tgq.retrieval.bm25 import K1, POSTINGS, WORDS, B, TextIndex, best_rows, places, places_among, words_of
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


@pytest.mark.parametrize("texts", [TEXTS, ["", ""], []])
@pytest.mark.parametrize("place", ["local", "memory://bm25"])
def test_an_index_in_a_folder_or_an_object_store_gives_the_same(tmp_path, place, texts):
    folder, index = str(tmp_path / "index") if place == "local" else f"{place}/{len(texts)}", TextIndex.build(texts)
    index.save(folder)
    loaded = TextIndex.load(folder)
    assert len(loaded) == len(texts)
    for query in ("red shirt", "mug", "absent", "red red CAFE"):
        np.testing.assert_array_equal(loaded.scores(query), index.scores(query))
    assert bool(loaded.scores("cafe").any()) == (texts == TEXTS)


def test_a_local_index_is_mapped(tmp_path):
    TextIndex.build(TEXTS).save(str(tmp_path))
    loaded, path = TextIndex.load(str(tmp_path)), tmp_path / POSTINGS
    assert loaded.scores("red").any()
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert not loaded.scores("red").any(), "the postings are those of the file, not of a copy"


@pytest.mark.parametrize("content", [b"", b"half", None])
@pytest.mark.parametrize("name", [POSTINGS, WORDS])
def test_a_damaged_index_is_an_error(tmp_path, name, content):
    TextIndex.build(TEXTS).save(str(tmp_path))
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content and whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="no complete index"):
        TextIndex.load(str(tmp_path))


@pytest.mark.parametrize("name", [POSTINGS, WORDS])
def test_files_of_two_indexes_are_no_index(tmp_path, name):
    for folder, texts in (("one", TEXTS), ("other", TEXTS[:2])):
        TextIndex.build(texts).save(str(tmp_path / folder))
    shutil.copy(tmp_path / "other" / name, tmp_path / "one" / name)
    with pytest.raises(ValueError, match="no complete index"):
        TextIndex.load(str(tmp_path / "one"))
    shutil.copy(tmp_path / "one" / (POSTINGS if name == WORDS else WORDS), tmp_path / "one" / name)
    with pytest.raises(ValueError, match="no complete index"):
        TextIndex.load(str(tmp_path / "one"))


def test_places_are_by_score_and_then_by_row():
    index = TextIndex.build(["red shoe", "Red, red MUG", "", "blue shoe", "red shoe", "size 8", "red shoe lamp lamp"])
    scores = index.scores("red shoe")
    assert scores[0] == scores[4] > scores[6] > scores[2] == 0
    assert places(scores, np.array([4, 0, 6, 2, 5])).tolist() == [2, 1, 3, 6, 7]
    assert places_among(scores, np.array([4, 2]), np.array([4, 2, 0, 5])).tolist() == [2, 3]
    assert places(index.scores("unknown"), np.arange(7)).tolist() == list(range(1, 8)), "without a known word rows decide"


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
