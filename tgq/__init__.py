"""tgq: a nightly batch pipeline from an e-commerce catalog to item embeddings, with retrieval metrics.

    tgq.load_encoder(path)      load an encoder, which turns pictures, texts or items into vectors
    tgq.open_warehouse(path)    open a warehouse without Spark: search, neighbours, metrics, SQL
    tgq.nightly(...)            run the nightly pipeline in this process

Names are imported when they are first used, so `import tgq` is fast.
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

_MODULES = {"Encoder": "encoder", "load_encoder": "encoder", "nightly": "night", "Warehouse": "warehouse", "open_warehouse": "warehouse"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"tgq.client.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'tgq' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
