"""The encoder of a run: the champion, the bundled encoder, or a folder named in the settings."""

from __future__ import annotations

from tgq.registry.champion import BUNDLED_FOLDER, CHAMPION, DEFAULT, model_path, read_history
from tgq.retrieval.manifest import Manifest
from tgq.settings.sections import Settings
from tgq.storage.paths import absolute


def model_folder(settings: Settings) -> str:
    """The encoder's folder or URI, with `champion` and `default` resolved."""
    return named_folder(champion_of(settings))


def named_folder(path: str) -> str:
    """The folder or URI of an encoder path; `default` is the bundled encoder."""
    return str(BUNDLED_FOLDER) if path == DEFAULT else absolute(path)


def published_folder(settings: Settings, published: Manifest | None) -> str:
    """The encoder of the published embeddings. Queries must be embedded with it.

    After a promotion of another item model it differs from the champion until the next run is published. A promotion or a rollback of a
    query tower alone counts at once, because the published vectors are those of its item model.
    """
    if published is None:
        return model_folder(settings)
    root = absolute(settings.warehouse.path)
    history = read_history(root)
    if settings.encoder.path == CHAMPION and history.bundled_again(published.model_version):
        return named_folder(DEFAULT)
    if promotion := history.of(published.model_version):
        return model_path(root, promotion.name)
    return named_folder(published.encoder if settings.encoder.path == CHAMPION else settings.encoder.path)


def champion_of(settings: Settings) -> str:
    """`encoder.path`, with `champion` replaced by the present champion's folder, URI or `default`."""
    if settings.encoder.path != CHAMPION:
        return settings.encoder.path
    root = absolute(settings.warehouse.path)
    return read_history(root).reference(root)


def with_encoder(settings: Settings, path: str) -> Settings:
    """Settings with another `encoder.path`."""
    return settings.model_copy(update={"encoder": settings.encoder.model_copy(update={"path": path})})
