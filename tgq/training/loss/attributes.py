"""Attribute-guided contrastive learning: weights of a batch's pairs in InfoNCE, by what the attributes of both items have in common.

It is the first stage of AFMRL (arXiv 2604.20135). There a language model generates the attributes; here the catalog states them. A
negative with the attributes of the query weighs more, so that the embedding learns to tell such items apart. One with nearly all
attributes of the positive is masked, because it may be the same product.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array, vstack
from torch import Tensor

from tgq.training.data.dataset import TrainingSet

K1, B = 1.5, 0.75  # BM25's saturation of repeated tokens, and its correction for long strings; the values that bm25s proposes
TOKEN = r"(?u)\b\w+\b"  # the pattern of bm25s needs two characters, which would lose sizes such as S, M and 8


class LogWeights(NamedTuple):
    """`log w` of the pairs of a batch with P queries and H hard negatives, float32; -inf where a pair is masked."""

    by_query: Tensor  # [P, P + H] of each query with the positives, then with the hard negatives
    by_positive: Tensor  # [P, P] of each positive with the queries

    def to(self, device: torch.device) -> LogWeights:
        """The same values on a device."""
        return LogWeights(self.by_query.to(device), self.by_positive.to(device))


class AttributeSimilarity:
    """The similarity of a training set's rows by their attribute strings.

    The attribute string of a row is its unchanged metadata text: category, attributes, brand and title, as far as the profile
    lets the encoder read them. So a title that names the answer is no part of it. Its tokens are lower-case words, without
    stemming or stop words: words that most rows have, such as the names of attributes, count next to nothing.

    Frequencies of tokens are counted once per catalog, because the pairs of a batch come from one catalog. Memory: 24 bytes per
    row and different token of its string.
    """

    def __init__(self, rows: TrainingSet):
        from bm25s.tokenization import Tokenizer  # here, because it imports numba where that is installed, which takes a second

        texts, text_of = np.unique(rows.metadata_index[:, 0], return_inverse=True)
        words = Tokenizer(splitter=TOKEN, stopwords=None)
        tokens = words.tokenize([rows.texts[at] for at in texts], update_vocab=True, show_progress=False, allow_empty=False)
        vocabulary = len(words.get_vocab_dict())
        self.counts = _counts([tokens[at] for at in text_of], vocabulary)
        names, catalog, sizes = np.unique(rows.catalog, return_inverse=True, return_counts=True)
        members = [np.flatnonzero(catalog == number) for number in range(len(names))]
        scores = vstack([_scores([tokens[at] for at in text_of[part]], vocabulary) for part in members], format="csr")
        self.scores = scores[np.argsort(np.concatenate(members))]
        own = np.asarray(self.counts.multiply(self.scores).sum(axis=1)).ravel()
        self.scale = np.maximum(own, np.log1p(sizes[catalog]) / (1 + K1))[:, None].astype(np.float32)

    def between(self, queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Similarity `[Q, C]` float32 in [0, 1] for row numbers `[Q]` and `[C]` of one catalog; 0 if a row has no attributes.

        It is `min(1, BM25(q, c) / max(BM25(q, q), log(N + 1) / (1 + K1)))` in a catalog of N rows, with the tokens of q as search
        words. BM25 itself has no upper limit, so that its tanh would be near 1 as soon as two items share a rare word. Divided by
        the score of the query's own attributes it is the share of them that the candidate has.

        The divisor is at least the score of attributes that chance gives to one row in N: their idf adds up to log N, and a token
        that occurs once in a row of mean length scores its idf / (1 + K1). Attributes that say less than that, such as the
        department alone, do not identify an item, so items that share them are not alike and are not masked.

        Cost: the tokens that each query and each candidate have in common. It does not depend on N.
        """
        found = (self.counts[queries] @ self.scores[candidates].T).toarray()
        return np.minimum(found / self.scale[queries], 1.0)

    def log_weights(self, queries: np.ndarray, positives: np.ndarray, hard: np.ndarray, threshold: float) -> LogWeights:
        """The weights of a batch, for row numbers `[P]`, `[P]` and `[H]`; see `log_weights`.

        In the direction from positive to query, positives are the queries.
        """
        pairs = len(queries)
        found = self.between(np.concatenate([queries, positives]), np.concatenate([queries, positives, hard]))
        return LogWeights(
            log_weights(found[:pairs, pairs:], found[pairs:, pairs:], threshold),
            log_weights(found[pairs:, :pairs], found[:pairs, :pairs], threshold),
        )


def log_weights(to_query: np.ndarray, to_positive: np.ndarray, threshold: float) -> Tensor:
    """`log w_ij` with `w_ij = exp(1 + tanh(B_ij))` (arXiv 2604.20135), and -inf for false negatives; `[P, C]` float32.

    Args:
        to_query: `[P, C]`, `B_ij`: similarity of candidate j to query i. Candidate i is the positive of query i, and C >= P.
        to_positive: `[P, C]`, similarity of candidate j to the positive of query i.
        threshold: a candidate that is more similar to the positive than this is masked, apart from the positive itself.
    """
    masked = to_positive > threshold
    np.fill_diagonal(masked, False)
    return torch.from_numpy(np.where(masked, -np.inf, 1 + np.tanh(to_query)).astype(np.float32))


def _counts(rows: list[list[int]], vocabulary: int) -> csr_array:
    """`[R, V]` float32: how often each token occurs in each row."""
    ends = np.cumsum([0, *map(len, rows)])
    counts = csr_array((np.ones(ends[-1], np.float32), np.array([token for row in rows for token in row], int), ends), shape=(len(rows), vocabulary))
    counts.sum_duplicates()
    return counts


def _scores(rows: list[list[int]], vocabulary: int) -> csr_array:
    """`[N, V]` float32: what each token of a row adds to the row's BM25 score, for the rows of one catalog.

    The formula is Lucene's (Kamphuis et al. 2020): `log(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + K1 * (1 - B + B * l / mean(l)))`
    for a token that n rows have, and that occurs f times in a row of l tokens.
    """
    from bm25s import BM25

    if not any(rows):
        return csr_array((len(rows), vocabulary), dtype=np.float32)
    found = BM25(k1=K1, b=B, method="lucene").build_index_from_ids(range(vocabulary), rows, show_progress=False)
    return csc_array((found["data"], found["indices"], found["indptr"]), shape=(len(rows), vocabulary)).tocsr()
