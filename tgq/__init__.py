"""tgq: a nightly batch pipeline that turns an e-commerce catalog into item embeddings, and measures how good they are.

    tgq.load_encoder(path)      an encoder: pictures, texts or items to vectors
    tgq.open_warehouse(path)    a warehouse, read without Spark: search, neighbours, metrics, SQL
    tgq.nightly(...)            a whole night in this process

Everything is imported when it is first used, so `import tgq` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tgq.client.encoder import Encoder, load_encoder
    from tgq.client.night import nightly
    from tgq.client.warehouse import Warehouse, open_warehouse

__version__ = "0.1.0"
__all__ = ["Encoder", "Warehouse", "load_encoder", "nightly", "open_warehouse"]

_HOMES = {"Encoder": "encoder", "load_encoder": "encoder", "nightly": "night", "Warehouse": "warehouse", "open_warehouse": "warehouse"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"tgq.client.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tgq' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
