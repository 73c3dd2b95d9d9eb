"""The search queries of a comparison: candidate and champion rank the judged items of the same queries, so their differences are paired.

The queries are those of the train split that the training of query towers holds out (`tgq.query_training.data.split`). Test queries are never
used: they measure nights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F

from tgq.errors import UsageError
from tgq.evaluation.averages import Averages, named_rows
from tgq.evaluation.search.reading import judged_queries
from tgq.evaluation.search.scoring import COMPARED, SearchScoring
from tgq.evaluation.search.vectors import QueryEncoder
from tgq.index.pool import MAIN, RIVAL, Pool
from tgq.metrics.names import SEARCH
from tgq.publishing.verdict import Row
from tgq.query_tower.config import held_out_share, tower_folder
from tgq.query_training.data.split import is_validation
from tgq.registry.champion import local_folder
from tgq.registry.selection import with_encoder
from tgq.run.night import Night


@dataclass(frozen=True)
class BothEncoders(QueryEncoder):
    """Encodes queries with the candidate, and for the rival's vectors with the champion."""

    champion: QueryEncoder

    def vectors(self, kind: str, texts: Any) -> Any:
        return self.champion.vectors(MAIN, texts) if kind == RIVAL else super().vectors(kind, texts)


def validates(text: str, share: float) -> Column:
    """Whether a query of the train split validates, by the column of its text."""
    return F.udf(lambda one: is_validation(one, share), "boolean", useArrow=False)(text)


def count_searches(night: Night) -> int:
    """How many held-out queries of the train split have an active item with a gain. A warehouse without queries pays nothing for it."""
    settings, store = night.settings, night.warehouse
    if not store.has_rows("relevance_queries", {"split": "train"}):
        return 0
    active = store.read("catalog_items").where("is_active").select("item_id")
    gains = store.read("query_judgments").where("weight > 0").where(F.col("grade") > F.lit(settings.queries.irrelevant_grade))
    asked = store.read("relevance_queries").where("split = 'train'").where(validates("normalised_text", settings.promote.share))
    return asked.join(gains.join(active, "item_id", "left_semi"), "query_id", "left_semi").count()


def need_unseen(night: Night, candidate: str) -> None:
    """Check that the training of a candidate's query tower held out the queries that the tower is to be compared on.

    The queries of a smaller share are among those of a larger one, so a tower that held out at least `promote.share` has seen none of them.
    A tower without a record of its training is compared.

    Raises:
        UsageError: it held out fewer training queries than `promote.share`, and there are training queries.
        ModelError: the record of its training is broken.
    """
    place, share = tower_folder(local_folder(candidate)), night.settings.promote.share
    held_out = held_out_share(place) if place else None
    if held_out is not None and held_out < share and night.warehouse.has_rows("relevance_queries", {"split": "train"}):
        raise UsageError(
            f"the query tower {place} was trained with validation_share={held_out:g}, so it has seen queries that promote.share={share:g} compares on",
            f"lower promote.share, or train it again with --option validation_share={share:g}",
        )


def compare_searches(night: Night, pool: Pool, champion_folder: str, names: tuple[str, str]) -> tuple[list[Row], dict[str, Any]]:
    """Metrics of candidate and champion on the held-out searches, with their paired differences, as rows of `named_rows`, and figures.

    Args:
        night: its encoder is the candidate.
        pool: with the champion's vectors as the rival's. Both may be of one item model.
        names: of candidate and champion in the rows.

    Raises:
        ModelError: a query tower is broken, or for another model's item embeddings.

    Cost: as a night's evaluation of so many search queries with two systems; the judgments of all training queries are read once.
    """
    options, share = night.settings.evaluate, night.settings.promote.share
    trained = _with(night, {"split": "train", "max_queries": None})
    queries = judged_queries(trained, pool, night.staging("evaluate", "search")).where(partial(is_validation, share=share))
    n = queries.totals.queries
    own, champion = (QueryEncoder.of(one) for one in (night, replace(night, settings=with_encoder(night.settings, champion_folder))))
    encoder = BothEncoders(own.folder, own.device, own.dtype, champion)
    systems = dict(zip((MAIN, RIVAL), names, strict=True))
    scoring = SearchScoring(pool, tuple(systems), options.ks, encoder)
    scores = queries.score(scoring, options.query_slices)
    slices, small = scores.large_slices(options)
    found = scores.averages(Averages(tuple(systems), scoring.columns, COMPARED, slices, options.replicates, options.seed, options.level))
    return named_rows(found, systems, pool.rows, SEARCH), {"searches": n, "search_slices": len(slices), "search_slices_too_small": small}


def _with(night: Night, evaluate: dict[str, Any]) -> Night:
    options = night.settings.evaluate.model_copy(update=evaluate)
    return replace(night, settings=night.settings.model_copy(update={"evaluate": options}))
