"""Second step of the ablation: all queries come from the metadata."""

from tgq.encoder.connectors.tgq import HybridConnector


class AnchoredOnly(HybridConnector):
    """As many queries as the hybrid connector, all of them anchored. There is one stream, so there are no gates."""

    gated = decorrelated = False

    @staticmethod
    def counts(config) -> tuple[int, int]:
        """All queries of the hybrid connector are anchored, none exploratory."""
        return config.anchored_queries + config.exploratory_queries, 0
