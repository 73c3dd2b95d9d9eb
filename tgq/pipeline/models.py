"""The night's encoder by its versions, and one loaded copy of it per process.

torch is imported when an encoder is loaded, not before: workers that only search vectors start three seconds sooner.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING

from tgq.pipeline.champion import local_folder

if TYPE_CHECKING:
    from tgq.encoder.model import TGQFormer


@functools.lru_cache(maxsize=4)
def versions_of(folder: str) -> tuple[str, str]:
    """(model_version, tower_version) of an encoder's folder or URI, 16 hex digits each.

    The tower version covers both towers' weights and preprocessing: the key under which frozen features are kept.

    Raises:
        ModelError: the folder or one of its towers is missing or incomplete, or was altered after it was promoted.
    """
    from tgq.encoder.model import TGQFormer

    encoder = TGQFormer.from_pretrained(local_folder(folder))
    towers = hashlib.sha256(f"{encoder.vision.fingerprint}|{encoder.text.fingerprint}".encode()).hexdigest()
    return encoder.model_version, towers[:16]


@functools.lru_cache(maxsize=1)
def load_encoder(folder: str, device: str, dtype: str) -> TGQFormer:
    """The encoder, loaded once per worker process.

    Raises:
        DeviceError: a GPU was asked for and is absent.
        ModelError: as `versions_of`.
    """
    from tgq.encoder.device import choose_device, choose_dtype
    from tgq.encoder.model import TGQFormer

    place = choose_device(device)
    return TGQFormer.from_pretrained(local_folder(folder), device=place, dtype=choose_dtype(place, dtype))
