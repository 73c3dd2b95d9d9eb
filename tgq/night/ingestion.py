"""The ingest step of a night: the catalog, then the queries of its search where the settings name any."""

from __future__ import annotations

from tgq.catalog.ingest import ingest as ingest_catalog
from tgq.catalog.reading.location import locate
from tgq.queries.inputs import Inputs, open_inputs
from tgq.queries.load import TABLES, last_load, load, prepare
from tgq.run.night import Night, StepResult
from tgq.settings.sections import Settings


def ingest(night: Night) -> StepResult:
    """Read the catalog as `tgq.catalog.ingest.ingest` does, and the queries; `figures` have `queries` (see `tgq.queries.load.load`).

    Rows of queries are counted in the figures alone: `rows_in` and the other counts are rows of the catalog. Files of queries are opened, and
    new ones read, before the catalog, whose pictures may take hours.

    Raises:
        SourceError: as of the catalog; a file of queries or a column of it is not there, or none of its rows can be used.
    """
    if not wants_queries(night.settings):
        return ingest_catalog(night)
    inputs = queries_of(night)
    if not inputs.found:
        return ingest_catalog(night)
    last = last_load(night)
    prepared = prepare(night, inputs, last)
    result = ingest_catalog(night)
    result.figures["queries"] = load(night, inputs, last, prepared)
    result.versions_written = {**result.versions_written, **night.warehouse.versions("quarantine", *TABLES)}
    return result


def wants_queries(settings: Settings) -> bool:
    """Whether the settings name a file of queries or a click log."""
    return bool(settings.queries.path or settings.queries.clicks.path)


def queries_of(night: Night) -> Inputs:
    """The files of queries, opened; what the owner should know is said."""
    inputs = open_inputs(night.spark, night.settings, locate(night.spark, night.settings.catalog))
    for note in inputs.notes:
        night.progress.say(note)
    return inputs
