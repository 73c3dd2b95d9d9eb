"""The ladder's second step: every query comes from the metadata."""

from tgq.encoder.connectors.tgq import HybridConnector


class AnchoredOnly(HybridConnector):
    """As many queries as the hybrid has, all of them anchored; no gates, for there is one stream."""

    gated = decorrelated = False

    @staticmethod
    def counts(config) -> tuple[int, int]:
        """Both of the hybrid's counts are anchored."""
        return config.anchored_queries + config.exploratory_queries, 0
