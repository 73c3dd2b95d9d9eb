"""The base class of both towers: a frozen model with a hash of its weights."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from tgq.encoder.layers.linear import use_linear
from tgq.encoder.towers import hub
from tgq.encoder.towers.loading import load_model


class Tower(nn.Module):
    """A frozen transformers model.

    Args:
        reference: bundled name, folder or hub name; see `hub.resolve`.
        relative_to: the folder that a relative path starts at, which is the encoder's.

    Raises:
        ModelError: the checkpoint cannot be found or loaded.
    """

    model: Any  # transformers' models share no type that says what they have
    width: int
    pooled_width: int

    def __init__(self, reference: str, relative_to: Path | None = None):
        super().__init__()
        self.folder = hub.resolve(reference, relative_to)
        self.model = load_model(self.folder)
        use_linear(self.model)
        self.model.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Tower:
        """Stay in eval mode when the parent module switches to training, so that batch norm and dropout stay fixed."""
        return super().train(False)

    @property
    def is_pair(self) -> bool:
        """Whether the checkpoint holds both sides of an aligned image-text pair (CLIP, SigLIP)."""
        return hasattr(self.model, "get_image_features")

    @cached_property
    def weights_sha256(self) -> str:
        """Hex sha256 over the checkpoint's weights and configuration."""
        files = [*hub.weight_files(self.folder), self.folder / "config.json"]
        return digest_of([hub.sha256_of(file) for file in files])


def drop_modules(model: nn.Module, *names: str) -> None:
    """Delete the submodules of these names, if the model has them."""
    for name in names:
        if hasattr(model, name):
            delattr(model, name)


def digest_of(parts: list[str]) -> str:
    """Hex sha256 over several strings."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
