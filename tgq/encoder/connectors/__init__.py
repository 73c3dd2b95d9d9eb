"""Connectors by name. Each is one file and one class behind one interface.

    connector(H_img [B, N, width], H_txt [B, L, Dt], mask [B, L]) -> tokens [B, n_anchored + n_exploratory, width]

`H_img` comes projected to the connector's width, with positions, once for the connector and for the head.
`n_anchored` of the tokens, the first ones, follow the metadata; the others do not see it. A connector is built with
`Connector(config, text_width, text_length)`.
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
