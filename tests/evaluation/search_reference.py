"""What the evaluation of search queries must give, worked out by ir_measures from full rankings."""

import ir_measures
import numpy as np
from ir_measures import AP, RR, R, Success, nDCG


def rankings(scores):
    """Positions best first, int [Q, N]; ties by the lower position."""
    return np.argsort(-scores, axis=1, kind="stable")


def measured(scores, gains, relevant_from, lost=()):
    """name -> values of the queries, a list; None where ir_measures is not asked because no item is relevant.

    Args:
        scores: [Q, N] of every item of the pool.
        gains: for each query {position: gain above 0, or 0 for a judged item without one}.
        relevant_from: the gain from which on an item is relevant.
        lost: for each query the gains of positives that are not in the pool.
    """
    names = {"ndcg@1": nDCG @ 1, "ndcg@5": nDCG @ 5, "ndcg@10": nDCG @ 10}
    binary = {"recall@10": R @ 10, "hit_rate@1": Success @ 1, "mrr": RR, "map": AP}
    out = {name: [] for name in (*names, *binary, "judged_ndcg@10")}
    for q, order in enumerate(rankings(scores)):
        away = {f"lost{i}": g for i, g in enumerate(lost[q])} if lost else {}
        graded = {f"d{p}": int(g) for p, g in gains[q].items()} | {name: int(g) for name, g in away.items()}
        run = {"q": {f"d{p}": float(len(order) - r) for r, p in enumerate(order)}}
        judged = {"q": {name: score for name, score in run["q"].items() if name in graded}}
        values = {str(m.measure): m.value for m in ir_measures.iter_calc(list(names.values()), {"q": graded}, run)}
        for name, measure in names.items():
            out[name].append(values[str(measure)])
        (alone,) = ir_measures.iter_calc([nDCG @ 10], {"q": graded}, judged or {"q": {"none": 0.0}})
        out["judged_ndcg@10"].append(alone.value)
        hits = {name: int(gain >= relevant_from) for name, gain in graded.items()}
        some = any(hits.values())
        values = {str(m.measure): m.value for m in ir_measures.iter_calc(list(binary.values()), {"q": hits}, run)} if some else {}
        for name, measure in binary.items():
            out[name].append(values[str(measure)] if some else None)
    return out


def bm25(texts, query):
    """float64 [N]: Lucene's BM25 in plain Python."""
    words = [text.lower().replace("|", " ").replace(":", " ").replace(",", " ").split() for text in texts]
    mean = np.mean([len(row) for row in words])
    out = np.zeros(len(texts))
    for word in query.lower().split():
        having = sum(word in row for row in words)
        idf = np.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        out += [idf * row.count(word) / (row.count(word) + 1.5 * (1 - 0.75 + 0.75 * len(row) / mean)) for row in words]
    return out
