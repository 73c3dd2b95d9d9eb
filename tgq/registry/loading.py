"""Loading encoders, once per process, and their versions.

torch is imported when an encoder is loaded and not before, so that workers which only search vectors start three seconds sooner.
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
    from tgq.encoder.model import TGQFormer

    encoder = TGQFormer.from_pretrained(local_folder(folder))
    return encoder.model_version, Towers(encoder.vision.fingerprint, encoder.text.fingerprint)


@functools.lru_cache(maxsize=1)
def load_encoder(folder: str, device: str, dtype: str) -> TGQFormer:
    """The encoder, loaded once per process.

    Raises:
        DeviceError: the device is a GPU, and it is absent.
        ModelError: as `versions_of`.
    """
    from tgq.encoder.heads import LLMHead
    from tgq.encoder.model import TGQFormer
    from tgq.inference.device import choose_device, choose_dtype

    chosen = choose_device(device)
    encoder = TGQFormer.from_pretrained(local_folder(folder), device=chosen, dtype=choose_dtype(chosen, dtype))
    if isinstance(encoder.head, LLMHead):
        encoder.head.merge()  # inference is faster with merged adapters
    return encoder
