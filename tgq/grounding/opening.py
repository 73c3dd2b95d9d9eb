"""Opens the detector of a policy, once per process."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from tgq.grounding import policy as kinds
from tgq.grounding.detector import Detector
from tgq.grounding.policy import Policy

if TYPE_CHECKING:
    from tgq.encoder.model import TGQFormer


def open_detector(policy: Policy, encoder: TGQFormer, threads: int = 0) -> Detector:
    """The detector of a policy, on the encoder's device; a saliency model runs on the CPU.

    Args:
        encoder: in eval mode; the anchor is its own.
        threads: of onnxruntime; 0: its default.

    Raises:
        ModelError: it cannot be loaded.
    """
    if policy.kind == kinds.ANCHOR:
        from tgq.grounding.anchor import AnchorMap

        return AnchorMap(encoder)
    return _loaded(policy.kind, policy.place, policy.identity, str(next(encoder.parameters()).device), policy.at_once, threads)


@functools.lru_cache(maxsize=1)
def _loaded(kind: str, place: str, identity: str, device: str, at_once: int, threads: int) -> Detector:
    if kind == kinds.SALIENCY:
        from tgq.grounding.saliency import Saliency

        return Saliency(Path(place), threads)
    from tgq.grounding.zero_shot import ZeroShot

    return ZeroShot(Path(place), device, at_once)
