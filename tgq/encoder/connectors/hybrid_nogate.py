"""Third step of the ablation: both streams of queries, without gates."""

from tgq.encoder.connectors.tgq import HybridConnector


class HybridNoGate(HybridConnector):
    """Anchored and exploratory queries, both at full weight."""

    gated = decorrelated = False
