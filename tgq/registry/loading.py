"""The night's encoder by its versions, and one loaded copy of it per process.

torch is imported when an encoder is loaded, not before: workers that only search vectors start three seconds sooner.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tgq.registry.champion import local_folder

if TYPE_CHECKING:
    from tgq.encoder.model import TGQFormer


@dataclass(frozen=True)
class Towers:
    """Both frozen towers by what decides their output, weights and preprocessing; 16 hex digits each."""

    vision: str
    text: str

    @property
    def version(self) -> str:
        """One for both: the key of an item's pooled features."""
        return hashlib.sha256(f"{self.vision}|{self.text}".encode()).hexdigest()[:16]


def versions_of(folder: str) -> tuple[str, str]:
    """(model_version, tower_version) of an encoder's folder or URI, 16 hex digits each.

    Raises:
        ModelError: the folder or one of its towers is missing or incomplete, or was altered after it was promoted.
    """
    model_version, towers = _identity(folder)
    return model_version, towers.version


def towers_of(folder: str) -> Towers:
    """The towers of an encoder folder; raises as `versions_of`."""
    return _identity(folder)[1]


@functools.lru_cache(maxsize=4)
def _identity(folder: str) -> tuple[str, Towers]:
    from tgq.encoder.model import TGQFormer

    encoder = TGQFormer.from_pretrained(local_folder(folder))
    return encoder.model_version, Towers(encoder.vision.fingerprint, encoder.text.fingerprint)


@functools.lru_cache(maxsize=1)
def load_encoder(folder: str, device: str, dtype: str) -> TGQFormer:
    """The encoder, loaded once per worker process.

    Raises:
        DeviceError: a GPU was asked for and is absent.
        ModelError: as `versions_of`.
    """
    from tgq.encoder.heads import LLMHead
    from tgq.encoder.model import TGQFormer
    from tgq.inference.device import choose_device, choose_dtype

    place = choose_device(device)
    encoder = TGQFormer.from_pretrained(local_folder(folder), device=place, dtype=choose_dtype(place, dtype))
    if isinstance(encoder.head, LLMHead):
        encoder.head.merge()  # nothing is trained here: the adapters cost time only
    return encoder
