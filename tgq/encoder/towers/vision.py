"""The vision tower: one interface for all transformers vision checkpoints.

The tower maps an image to tokens (for the connector) and one pooled feature (for the linear base). It is frozen and stays in
eval mode. Its `fingerprint` identifies its weights and preprocessing. Preprocessing uses Pillow and numpy only, so that it runs
on decode threads and needs no torchvision.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from tgq.encoder.towers import hub
from tgq.encoder.towers.folding import folded
from tgq.encoder.towers.preprocessing import Preprocessing
from tgq.encoder.towers.tower import Tower, digest_of, drop_modules
from tgq.errors import ModelError

# Pixels per forward pass on a CPU. The activations of so few stay in a core's cache; a pass over 64 images takes three times as long.
CPU_MICRO_PIXELS = 4 * 224 * 224
MAX_TILES = 4  # per side
SMALLER = 3  # side of the image that shows where batch norms are folded: the checkpoint's own size divided by this


class VisionTower(Tower):
    """A frozen vision encoder: images to tokens `[U, N, Dv]` and a pooled feature `[U, Dg]`.

    The last `n_closeups` tokens are close-ups (ours). The image is cut into `tiles` x `tiles` parts, the model runs on each part
    at the checkpoint's own size, and the mean of the part's tokens is one more token. A close-up shows a small object larger
    and without its surroundings, whereas a grid cell of a deep CNN sees far beyond its own part of the image.

    Args:
        reference: bundled name, folder or hub name; see `hub.resolve`.
        fit: see Preprocessing.
        relative_to: the folder that a relative path starts at.
        size: pixels per side of the whole image at the model's input; 0: the checkpoint's own size. A CNN takes any size, and at a
            larger one small objects have more pixels than in its training (Touvron et al. 2019, arXiv 1906.06423). Cost and
            number of tokens grow with its square.
        tiles: parts per side for the close-ups, 0 to MAX_TILES; 0: no close-ups. Cost grows with its square.

    Raises:
        ModelError: the checkpoint cannot be loaded or supports its own size only, or `tiles` is out of range.
    """

    def __init__(self, reference: str, fit: str = "pad", relative_to: Path | None = None, size: int = 0, tiles: int = 0):
        super().__init__(reference, relative_to)
        if not 0 <= tiles <= MAX_TILES:
            raise ModelError(f"closeups is {tiles}", f"set closeups to a number from 0 (none) to {MAX_TILES}")
        own = Preprocessing.read(self.folder, fit)
        self._whole, self.tiles = own.at(size) if size else own, tiles
        self.preprocess = own.at(tiles * max(own.height, own.width)) if tiles else self._whole
        if self.is_pair:
            drop_modules(self.model, "text_model", "text_projection")
        else:
            self.model = _folded(self.model, own)
        self.model.to(memory_format=torch.channels_last)  # twice as fast for a CNN on CPU, the same for a ViT
        try:
            tokens, pooled = self._in_micro_batches(torch.zeros(1, 3, self._whole.height, self._whole.width))
        except (ValueError, RuntimeError):  # fixed position embeddings, or an image that is smaller than the strides
            if not size:
                raise
            raise ModelError(f"vision tower {reference} does not support images of {size} pixels per side, only of {own.height}",
                             "set image_size=0 for the checkpoint's own size") from None
        self.tokens_per_image, self.width = tokens.shape[1] + self.n_closeups, tokens.shape[2]
        self.pooled_width = pooled.shape[1]

    @property
    def n_closeups(self) -> int:
        """Number of close-up tokens, which are the last ones."""
        return self.tiles**2

    @property
    def input_size(self) -> int:
        """Longest side in pixels that preprocessing uses. A decoder may scale an image down to this size, but not below."""
        p = self.preprocess
        return max(p.height, p.width, p.shortest_edge or 0)

    @property
    def whole_size(self) -> tuple[int, int]:
        """Height and width in pixels of the whole image at the model's input."""
        return self._whole.height, self._whole.width

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that identify weights, configuration and preprocessing."""
        preprocessing = [asdict(self.preprocess), *([asdict(self._whole), self.tiles] if self.tiles else [])]
        return digest_of([self.weights_sha256, *(json.dumps(part, sort_keys=True) for part in preprocessing)])[:16]

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The checkpoint's class names by class number; empty if it has no classifier with named classes."""
        names = self.model.config.id2label or {}
        known = tuple(" ".join(str(names[i]).split()) for i in range(len(names)) if i in names)
        unnamed = not known or len(known) < len(names) or all(name == f"LABEL_{i}" for i, name in enumerate(known))
        return () if unnamed or self._classifier_shape() != (len(known), self.width) else known

    def class_directions(self) -> Tensor:
        """The classifier's weight rows `[C, Dv]`, one per class of the vocabulary. Only for a checkpoint with a vocabulary."""
        found = self._classifier()
        if found is None:
            raise ModelError(f"the checkpoint in {self.folder} has no classifier", "choose a checkpoint with named classes")
        file, name = found
        with safe_open(file, "pt") as tensors:
            return tensors.get_tensor(name).float()

    def _classifier(self) -> tuple[Path, str] | None:
        for file in hub.weight_files(self.folder):
            with safe_open(file, "pt") as tensors:
                for name in ("classifier.weight", "classifier.1.weight"):  # in a ResNet a flattening layer comes first
                    if name in tensors.keys():  # noqa: SIM118, not a mapping
                        return file, name
        return None

    def _classifier_shape(self) -> tuple[int, ...] | None:
        if (found := self._classifier()) is None:
            return None
        with safe_open(found[0], "pt") as tensors:
            return tuple(tensors.get_slice(found[1]).get_shape())

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `[U, N, Dv]` and pooled features `[U, Dg]` of preprocessed images `[U, 3, H, W]`.

        The tokens are the last layer's, a CNN's grid cells row by row, and then the close-ups. The pooled feature is of the whole
        image: the aligned projection of a CLIP-like pair, the mean over a CNN's grid, SigLIP's attention pooling, or the CLS token
        of another ViT.
        """
        if not self.tiles:
            return self._in_micro_batches(pixels)
        tokens, pooled = self.whole(pixels)
        rows = pixels.unflatten(2, (self.tiles, -1)).unflatten(4, (self.tiles, -1))  # [U, 3, tiles, h, tiles, w]
        closeups = self.closeup(rows.permute(0, 2, 4, 1, 3, 5).flatten(0, 2))
        return torch.cat([tokens, closeups.unflatten(0, (-1, self.n_closeups))], dim=1), pooled

    @torch.no_grad()
    def whole(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens without close-ups `[U, N - n_closeups, Dv]` and the pooled features of normalised images `[U, 3, H, W]` of any size."""
        return self._in_micro_batches(resized(pixels, self.whole_size))

    @torch.no_grad()
    def closeup(self, pixels: Tensor) -> Tensor:
        """The close-up token `[U, Dv]` of normalised images `[U, 3, H, W]`, which are run as they are: the mean of their tokens."""
        return self._in_micro_batches(pixels)[0].mean(1)

    def _in_micro_batches(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        if pixels.device.type != "cpu":
            return self._run(pixels)
        at_once = max(1, round(CPU_MICRO_PIXELS / (pixels.shape[2] * pixels.shape[3])))
        parts = [self._run(part) for part in pixels.split(at_once)]
        return torch.cat([tokens for tokens, _ in parts]), torch.cat([pooled for _, pooled in parts])

    def _run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        if self.is_pair:
            out = self.model.get_image_features(pixel_values=pixels)
            return out.last_hidden_state, out.pooler_output
        out = self.model(pixel_values=pixels)
        tokens = out.last_hidden_state
        if tokens.ndim == 4:  # [U, Dv, h, w]
            tokens = tokens.flatten(2).transpose(1, 2)
            return tokens, tokens.mean(1)
        pooler = self.model.config.model_type.startswith("siglip")
        return tokens, out.pooler_output if pooler else tokens[:, 0]


def resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Images `[U, 3, H, W]` at another height and width, by bicubic interpolation; unchanged if they have that size."""
    return pixels if tuple(pixels.shape[2:]) == size else F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False)


def _folded(model: torch.nn.Module, own: Preprocessing) -> torch.nn.Module:
    """The model with its batch norms folded, as seen in passes over a small image: they are most of the time that loading takes.

    A model that supports its own size only gets passes of that size.
    """

    def passes(height: int, width: int) -> torch.nn.Module:
        ramp = torch.linspace(-2, 2, 3 * height * width).view(1, 3, height, width)
        return folded(model, lambda each: each(pixel_values=ramp).last_hidden_state)

    try:
        return passes(-(-own.height // SMALLER), -(-own.width // SMALLER))
    except (ValueError, RuntimeError):
        return passes(own.height, own.width)
