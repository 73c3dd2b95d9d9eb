"""BM25 over short texts: the words of a query against the words of each text, and ranks by its scores.

The formula is Lucene's (Kamphuis et al. 2020, "Which BM25 do you mean?"), as bm25s computes it: a word that n of N texts have, and that occurs
f times in a text of l words, adds `log(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + K1 * (1 - B + B * l / mean(l)))`.

An index in a folder or an object store is two Arrow files, with nothing pickled. Local ones are mapped, so processes share their pages.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tgq.storage import artifacts

K1, B = 1.5, 0.75  # saturation of repeated words, and correction for long texts; the values that bm25s proposes
FORMAT = 2  # raised when words, formula or files change, so that an index of another version is not read
POSTINGS, WORDS = "postings.arrow", "words.arrow"
_WORD = re.compile(r"\w+")  # bm25s's own pattern needs two characters, which would lose sizes such as S, M and 8


def words_of(text: str) -> list[str]:
    """The words of a text in lower case without accents, in their order; no stemming and no stop words.

    Accents are dropped because shoppers often leave them out. Scripts without blanks between words, such as Chinese, give one word per run.
    """
    if text.isascii():
        return _WORD.findall(text.lower())
    folded = unicodedata.normalize("NFKD", text).casefold()
    return _WORD.findall("".join(c for c in folded if not unicodedata.combining(c)))


@dataclass(frozen=True, eq=False)
class TextIndex:
    """A BM25 index of N texts, which are known by their row numbers.

    Attributes:
        number: of each of the V words.
        starts: int64 [V + 1]; `starts[i]:starts[i + 1]` of the postings are those of word i.
        rows: int32 [P], the text of each posting; a text occurs once for each of its different words.
        weights: float32 [P], what the word adds to the text's score.
        texts: N.
    """

    number: Mapping[str, int]
    starts: np.ndarray
    rows: np.ndarray
    weights: np.ndarray
    texts: int

    def __len__(self) -> int:
        return self.texts

    @classmethod
    def build(cls, texts: Iterable[str]) -> TextIndex:
        """The index of these texts, in their order. Cost: about 2 microseconds and, in this process, 30 bytes a word."""
        from bm25s import BM25  # here, because it imports numba where that is installed, which takes a second

        number: dict[str, int] = {}
        words = [[number.setdefault(word, len(number)) for word in words_of(text)] for text in texts]
        if not number:  # which bm25s does not take
            return cls(number, np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), len(words))
        found = BM25(k1=K1, b=B, method="lucene", backend="numpy").build_index_from_ids(range(len(number)), words, show_progress=False)
        return cls(number, found["indptr"].astype(np.int64), found["indices"], found["data"], len(words))

    def save(self, folder: str) -> None:
        """Write the index to a folder or URI. Each file is written atomically, the two together are not."""
        artifacts.write_table(f"{folder}/{POSTINGS}", pa.table({"row": self.rows, "weight": self.weights}))
        words = pa.table({"word": pa.array([*self.number, ""], pa.string()), "start": self.starts})  # the last row ends the last word
        artifacts.write_table(f"{folder}/{WORDS}", words.replace_schema_metadata({"texts": str(self.texts)}))

    @classmethod
    def load(cls, folder: str) -> TextIndex:
        """The index of a folder or URI. Local postings are mapped, so a search reads only what its words need; of a URI all are read.

        Raises:
            ValueError: the folder has no complete index.
        """
        try:
            words, postings = (artifacts.read_table(f"{folder}/{name}") for name in (WORDS, POSTINGS))
            texts, names = int(words.schema.metadata[b"texts"]), words["word"].to_pylist()[:-1]
            starts, rows, weights = (_array(column) for column in (words["start"], postings["row"], postings["weight"]))
            complete = len(starts) == len(names) + 1 and starts[-1] == len(rows)
        except (OSError, ValueError, KeyError, TypeError, IndexError, pa.ArrowException) as error:
            raise ValueError(f"{folder} has no complete index ({error})") from None
        if not complete:
            raise ValueError(f"{folder} has no complete index")
        return cls({word: i for i, word in enumerate(names)}, starts, rows, weights, texts)

    def scores(self, query: str) -> np.ndarray:
        """BM25 score of each text, float32 `[N]`; 0 where it has none of the query's words. Cost: the texts that each word occurs in, and N."""
        out = np.zeros(self.texts, np.float32)
        for word in words_of(query):
            if (at := self.number.get(word)) is not None:
                part = slice(self.starts[at], self.starts[at + 1])
                out[self.rows[part]] += self.weights[part]
        return out


def _array(column: pa.ChunkedArray) -> np.ndarray:
    """A column of one record batch, or of none, without a copy."""
    values: np.ndarray = column.chunk(0).to_numpy() if column.num_chunks else np.zeros(0, column.type.to_pandas_dtype())
    return values


def best_rows(scores: np.ndarray, k: int, rows: np.ndarray | None = None) -> np.ndarray:
    """The rows of the k best positive scores, int64, best first; equal scores by row.

    Args:
        scores: `[n]`.
        rows: only these rows, ascending; all by default.
    """
    chosen = np.flatnonzero(scores > 0) if rows is None else rows[scores[rows] > 0]
    order = np.argsort(-scores[chosen], kind="stable")[:k]
    return chosen[order]


def places(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """int64 [P], 1 is best: the rank of each of these rows among all: rows with a higher score, or the same and a lower number, are above.

    scores: float32 [N]. Cost: 2 * N comparisons for each of the P rows.
    """
    above = [np.count_nonzero(scores > scores[at]) + np.count_nonzero(scores[:at] == scores[at]) for at in rows]
    return np.array(above, np.int64) + 1


def places_among(scores: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """int64 [P]: as `places`, but among `others` only, int64 [J], which may contain the rows themselves. Cost: P * J comparisons."""
    own, theirs = scores[rows][:, None], scores[others][None]
    above = (theirs > own) | ((theirs == own) & (others[None] < rows[:, None]))
    counts: np.ndarray = np.count_nonzero(above, axis=1)
    return counts + 1
