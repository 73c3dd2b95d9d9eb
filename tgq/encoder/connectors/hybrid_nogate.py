"""The ladder's third step: both streams of queries, every one counting fully."""

from tgq.encoder.connectors.tgq import HybridConnector


class HybridNoGate(HybridConnector):
    """Anchored and exploratory queries without gates."""

    gated = decorrelated = False
