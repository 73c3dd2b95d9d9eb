"""The frozen towers: any transformers vision or text checkpoint behind one small interface.

A tower turns pictures or texts into tokens (for the connector) and one pooled feature (for the linear base). It has
no gradient, stays in eval mode, and its `fingerprint` says exactly which weights and which preprocessing it is.
Preprocessing is Pillow and numpy only, so that it runs on decode threads and needs no torchvision.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from tgq.encoder.towers import hub
from tgq.encoder.towers.folding import folded
from tgq.errors import ModelError

CPU_MICRO_PIXELS = 4 * 224 * 224  # whose activations stay in a core's cache: a batch of 64 pictures takes three times as long
MAX_TILES = 4  # a side


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a tensor. Read from `preprocessor_config.json`, except `fit`, which is the encoder's."""

    height: int
    width: int
    resample: int  # Pillow's filter number
    rescale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: str  # pad: the whole picture on a white square (shop pictures); crop: the checkpoint's own resize and crop
    shortest_edge: int | None  # crop: shortest side before the central crop; None squashes to height x width

    @classmethod
    def read(cls, folder: Path, fit: str) -> Preprocessing:
        """Raises ModelError where the folder has no `preprocessor_config.json` that names a size."""
        path = folder / "preprocessor_config.json"
        if not path.is_file():
            raise ModelError(f"vision tower {folder} has no preprocessor_config.json", "save its image processor there")
        raw = json.loads(path.read_text())
        size = raw.get("size") or {}
        size = {"height": size, "width": size} if isinstance(size, int) else size
        crop = raw.get("crop_size") if raw.get("do_center_crop") else None
        crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
        edge = size.get("shortest_edge")
        final = crop or ({"height": edge, "width": edge} if edge else size)
        if "height" not in final or "width" not in final:
            raise ModelError(f"{path} names no picture size (size: {size})", "give size.height and size.width")
        scale, normal = raw.get("do_rescale", True), raw.get("do_normalize", True)
        return cls(
            height=final["height"], width=final["width"], resample=int(raw.get("resample", 3)),
            rescale=float(raw.get("rescale_factor", 1 / 255)) if scale else 1.0,
            mean=tuple(raw["image_mean"]) if normal else (0.0,) * 3,
            std=tuple(raw["image_std"]) if normal else (1.0,) * 3,
            fit=fit, shortest_edge=edge if crop else None,
        )

    def at(self, size: int) -> Preprocessing:
        """The same for `size` pixels a side, the margins of a central crop in proportion."""
        edge = self.shortest_edge and round(self.shortest_edge * size / min(self.height, self.width))
        return replace(self, height=size, width=size, shortest_edge=edge)

    def __call__(self, image: Image.Image) -> Tensor:
        """An RGB picture as float32 `[3, height, width]`, normalised."""
        fitted = _pad(image, self) if self.fit == "pad" else _crop(image, self)
        array = np.asarray(fitted, dtype=np.float32) * np.float32(self.rescale)
        array = (array - np.float32(self.mean)) / np.float32(self.std)
        return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def _pad(image: Image.Image, to: Preprocessing) -> Image.Image:
    scale = min(to.width / image.width, to.height / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    canvas = Image.new("RGB", (to.width, to.height), (255, 255, 255))
    canvas.paste(image.resize(size, to.resample), ((to.width - size[0]) // 2, (to.height - size[1]) // 2))
    return canvas


def _crop(image: Image.Image, to: Preprocessing) -> Image.Image:
    if to.shortest_edge is None:
        return image.resize((to.width, to.height), to.resample)
    scale = to.shortest_edge / min(image.size)
    size = max(to.width, round(image.width * scale)), max(to.height, round(image.height * scale))
    left, top = (size[0] - to.width) // 2, (size[1] - to.height) // 2
    return image.resize(size, to.resample).crop((left, top, left + to.width, top + to.height))


class Tower(nn.Module):
    """A frozen transformers model and its fingerprint.

    Args:
        reference: what `hub.resolve` takes.
        relative_to: where a relative path starts (the encoder's folder).
    """

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
        return _digest([hub.sha256_of(file) for file in files])


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
            _drop(self.model, "text_model", "text_projection")
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
        return _digest([self.weights_sha256, *(json.dumps(part, sort_keys=True) for part in seen)])[:16]

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """What the checkpoint's own classes are called, by class number; empty where it has no named classifier."""
        names = self.model.config.id2label or {}
        known = tuple(" ".join(str(names[i]).split()) for i in range(len(names)) if i in names)
        nameless = not known or len(known) < len(names) or all(name == f"LABEL_{i}" for i, name in enumerate(known))
        return () if nameless or self._classifier_shape() != (len(known), self.width) else known

    def class_directions(self) -> Tensor:
        """`[C, Dv]`: for each class of the vocabulary, the direction in token space that its classifier looks along."""
        file, name = self._classifier()
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


class TextTower(Tower):
    """Texts to tokens `[B, L, Dt]`, their mask `[B, L]` and a pooled feature `[B, Dp]`."""

    def __init__(self, reference: str, max_length: int = 64, relative_to: Path | None = None):
        super().__init__(reference, relative_to)
        self.tokenizer = load_tokenizer(self.folder)
        if self.is_pair:
            _drop(self.model, "vision_model", "visual_projection")
        config = getattr(self.model.config, "text_config", self.model.config)
        self.max_length = min(max_length, config.max_position_embeddings)
        self.pooling = _sentence_pooling(self.folder)
        with torch.no_grad():
            tokens, _, pooled = self(["a"])
        self.width, self.pooled_width = tokens.shape[2], pooled.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits: weights, configuration, tokenizer and length."""
        names = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
        files = [hub.sha256_of(self.folder / name) for name in names if (self.folder / name).is_file()]
        return _digest([self.weights_sha256, *files, str(self.max_length), self.pooling])[:16]

    @torch.no_grad()
    def forward(self, texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (zero where padded), bool mask and pooled feature. An empty text is all zeros and all masked.

        The tower pads to the longest text of the call only (its cost grows with that length); the output is always
        `max_length` long, so nothing downstream can tell which batch a text came in.
        """
        device = next(self.model.parameters()).device
        tokens = torch.zeros(len(texts), self.max_length, 0, device=device)
        mask = torch.zeros(len(texts), self.max_length, dtype=torch.bool, device=device)
        present = [i for i, text in enumerate(texts) if text]
        if not present:
            return tokens.new_zeros(*mask.shape, self.width), mask, tokens.new_zeros(len(texts), self.pooled_width)
        batch = self.tokenizer(
            [texts[i] for i in present], padding="max_length" if self._fixed else "longest", truncation=True,
            max_length=self.max_length, return_tensors="pt", return_attention_mask=True,
        ).to(device)
        hidden, summary = self._run(batch)
        kept = batch["attention_mask"].bool()
        rows, length = torch.tensor(present, device=device), kept.shape[1]
        mask[rows, :length] = kept
        tokens = hidden.new_zeros(*mask.shape, hidden.shape[2])
        tokens[rows, :length] = hidden * kept[..., None]
        pooled = summary.new_zeros(len(texts), summary.shape[1])
        pooled[rows] = summary
        return tokens, mask, pooled

    @property
    def _fixed(self) -> bool:  # SigLIP was trained without an attention mask, on texts padded to the full length
        return self.model.config.model_type.startswith("siglip")

    def _run(self, batch) -> tuple[Tensor, Tensor]:
        known = {k: v for k, v in batch.items() if not (self._fixed and k == "attention_mask")}
        if self.is_pair:
            out = self.model.get_text_features(**known)
            return out.last_hidden_state, out.pooler_output
        hidden = self.model(**known).last_hidden_state
        if self.pooling == "cls":
            return hidden, hidden[:, 0]
        weight = batch["attention_mask"][..., None].to(hidden.dtype)
        return hidden, (hidden * weight).sum(1) / weight.sum(1)


def load_model(folder: Path) -> nn.Module:
    """A transformers checkpoint from its safetensors, float32; ModelError where it cannot be had whole."""
    from transformers import AutoModel

    try:
        with quiet_transformers():
            model, info = AutoModel.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, trust_remote_code=False, dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"model folder {folder} cannot be loaded ({reason})", "save it with save_pretrained") from None
    missing = [name for name in sorted(info["missing_keys"]) if not name.startswith("pooler.")]  # no tower uses a pooler
    if missing:
        raise ModelError(f"the weights of {folder} lack '{missing[0]}' and {len(missing) - 1} more",
                         "give the whole checkpoint; what is missing would be random")
    return model


@contextmanager
def quiet_transformers():
    """No progress bar and no report per tower per worker process; what is wrong is raised instead."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def load_tokenizer(folder: Path):
    """The folder's tokenizer; ModelError where there is none, or one that knows no word."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"model folder {folder} has no usable tokenizer ({reason})", "save its tokenizer there") from None
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what transformers makes up where there is no vocabulary
        raise ModelError(f"model folder {folder} has a tokenizer without a vocabulary", "save its tokenizer there")
    return tokenizer


def _sentence_pooling(folder: Path) -> str:
    """mean, unless the folder is a sentence-transformers model that says cls."""
    path = folder / "1_Pooling" / "config.json"
    return "cls" if path.is_file() and json.loads(path.read_text()).get("pooling_mode_cls_token") else "mean"


def _drop(model: nn.Module, *names: str) -> None:
    for name in names:
        if hasattr(model, name):
            delattr(model, name)


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
