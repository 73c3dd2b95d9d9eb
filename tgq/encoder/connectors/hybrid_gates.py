"""Fourth step of the ablation: TGQ-Former trained without L_rr."""

from tgq.encoder.connectors.tgq import HybridConnector


class HybridGates(HybridConnector):
    """Both streams and the dual gates. No loss discourages redundant streams."""

    decorrelated = False
