"""What a warehouse must keep: generations that can be rolled back to, their table versions, and the models of their vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from tgq.enrichment.attributes.plan import AttributePlan
from tgq.enrichment.titles.plan import RefinerPlan
from tgq.errors import ModelError
from tgq.registry.champion import model_path, read_history
from tgq.registry.loading import versions_of
from tgq.registry.selection import model_folder, named_folder
from tgq.retrieval import manifest
from tgq.retrieval.manifest import Manifest
from tgq.settings.sections import Settings


@dataclass(frozen=True)
class Needed:
    """What upkeep must not remove.

    Attributes:
        generations: names of the generations that `index.keep_generations` keeps, newest first.
        runs: the runs that made them.
        models: versions of the models of their vectors, and of the next night's encoder.
        towers: tower versions of these models; None if one of the encoders cannot be read, so that they are not known.
        since: when the oldest of these generations began; None without any.
        refiner, source: versions of the refiner of titles and of the source of attributes that the settings name; None if they name none, which may be
            for one night only, or it cannot be read.
    """

    generations: tuple[str, ...]
    runs: frozenset[str]
    models: frozenset[str]
    towers: frozenset[str] | None
    since: datetime | None
    refiner: str | None = None
    source: str | None = None


def needed(settings: Settings, root: str) -> Needed:
    """Read the manifests and the champion's history.

    Raises:
        ModelError: the next night's encoder cannot be read.
        WarehouseError: a manifest to be kept is broken.
    """
    kept = manifest.history(root)[: settings.index.keep_generations]
    model, tower = versions_of(model_folder(settings))
    return Needed(
        tuple(made.generation for made in kept), frozenset(made.run_id for made in kept), frozenset({model, *(made.model_version for made in kept)}),
        _towers(root, kept, tower), min((_began(made) for made in kept), default=None),
        refiner=_readable(lambda: _refiner(settings)), source=_readable(lambda: _source(settings)),
    )  # fmt: skip


def _towers(root: str, kept: Sequence[Manifest], next_tower: str) -> frozenset[str] | None:
    history, found = read_history(root), {next_tower}
    for made in kept:
        promotion = history.of(made.model_version)
        folder = model_path(root, promotion.name) if promotion else named_folder(made.encoder)
        try:
            version, tower = versions_of(folder)
        except ModelError:
            return None
        if version != made.model_version:  # another encoder stands there now
            return None
        found.add(tower)
    return frozenset(found)


def _readable(version: Callable[[], str | None]) -> str | None:
    try:
        return version()
    except ModelError:
        return None


def _refiner(settings: Settings) -> str | None:
    return RefinerPlan.of(settings).build().version if settings.enrich.text.refiner != "none" else None


def _source(settings: Settings) -> str | None:
    plan = AttributePlan.of(settings)
    return plan.source().version if plan else None


def _began(made: Manifest) -> datetime:
    at = datetime.fromisoformat(made.created_at)
    return at if at.tzinfo else at.replace(tzinfo=timezone.utc)
