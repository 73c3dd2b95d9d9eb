"""Connectors by name. Each is one file and one class behind one interface.

    connector(H_img [B, N, Dv], H_txt [B, L, Dt], mask [B, L]) -> tokens [B, n_anchored + n_exploratory, width]

`n_anchored` of the tokens, the first ones, follow the metadata; the others do not see it. A connector is built with
`Connector(config, image_width, image_length, text_width, text_length)`.
"""

from __future__ import annotations

from torch import nn

from tgq.encoder.connectors.tgq import HybridConnector
from tgq.errors import ModelError

CONNECTORS: dict[str, type[nn.Module]] = {"tgq": HybridConnector}


def connector_class(name: str) -> type[nn.Module]:
    """The connector of that name; ModelError names those there are."""
    if name not in CONNECTORS:
        raise ModelError(f"unknown connector '{name}'", f"choose one of {', '.join(sorted(CONNECTORS))}")
    return CONNECTORS[name]
