"""The ladder's last step but one: TGQ-Former trained without L_rr."""

from tgq.encoder.connectors.tgq import HybridConnector


class HybridGates(HybridConnector):
    """Both streams and the dual gates; nothing keeps the streams from saying the same."""

    decorrelated = False
