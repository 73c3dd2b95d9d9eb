"""BM25 over short texts: the words of a query against the words of each text, in a folder of plain arrays that is mapped, not read.

The formula is Lucene's (Kamphuis et al. 2020), as bm25s computes it: a word that n of N texts have, and that occurs f times in a text of
l words, adds `log(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + K1 * (1 - B + B * l / mean(l)))`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bm25s import BM25

K1, B = 1.5, 0.75  # saturation of repeated words, and correction for long texts; the values that bm25s proposes
FORMAT = 1  # raised when words, formula or files change, so that an index of another version is not read
_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case without accents, in their order; no stemming and no stop words.

    Accents are dropped because shoppers often leave them out. Scripts without blanks between words, such as Chinese, give one word per run.
    """
    if text.isascii():
        return _WORD.findall(text.lower())
    folded = unicodedata.normalize("NFKD", text).casefold()
    return _WORD.findall("".join(c for c in folded if not unicodedata.combining(c)))


class TextIndex:
    """A BM25 index of n texts, which are known by their row numbers."""

    def __init__(self, index: BM25):
        self._index = index

    def __len__(self) -> int:
        return int(self._index.scores["num_docs"])

    @classmethod
    def build(cls, texts: Iterable[str]) -> TextIndex:
        """The index of these texts, in their order. Cost: about 2 microseconds a word; 8 bytes for each different word of a text."""
        from bm25s import BM25  # here, because it imports numba where that is installed, which takes a second

        vocabulary: dict[str, int] = {}
        rows = [[vocabulary.setdefault(word, len(vocabulary)) for word in words_of(text)] for text in texts]
        if rows and not vocabulary:
            vocabulary[""], rows[0] = 0, [0]  # bm25s needs a word; no query has this one
        index = BM25(k1=K1, b=B, method="lucene", backend="numpy")
        index.index((rows, vocabulary), create_empty_token=False, show_progress=False)
        return cls(index)

    def save(self, folder: Path) -> None:
        """Write NumPy arrays and JSON to a folder. It is not atomic."""
        self._index.save(folder, show_progress=False)

    @classmethod
    def load(cls, folder: Path) -> TextIndex:
        """The index of a folder. Its arrays are mapped, so a search reads only what its words need; nothing is unpickled.

        Raises:
            ValueError: the folder has no complete index.
        """
        from bm25s import BM25

        try:
            index = BM25.load(folder, mmap=True, allow_pickle=False)
            data, starts = index.scores["data"], index.scores["indptr"]
            complete = len(data) == len(index.scores["indices"]) == starts[-1] and len(starts) > len(index.vocab_dict)
        except (OSError, ValueError, KeyError, TypeError, EOFError, IndexError) as error:
            raise ValueError(f"{folder} has no complete index ({error})") from None
        if not complete:
            raise ValueError(f"{folder} has no complete index")
        return cls(index)

    def scores(self, query: str) -> np.ndarray:
        """BM25 score of each text, float32 `[n]`; 0 where it has none of the query's words. Cost: the texts that each word occurs in, and n."""
        words = [word for word in words_of(query) if word in self._index.vocab_dict]
        if not words:
            return np.zeros(len(self), np.float32)
        found: np.ndarray = self._index.get_scores(words).astype(np.float32)
        return found


def best_rows(scores: np.ndarray, k: int, rows: np.ndarray | None = None) -> np.ndarray:
    """The rows of the k best positive scores, int64, best first; equal scores by row.

    Args:
        scores: `[n]`.
        rows: only these rows, ascending; all by default.
    """
    chosen = np.flatnonzero(scores > 0) if rows is None else rows[scores[rows] > 0]
    order = np.argsort(-scores[chosen], kind="stable")[:k]
    return chosen[order]
