"""The vision tower: any transformers vision checkpoint behind one small interface.

A tower turns pictures or texts into tokens (for the connector) and one pooled feature (for the linear base). It has
no gradient, stays in eval mode, and its `fingerprint` says exactly which weights and which preprocessing it is.
Preprocessing is Pillow and numpy only, so that it runs on decode threads and needs no torchvision.
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

CPU_MICRO_PIXELS = 4 * 224 * 224  # whose activations stay in a core's cache: a batch of 64 pictures takes three times as long
MAX_TILES = 4  # a side


class VisionTower(Tower):
    """Pictures to tokens `[U, N, Dv]` and a pooled feature `[U, Dg]`.

    The last `n_closeups` tokens are close-ups (ours): the picture is cut into `tiles` x `tiles` parts, each is shown to the
    tower by itself, at the checkpoint's own size, and the mean of its tokens is one token more. What shares the frame with
    other things is seen larger so, and without them: a deep CNN's cell sees far beyond its own part of the picture.

    Args:
        fit: see Preprocessing.
        size: pixels a side of the whole picture that it is shown; 0 for the checkpoint's own. A CNN takes any, and sees smaller
            things in more pixels than it was trained with (Touvron et al. 2019, arXiv 1906.06423). Cost and tokens grow
            with its square.
        tiles: a side, for the close-ups; 0: none. Cost grows with its square.

    Raises:
        ModelError: the checkpoint is not there, or sees its own size only; tiles that are not 0 to MAX_TILES.
    """

    def __init__(self, reference: str, fit: str = "pad", relative_to: Path | None = None, size: int = 0, tiles: int = 0):
        super().__init__(reference, relative_to)
        if not 0 <= tiles <= MAX_TILES:
            raise ModelError(f"close-ups of {tiles} x {tiles} parts", f"set closeups to a number from 0 (none) to {MAX_TILES}")
        own = Preprocessing.read(self.folder, fit)
        self._whole, self.tiles = own.at(size) if size else own, tiles
        self.preprocess = own.at(tiles * max(own.height, own.width)) if tiles else self._whole
        if self.is_pair:
            drop_modules(self.model, "text_model", "text_projection")
        else:
            ramp = torch.linspace(-2, 2, 3 * own.height * own.width).view(1, 3, own.height, own.width)
            self.model = folded(self.model, lambda model: model(pixel_values=ramp).last_hidden_state)
        self.model.to(memory_format=torch.channels_last)  # twice as fast for a CNN on CPU, the same for a ViT
        try:
            tokens, pooled = self(torch.zeros(1, 3, self.preprocess.height, self.preprocess.width))
        except (ValueError, RuntimeError):  # position embeddings of one size, or a picture that the strides reduce to nothing
            if not size:
                raise
            raise ModelError(f"vision tower {reference} cannot see pictures of {size} pixels a side, only of {own.height}",
                             "set image_size=0, the checkpoint's own") from None
        self.tokens_per_image, self.width = tokens.shape[1:]
        self.pooled_width = pooled.shape[1]

    @property
    def n_closeups(self) -> int:
        """How many of the tokens, the last ones, are close-ups."""
        return self.tiles**2

    @property
    def input_size(self) -> int:
        """Longest side in pixels that the tower can use; a decoder may scale down to it, not below."""
        p = self.preprocess
        return max(p.height, p.width, p.shortest_edge or 0)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits: weights, configuration and preprocessing."""
        seen = [asdict(self.preprocess), *([asdict(self._whole), self.tiles] if self.tiles else [])]
        return digest_of([self.weights_sha256, *(json.dumps(part, sort_keys=True) for part in seen)])[:16]

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """What the checkpoint's own classes are called, by class number; empty where it has no named classifier."""
        names = self.model.config.id2label or {}
        known = tuple(" ".join(str(names[i]).split()) for i in range(len(names)) if i in names)
        nameless = not known or len(known) < len(names) or all(name == f"LABEL_{i}" for i, name in enumerate(known))
        return () if nameless or self._classifier_shape() != (len(known), self.width) else known

    def class_directions(self) -> Tensor:
        """`[C, Dv]`: for each class of the vocabulary, the direction in token space that its classifier looks along."""
        found = self._classifier()
        if found is None:
            raise ModelError(f"the checkpoint in {self.folder} has no classifier", "choose a checkpoint with named classes")
        file, name = found
        with safe_open(file, "pt") as tensors:
            return tensors.get_tensor(name).float()

    def _classifier(self) -> tuple[Path, str] | None:
        for file in hub.weight_files(self.folder):
            with safe_open(file, "pt") as tensors:
                for name in ("classifier.weight", "classifier.1.weight"):  # a ResNet's stands behind a flattening
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
        """`[U, 3, H, W]` to tokens `[U, N, Dv]` (last layer; a CNN's grid cells; then the close-ups) and pooled `[U, Dg]`.

        Pooled is of the whole picture: the aligned projection of a CLIP-like pair, the mean of a CNN's grid, and else the checkpoint's
        own summary: SigLIP's attention pooling, the CLS token of a ViT.
        """
        if not self.tiles:
            return self._in_parts(pixels)
        size = self._whole.height, self._whole.width
        whole = pixels if size == pixels.shape[2:] else F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False)
        tokens, pooled = self._in_parts(whole)
        rows = pixels.unflatten(2, (self.tiles, -1)).unflatten(4, (self.tiles, -1))  # [U, 3, tiles, h, tiles, w]
        near = self._in_parts(rows.permute(0, 2, 4, 1, 3, 5).flatten(0, 2))[0].mean(1)
        return torch.cat([tokens, near.unflatten(0, (-1, self.n_closeups))], dim=1), pooled

    def _in_parts(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
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
