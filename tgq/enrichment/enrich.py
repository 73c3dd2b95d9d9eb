"""The enrich step: changes what the encoder reads of the items before it reads it.

It has parts, each with its own section of `enrich` in the settings and its own table, keyed by content and the version of the part. A part
brings its table up to date; then what the encoder reads is written to `catalog_items` (`tgq.catalog.enriched` says how it reaches all
readers). Now there is one part: refinement of titles. A night with nothing enabled does not run the step, and one in which no item, setting
or part changed takes over the figures of the last one without a Spark job.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tgq.enrichment.accounting import counts_of, key_of, last_figures
from tgq.enrichment.apply import apply_titles
from tgq.enrichment.refine import refine_titles
from tgq.enrichment.refiners import RefinerPlan
from tgq.run.night import Night, StepResult
from tgq.settings.sections import Settings


def is_enabled(settings: Settings) -> bool:
    """Whether the settings name any enrichment."""
    return settings.enrich.text.refiner != "none"


def is_wanted(night: Night) -> bool:
    """Whether the step has anything to do: enrichment is enabled, or what an earlier night did is to be undone. No Spark job in a local folder."""
    if is_enabled(night.settings):
        return True
    return night.warehouse.version("item_texts") > 0 and bool(last_figures(night).get("text", {}).get("applied"))


def need_enrichment(settings: Settings) -> None:
    """Check what enrichment needs. Called before the first step, so that a broken model stops the run early.

    Raises:
        ModelError: a model's folder is missing, or has no weights, no tokenizer or no chat template.
        ConfigError: an endpoint's host is not listed, or its key is not in the environment.
    """
    if is_enabled(settings):
        RefinerPlan.of(settings).need()


def described(settings: Settings) -> Iterator[str]:
    """Lines for a dry run."""
    text = settings.enrich.text
    if text.refiner == "rules":
        yield "enrich: titles are refined by rules"
    elif text.refiner == "model":
        where = f"at {text.endpoint.url}" if text.generator == "endpoint" else "in the workers"
        name = text.endpoint.model if text.generator == "endpoint" else text.local.model
        limit = f", at most {text.endpoint.max_tokens:,} tokens a run" if text.generator == "endpoint" and text.endpoint.max_tokens else ""
        yield f"enrich: titles are refined by the language model {name} {where}, in up to {text.rounds} rounds{limit}"


def enrich(night: Night) -> StepResult:
    """Refine the titles of new and changed items, and write what the encoder reads.

    Raises:
        ModelError, ConfigError: see `need_enrichment`.
        EnrichmentError: a language model does not answer, and `enrich.on_failure` is stop.
    """
    need_enrichment(night.settings)
    enabled = is_enabled(night.settings)
    version = RefinerPlan.of(night.settings).build().version if enabled else None
    read = night.warehouse.versions("catalog_items", "item_texts")
    text = _carried(night, version)
    carried = text is not None
    if text is None:
        if version is not None:
            refine_titles(night, version)
        apply_titles(night, version)
        text = counts_of(night, version)
    figures = {"text": {"refiner": night.settings.enrich.text.refiner, "version": version, **text}, "carried": carried, "key": key_of(night, version)}
    return StepResult(
        rows_in=text["active"], rows_out=text["applied"], unchanged=text["active"] - text["new"], versions_read=read,
        versions_written=night.warehouse.versions("catalog_items", "item_texts"), figures=figures,
    )  # fmt: skip


def _carried(night: Night, version: str | None) -> dict[str, Any] | None:
    """The counts of the last enrich step if this one would find nothing to do, less what is of that run alone; None otherwise."""
    last = last_figures(night)
    if last.get("key") != key_of(night, version):
        return None
    text: dict[str, Any] = last["text"]
    if last["run_id"] == night.run_id:
        return text
    if text["failed"] or text["waiting"]:
        return None
    return text | {"new": 0, "rounds": 0, "tokens": 0}

