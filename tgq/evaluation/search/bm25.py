"""BM25 over the texts of the pool, as a system beside the encoder: the index, and exact ranks by its scores.

The score is Lucene's variant (Kamphuis et al. 2020, "Which BM25 do you mean?"), with the constants that bm25s proposes. Tokens are
lower-case words of any script, without stop words or stemming. Documents are the items of the pool in its order, so a document's number is
its position. The index is two Arrow files, which tasks map into memory.

Cost: to build, one process with about 30 bytes per word of all texts. To score, the postings of a query's words and 4 bytes per item.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tgq.storage import artifacts

if TYPE_CHECKING:
    from bm25s import BM25

K1, B = 1.5, 0.75
TOKEN = re.compile(r"\w+")  # bm25s's own pattern needs two characters, which would lose sizes such as S, M and 8
POSTINGS, WORDS = "postings.arrow", "words.arrow"


def tokens(text: str) -> list[str]:
    """The words of a text."""
    return TOKEN.findall(text.lower())


def write_index(folder: str, texts: Iterable[str]) -> int:
    """Build the index of the texts of positions 0, 1, ... and write it. Returns the number of texts."""
    from bm25s import BM25  # takes half a second where numba is installed

    number: dict[str, int] = {}
    rows = [[number.setdefault(word, len(number)) for word in tokens(text)] for text in texts]
    if number:
        found = BM25(k1=K1, b=B, method="lucene").build_index_from_ids(range(len(number)), rows, show_progress=False)
        postings, starts = {name: found[name] for name in ("indices", "data")}, found["indptr"]
    else:
        postings, starts = {"indices": np.zeros(0, np.int32), "data": np.zeros(0, np.float32)}, np.zeros(1, np.int64)
    artifacts.write_table(f"{folder}/{POSTINGS}", pa.table(postings))
    words = pa.table({"word": pa.array([*number, ""], pa.string()), "start": np.asarray(starts, np.int64)})  # the last row ends the last word
    artifacts.write_table(f"{folder}/{WORDS}", words.replace_schema_metadata({"texts": str(len(rows))}))
    return len(rows)


@dataclass(frozen=True)
class Index:
    """An index that `write_index` has written, opened."""

    number: dict[str, int]  # of each word
    engine: BM25
    texts: int

    @classmethod
    def open(cls, folder: str) -> Index:
        """Map the files of an index into memory; of an object store, read them."""
        from bm25s import BM25

        words, postings = (artifacts.read_table(f"{folder}/{name}") for name in (WORDS, POSTINGS))
        texts, engine = int(words.schema.metadata[b"texts"]), BM25(k1=K1, b=B, method="lucene")
        arrays = {name: column.chunk(0).to_numpy() if column.num_chunks else np.zeros(0, np.float32)
                  for name, column in (("data", postings["data"]), ("indices", postings["indices"]), ("indptr", words["start"]))}  # fmt: skip
        engine.scores, engine.nonoccurrence_array = arrays | {"num_docs": texts}, None
        return cls({word: i for i, word in enumerate(words["word"].to_pylist()[:-1])}, engine, texts)

    def scores(self, text: str) -> np.ndarray:
        """float32 [N]: the BM25 score of every item for a query; words that no item has count nothing."""
        known = [self.number[word] for word in tokens(text) if word in self.number]
        return self.engine.get_scores_from_ids(known) if known else np.zeros(self.texts, np.float32)


def places(scores: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """int64 [P], 1 is best: the rank of each of these items among all: items with a higher score, or the same and a lower position, are above.

    scores: float32 [N], by position. Cost: 2 * N comparisons for each of the P items.
    """
    above = [np.count_nonzero(scores > scores[at]) + np.count_nonzero(scores[:at] == scores[at]) for at in positions]
    return np.array(above, np.int64) + 1


def places_among(scores: np.ndarray, positions: np.ndarray, others: np.ndarray) -> np.ndarray:
    """int64 [P]: as `places`, but among `others` only, int64 [J], which may contain the items themselves. Cost: P * J comparisons."""
    own, theirs = scores[positions][:, None], scores[others][None]
    above = (theirs > own) | ((theirs == own) & (others[None] < positions[:, None]))
    return np.count_nonzero(above, axis=1) + 1
