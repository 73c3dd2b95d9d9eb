"""Loading encoders, once per process, and their versions.

torch is imported when an encoder is loaded and not before, so that workers which only search vectors start three seconds sooner.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tgq.encoder.config import EncoderConfig
from tgq.encoder.towers import hub
from tgq.errors import WarehouseError
from tgq.query_tower import config as query_config
from tgq.query_tower.config import QueryTowerConfig, tower_folder, version_of
from tgq.registry.champion import local_folder
from tgq.storage.files import Files
from tgq.storage.paths import cache_folder

if TYPE_CHECKING:
    from tgq.encoder.model import TGQFormer
    from tgq.encoder.towers.text import TextTower
    from tgq.query_tower.tower import QueryTower

ENCODER_CODE, QUERY_CODE = Path(hub.__file__).parents[1], Path(query_config.__file__).parent


@dataclass(frozen=True)
class Towers:
    """Fingerprints of both frozen towers, over weights and preprocessing; 16 hex digits each."""

    vision: str
    text: str

    @property
    def version(self) -> str:
        """A fingerprint of both, 16 hex digits; key of `item_features`."""
        return hashlib.sha256(f"{self.vision}|{self.text}".encode()).hexdigest()[:16]


def versions_of(folder: str) -> tuple[str, str]:
    """(model_version, tower_version) of an encoder's folder or URI, 16 hex digits each.

    Raises:
        ModelError: the folder or one of its towers is missing or incomplete, or was altered after its promotion.
    """
    model_version, towers = _identity(folder)
    return model_version, towers.version


def towers_of(folder: str) -> Towers:
    """The towers of an encoder's folder or URI. Raises as `versions_of`."""
    return _identity(folder)[1]


@functools.lru_cache(maxsize=4)
def _identity(folder: str) -> tuple[str, Towers]:
    """The versions, noted in the cache under a hash of everything that they are computed from: to build an encoder takes seconds."""
    place = Path(local_folder(folder))
    config = EncoderConfig.read(place)
    references = (config.vision, config.text, config.llm)

    def identity() -> list[str]:
        from tgq.encoder.model import TGQFormer

        encoder = TGQFormer.from_pretrained(place)
        return [encoder.model_version, encoder.vision.fingerprint, encoder.text.fingerprint]

    model_version, vision, text = _noted([place, *(hub.resolve(reference, place) for reference in references if reference)], (ENCODER_CODE,), identity)
    return model_version, Towers(vision, text)


@functools.lru_cache(maxsize=4)
def need_query_tower(folder: str) -> None:
    """Check that the query tower of an encoder's folder or URI, if any, can be loaded and is for the encoder's own item embeddings.

    Cost: hashes of its files; what is found is noted in the cache, as to load it takes seconds.

    Raises:
        ModelError: it is incomplete or broken, was altered after its promotion, or is for another encoder's item embeddings.
    """
    place = tower_folder(local_folder(folder))
    if place is None:
        return
    config = QueryTowerConfig.read(place)
    config.need_fit(versions_of(folder)[0])

    def check() -> list[str]:
        from tgq.query_tower.tower import QueryTower

        QueryTower.load(place)
        return ["complete"]

    _noted([place, hub.resolve(config.text, place)], (ENCODER_CODE, QUERY_CODE), check)


def _noted(folders: Sequence[Path], code: Sequence[Path], find: Callable[[], list[str]]) -> list[str]:
    """What `find` finds in these folders by this code, noted under a hash of all their files."""
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
    sources = [file for folder in code for file in sorted(folder.rglob("*.py"))]
    hashes = [f"{file.name} {hub.sha256_of(file)}" for file in (*files, *sources)]
    note = hashlib.sha256("\n".join([metadata.version("transformers"), *hashes]).encode()).hexdigest() + ".json"
    notes = Files(cache_folder() / "versions")
    try:
        found: list[str] = json.loads(notes.read(note))
    except (OSError, ValueError):  # no note yet, or half a note
        found = find()
        with contextlib.suppress(WarehouseError):  # a cache that is not writable costs time only
            notes.write(note, json.dumps(found).encode())
    return found


@functools.lru_cache(maxsize=1)
def load_encoder(folder: str, device: str, dtype: str, compiled: bool = False) -> TGQFormer:
    """The encoder, loaded once per process.

    Args:
        compiled: torch.compile the vision tower. The first batch of each size then takes a minute.

    Raises:
        DeviceError: the device is a GPU, and it is absent.
        ModelError: as `versions_of`.
    """
    from tgq.encoder.layers.heads import LLMHead
    from tgq.encoder.model import TGQFormer
    from tgq.inference.device import choose_device, choose_dtype

    chosen = choose_device(device)
    encoder = TGQFormer.from_pretrained(local_folder(folder), device=chosen, dtype=choose_dtype(chosen, dtype))
    if isinstance(encoder.head, LLMHead):
        encoder.head.merge()  # inference is faster with merged adapters
    if compiled:
        encoder.vision.model.compile()
    return encoder


@functools.lru_cache(maxsize=1)
def load_query_tower(folder: str, device: str = "cpu") -> QueryTower | None:
    """The query tower of an encoder's folder or URI, loaded once per process; None if the encoder has none.

    Raises:
        DeviceError: the device is a GPU, and it is absent.
        ModelError: the tower is incomplete, or was altered after its promotion.
    """
    place = tower_folder(local_folder(folder))
    if place is None:
        return None
    from tgq.inference.device import choose_device
    from tgq.query_tower.tower import QueryTower

    return QueryTower.load(place, choose_device(device))


@functools.lru_cache(maxsize=1)
def load_text_tower(folder: str, device: str = "cpu") -> TextTower:
    """The frozen text tower of an encoder's folder or URI alone, loaded once per process: without the vision tower that takes most time.

    Raises: as `load_encoder`.
    """
    from tgq.encoder.towers.text import TextTower
    from tgq.inference.device import choose_device

    place = Path(local_folder(folder))
    config = EncoderConfig.read(place)
    return TextTower(config.text, config.text_length, place).to(choose_device(device)).eval()


def shared_text_tower(folder: str, device: str = "cpu") -> TextTower | None:
    """As `load_text_tower`, without loading it: over the weights of the encoder's query tower; None if it has none, or one of another checkpoint."""
    tower, place = load_query_tower(folder, device), Path(local_folder(folder))
    return tower.shared_text_tower(place, EncoderConfig.read(place)) if tower else None


@functools.lru_cache(maxsize=4)
def query_version_of(folder: str) -> str | None:
    """The version of an encoder's query tower, 16 hex digits; None if it has none.

    Raises: as `load_query_tower`.
    """
    place = tower_folder(local_folder(folder))
    if place is None:
        return None
    return version_of(place)
