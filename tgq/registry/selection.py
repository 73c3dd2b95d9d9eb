"""Which encoder a run uses: the champion, the bundled default or a folder that the settings name."""

from __future__ import annotations

from tgq.registry.champion import BUNDLED_FOLDER, CHAMPION, DEFAULT, place_of, read_history
from tgq.retrieval.manifest import Manifest
from tgq.settings.sections import Settings
from tgq.storage.paths import absolute


def model_folder(settings: Settings) -> str:
    """The encoder's folder or URI, with `champion` and `default` resolved."""
    return named_folder(champion_of(settings))


def named_folder(path: str) -> str:
    """What an encoder's path names: the bundled one for `default`, else the folder or URI."""
    return str(BUNDLED_FOLDER) if path == DEFAULT else absolute(path)


def published_folder(settings: Settings, published: Manifest | None) -> str:
    """The encoder that the published vectors were made with, for queries that are compared with them.

    It is not the champion's while no night has published since the promotion.
    """
    if published is None:
        return model_folder(settings)
    root = absolute(settings.warehouse.path)
    if read_history(root).of(published.model_version):
        return place_of(root, published.model_version)
    return named_folder(published.encoder if settings.encoder.path == CHAMPION else settings.encoder.path)


def champion_of(settings: Settings) -> str:
    """`encoder.path`, with `champion` resolved to what that is now."""
    if settings.encoder.path != CHAMPION:
        return settings.encoder.path
    root = absolute(settings.warehouse.path)
    return read_history(root).reference(root)


def with_encoder(settings: Settings, path: str) -> Settings:
    """Settings with another `encoder.path`."""
    return settings.model_copy(update={"encoder": settings.encoder.model_copy(update={"path": path})})
