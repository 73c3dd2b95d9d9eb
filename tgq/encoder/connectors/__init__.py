"""Connectors by name: TGQ-Former's own and the designs it is compared with. Each is one class in one module.

    connector(H_img [B, N, width], H_txt [B, L, Dt], mask [B, L]) -> tokens [B, n, width]

`H_img` is the vision tower's tokens after a projection to the connector's width and a position embedding. The head uses the
same `H_img`.
"""

from __future__ import annotations

from tgq.encoder.connectors.anchored_only import AnchoredOnly
from tgq.encoder.connectors.clip_mean import ClipMean
from tgq.encoder.connectors.concat_linear import ConcatLinear
from tgq.encoder.connectors.connector import Connector
from tgq.encoder.connectors.hybrid_gates import HybridGates
from tgq.encoder.connectors.hybrid_nogate import HybridNoGate
from tgq.encoder.connectors.instructblip import InstructBLIP
from tgq.encoder.connectors.mlp import MLPConnector
from tgq.encoder.connectors.moe_bilinear import MoEBilinear
from tgq.encoder.connectors.perceiver import PerceiverResampler
from tgq.encoder.connectors.qformer import QFormer
from tgq.encoder.connectors.tgq import HybridConnector
from tgq.errors import ModelError

CONNECTORS: dict[str, type[Connector]] = {
    "tgq": HybridConnector,
    "hybrid_gates": HybridGates,
    "hybrid_nogate": HybridNoGate,
    "anchored_only": AnchoredOnly,
    "qformer": QFormer,
    "instructblip": InstructBLIP,
    "perceiver": PerceiverResampler,
    "mlp": MLPConnector,
    "concat_linear": ConcatLinear,
    "clip_mean": ClipMean,
    "moe_bilinear": MoEBilinear,
}


def connector_class(name: str) -> type[Connector]:
    """The connector class of that name.

    Raises:
        ModelError: there is no such connector; the message lists the names.
    """
    if name not in CONNECTORS:
        raise ModelError(f"unknown connector '{name}'", f"choose one of {', '.join(sorted(CONNECTORS))}")
    return CONNECTORS[name]
