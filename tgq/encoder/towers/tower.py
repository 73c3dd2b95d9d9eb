"""What both towers share: frozen weights and a fingerprint of what decides their output."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from tgq.encoder.towers import hub
from tgq.encoder.towers.loading import load_model


class Tower(nn.Module):
    """A frozen transformers model and its fingerprint.

    Args:
        reference: what `hub.resolve` takes.
        relative_to: where a relative path starts (the encoder's folder).
    """

    model: Any  # transformers' models share no type that says what they have
    width: int
    pooled_width: int

    def __init__(self, reference: str, relative_to: Path | None = None):
        super().__init__()
        self.folder = hub.resolve(reference, relative_to)
        self.model = load_model(self.folder)
        self.model.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Tower:
        """Frozen: batch norm and dropout never see training, whatever the parent module does."""
        return super().train(False)

    @property
    def is_pair(self) -> bool:
        """Whether the checkpoint holds both sides of an aligned image-text pair (CLIP and its kin)."""
        return hasattr(self.model, "get_image_features")

    @cached_property
    def weights_sha256(self) -> str:
        """sha256 over the checkpoint's weights and configuration."""
        files = [*hub.weight_files(self.folder), self.folder / "config.json"]
        return digest_of([hub.sha256_of(file) for file in files])


def drop_modules(model: nn.Module, *names: str) -> None:
    for name in names:
        if hasattr(model, name):
            delattr(model, name)


def digest_of(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
