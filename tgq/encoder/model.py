"""The TGQ-Former encoder: frozen towers, hybrid-query connector, dual gates and head (arXiv 2605.17366)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tgq.encoder.config import CONFIG, WEIGHTS, EncoderConfig
from tgq.encoder.connectors import connector_class
from tgq.encoder.features import Features
from tgq.encoder.layers.anchor import Anchor
from tgq.encoder.layers.gates import DualGates
from tgq.encoder.layers.heads import LightHead, LLMHead, Streams
from tgq.encoder.layers.linear import Linear
from tgq.encoder.layers.reliability import Alignment, Reliability
from tgq.encoder.packing import CachedText
from tgq.encoder.towers import hub
from tgq.encoder.towers.text import TextTower
from tgq.encoder.towers.vision import VisionTower
from tgq.errors import ModelError

DEFAULT_ENCODER = Path(__file__).parent / "pretrained" / "default"


@dataclass
class EncoderOutput:
    """The encoder's output for B items, float32 on CPU."""

    embedding: Tensor  # [B, De], unit length
    image: Tensor  # [B, Dg] frozen f_img, zeros if the image is missing
    text: Tensor  # [B, Dp] frozen f_txt, zeros if the text is empty
    agreement: Tensor  # [B] S_title, nan if image or title is missing
    gate_metadata: Tensor  # [B] mean of 1 + beta over channels, in (0, 2)
    gate_exploratory: Tensor  # [B] likewise


@dataclass
class Forward:
    """Output of the trainable part for B items, including the intermediate values that the losses need."""

    embedding: Tensor  # [B, De], unit length
    agreement: Tensor  # [B] S_title, nan if image or title is missing
    anchored: Tensor  # [B, D] mean over tokens of E~_txt
    exploratory: Tensor  # [B, D] mean over tokens of E~_rnd
    gate_metadata: Tensor  # [B, D] 1 + beta, in (0, 2), times the trust in the metadata
    gate_exploratory: Tensor  # [B, D] 1 + beta
    streams: Streams  # output of connector and gates, before the head


class TGQFormer(nn.Module):
    """Item encoder. `encode` maps pixels and texts to embeddings; `forward` is its trainable part, over tower features.

    Shapes: B items, U unique images, N visual tokens, L text positions, n anchored and m exploratory tokens.

    Args:
        config: see EncoderConfig.
        relative_to: the folder that relative tower paths start at.

    Raises:
        ModelError: a tower, connector or head of the configuration does not exist.
    """

    def __init__(self, config: EncoderConfig, relative_to: Path | None = None):
        super().__init__()
        self.config, self.relative_to, self.dtype = config, relative_to, torch.float32
        self.vision = VisionTower(config.vision, config.fit, relative_to, config.image_size, config.closeups)
        self.text = TextTower(config.text, config.text_length, relative_to)
        v, t = self.vision, self.text
        aligned = v.is_pair and v.weights_sha256 == t.weights_sha256
        self.image_in = nn.Sequential(nn.LayerNorm(v.width, elementwise_affine=False), Linear(v.width, config.width))
        self.null_image = nn.Parameter(torch.randn(config.width) * 0.02)
        self.position = nn.Parameter(torch.randn(v.tokens_per_image, config.width) * 0.02)
        design = connector_class(config.connector)
        self.connector = design(config, t.width, t.max_length)
        anchored = config.anchor and config.head == "light" and self.connector.n_anchored  # the llm head pools no image
        self.anchor = Anchor(len(v.vocabulary), v.width, t.pooled_width, v.n_closeups) if anchored else None
        self.gates = DualGates(config.width, v.pooled_width) if design.gated else None
        judged = config.reliability and config.head == "light" and self.gates is not None
        widths = v.pooled_width, t.pooled_width, config.alignment_dim
        self.alignment = Alignment(*widths, learned=not aligned, centred=judged)
        self.reliability = Reliability(*widths, learned=not aligned) if judged else None
        if judged:  # both are fitted in closed form
            self.alignment.requires_grad_(False)
        if config.head not in ("light", "llm"):
            raise ModelError(f"unknown head '{config.head}'", "choose light or llm")
        self.head: LightHead | LLMHead
        if config.head == "light":
            self.head = LightHead(config, v.width, v.pooled_width, t.pooled_width, v.n_closeups, design.fusion)
        else:
            self.head = LLMHead(config, relative_to)

    @property
    def dim(self) -> int:
        """Width of an item embedding."""
        return self.config.dim

    def forward(self, features: Features) -> Forward:
        """Embeddings of B items from their tower features, with the intermediate values that the losses need."""
        streams, agreement = self.streams(features)
        embedding = F.normalize(self.head(features, streams).float(), dim=-1)
        anchored, exploratory = (x.sum(1) / max(1, x.shape[1]) for x in (streams.anchored, streams.exploratory))  # max: a stream may be empty
        gate_metadata = streams.gate_metadata * streams.trust[:, None] if self.reliability is not None else streams.gate_metadata
        return Forward(embedding, agreement, anchored, exploratory, gate_metadata, streams.gate_exploratory, streams)

    def streams(self, features: Features) -> tuple[Streams, Tensor]:
        """Output of connector and gates, and S_title `[B]`."""
        f = features
        image_or_null = torch.where(f.has_image[:, None, None], self.image_in(f.image_tokens), self.null_image)
        projected = image_or_null + self.position
        agreement = self.alignment.cosine(f.image, f.title).masked_fill(~(f.has_image & f.has_title), float("nan"))
        trust = torch.ones_like(agreement) if self.reliability is None else self.reliability(f, self.alignment)

        tokens = self.connector(projected, f.text_tokens, f.text_mask)
        anchored, exploratory = tokens[:, : self.connector.n_anchored], tokens[:, self.connector.n_anchored :]
        if self.gates is None:
            gate_metadata = gate_exploratory = tokens.new_ones(len(tokens), self.config.width)
        else:
            anchored, exploratory, gate_metadata, gate_exploratory = self.gates(anchored, exploratory, f.image, agreement)
        if self.reliability is not None:
            anchored = anchored * trust[:, None, None]
        return Streams(projected, anchored, exploratory, gate_metadata, gate_exploratory, trust[:, None] * self.attention_logits(f), trust), agreement

    def attention_logits(self, features: Features) -> Tensor:
        """The anchor's attention logits `[B, N]`; zero without an anchor and for items without image or metadata."""
        f = features
        if self.anchor is None:
            return f.image_tokens.new_zeros(f.image_tokens.shape[:2])
        present = f.has_image & f.has_text
        if f.attention_logits is not None:
            return f.attention_logits.masked_fill(~present[:, None], 0.0)
        return self.anchor(f.image_tokens, f.text, present)

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Run the vision tower on U preprocessed images `[U, 3, H, W]`: tokens `[U, N, Dv]` and pooled features `[U, Dg]`.

        The results are float32 values rounded to float16, which is the precision of the feature cache. Fresh and cached
        features are therefore equal.
        """
        with self.autocast():
            features = self.vision(pixels.to(self.null_image.device, non_blocking=True))
        return tuple(value.half().float() for value in features)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Run the text tower on T texts: tokens `[T, L, Dt]`, mask `[T, L]` and pooled features `[T, Dp]`.

        The results are rounded as in `encode_image`.
        """
        with self.autocast():
            tokens, mask, pooled = self.text(list(texts))
        return tokens.half().float(), mask, pooled.half().float()

    @torch.no_grad()
    def features(
        self, image_features: tuple[Tensor, Tensor] | None, image_index: Tensor, metadata: Sequence[str], titles: Sequence[str],
        cached_texts: Mapping[int, CachedText] = MappingProxyType({}),
    ) -> Features:  # fmt: skip
        """Tower features of B items. The text tower runs once per unique text that is not cached.

        Args:
            image_features: tokens and pooled features of the U unique images, fresh from `encode_image` or cached; None if no item
                has an image.
            image_index: `[B]`, the row of each item's image in `image_features`; -1: no image.
            metadata: B metadata texts, '' for none.
            titles: B titles, '' for none.
            cached_texts: cached text features by item number; the other items' texts go through the text tower.
        """
        device, v = self.null_image.device, self.vision
        if image_features is None:
            image_features = torch.zeros(1, v.tokens_per_image, v.width, device=device), torch.zeros(1, v.pooled_width, device=device)
        tokens, pooled = image_features
        image_index = image_index.to(device)
        has_image, at = image_index >= 0, image_index.clamp(min=0)
        texts = self._text_features(metadata, titles, cached_texts)
        return Features(tokens[at], pooled[at] * has_image[:, None], has_image, *texts, tuple(metadata))

    def _text_features(self, metadata: Sequence[str], titles: Sequence[str], cached_texts: Mapping[int, CachedText]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Per item: metadata tokens `[B, L, Dt]`, mask `[B, L]` and pooled feature `[B, Dp]`, and the title's pooled feature `[B, Dp]`."""
        t, device, items = self.text, self.null_image.device, len(metadata)
        shapes = (items, t.max_length, t.width), (items, t.max_length), (items, t.pooled_width), (items, t.pooled_width)
        tokens, mask, pooled, title = (torch.zeros(shape, device=device) for shape in shapes)
        mask = mask.bool()
        if uncached := [i for i in range(items) if i not in cached_texts]:
            unique = list(dict.fromkeys([metadata[i] for i in uncached] + [titles[i] for i in uncached]))
            place = {value: at for at, value in enumerate(unique)}
            rows, metadata_at, titles_at = (torch.tensor(x, device=device) for x in
                                            (uncached, [place[metadata[i]] for i in uncached], [place[titles[i]] for i in uncached]))
            encoded = self.encode_text(unique)
            tokens[rows], mask[rows], pooled[rows], title[rows] = *(value[metadata_at] for value in encoded), encoded[2][titles_at]
        for i, text in cached_texts.items():
            unmasked = torch.from_numpy(text.mask.copy()).to(device)
            mask[i] = unmasked
            tokens[i, unmasked] = torch.from_numpy(text.tokens.astype(np.float32)).to(device)
            pooled[i], title[i] = (torch.from_numpy(x.astype(np.float32)).to(device) for x in (text.pooled, text.title))
        return tokens, mask, pooled, title

    @torch.no_grad()
    def encode(
        self, pixels: Tensor | None, image_index: Tensor, metadata: Sequence[str], titles: Sequence[str]
    ) -> EncoderOutput:
        """Embed B items with U unique images.

        Args:
            pixels: `[U, 3, H, W]`, images after `vision.preprocess`; None if no item has an image.
            image_index: `[B]`, the row of each item's image in `pixels`; -1: no image.
            metadata: B texts made by `metadata_text`, '' for none.
            titles: B titles, '' for none.

        Raises:
            RuntimeError: the encoder is in training mode.
        """
        image_features = self.encode_image(pixels) if pixels is not None and len(pixels) else None
        return self.embed(self.features(image_features, image_index, metadata, titles))

    @torch.no_grad()
    def embed(self, features: Features) -> EncoderOutput:
        """Embed B items from their tower features.

        Raises:
            RuntimeError: the encoder is in training mode.
        """
        if self.training:
            raise RuntimeError("embed needs eval mode: call .eval() first")
        with self.autocast():
            out = self(features)
        parts = (out.embedding, features.image, features.text, out.agreement,
                 out.gate_metadata.mean(-1), out.gate_exploratory.mean(-1))
        return EncoderOutput(*(part.float().cpu() for part in parts))

    def autocast(self) -> torch.autocast:
        """The precision that the towers run in: bfloat16 for an encoder of that dtype, else float32."""
        return torch.autocast(self.null_image.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def own_state(self) -> dict[str, Tensor]:
        """The encoder's own weights by name, without the frozen weights of the towers and of the language model."""
        return {
            name: value for name, value in self.state_dict().items()
            if not name.startswith(("vision.", "text.")) and not (name.startswith("head.llm.") and "lora_" not in name)
        }

    @property
    def model_version(self) -> str:
        """16 hex digits that identify the model: a hash of its own weights, its configuration and the towers' fingerprints.

        A fingerprint covers weights and preprocessing. Tower references are left out of the hash, because the same towers in
        another folder are the same model.
        """
        digest = hashlib.sha256()
        for name, value in sorted(self.own_state().items()):
            digest.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
        shape = asdict(replace(self.config, vision=self.vision.fingerprint, text=self.text.fingerprint, llm=self._llm_sha()))
        del shape["image_size"], shape["closeups"]  # they are part of the vision tower's fingerprint
        for name in ("imputation", "reliability"):  # newer than encoders whose version must stay
            if not shape[name]:
                del shape[name]
        digest.update(json.dumps(shape, sort_keys=True).encode())
        return digest.hexdigest()[:16]

    def _llm_sha(self) -> str:
        files = hub.weight_files(self.head.folder) if isinstance(self.head, LLMHead) else []
        return "".join(hub.sha256_of(file) for file in files)

    def save_pretrained(self, path: str | Path) -> None:
        """Write `config.json` and `model.safetensors` to a folder.

        The weights are the encoder's own, in float16 if that is exact.

        Raises:
            ModelError: the LoRA adapters were merged into the language model.
        """
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: value.detach().cpu().contiguous() for name, value in self.own_state().items()}
        if all(torch.equal(value, value.half().float()) for value in state.values()):
            state = {name: value.half() for name, value in state.items()}
        if self.config.head == "llm" and not any("lora_" in name for name in state):
            raise ModelError("an encoder with merged adapters cannot be saved", "save it before the call of merge()")
        save_file(state, folder / WEIGHTS, {"format": "pt"})
        (folder / WEIGHTS).chmod(0o644)  # safetensors makes the file private to its owner, but workers may run as another user
        moved: dict[str, Any] = {name: hub.moved(getattr(self.config, name), self.relative_to, folder) for name in ("vision", "text", "llm")}
        (folder / CONFIG).write_text(json.dumps(asdict(replace(self.config, **moved)), indent=1) + "\n")

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> TGQFormer:
        """Load an encoder folder, in eval mode.

        Args:
            path: the folder; `"default"` is the encoder that ships with tgq.
            dtype: torch.float32, or torch.bfloat16 to run under autocast.

        Raises:
            ModelError: the folder does not exist, has no weights, or has weights that do not fit its configuration.
        """
        folder = DEFAULT_ENCODER if str(path) == "default" else Path(path)
        if not folder.is_dir():
            raise ModelError(f"encoder folder {folder} does not exist", "give a folder written by save_pretrained")
        config = EncoderConfig.read(folder)
        if not (folder / WEIGHTS).is_file():
            raise ModelError(f"encoder folder {folder} has no {WEIGHTS}", "train the encoder, or copy the whole folder")
        model = cls(config, relative_to=folder)
        try:
            state = load_file(folder / WEIGHTS)
        except Exception as error:
            raise ModelError(f"{folder / WEIGHTS} cannot be read ({error})", "copy the file again") from None
        wanted = model.own_state()
        shapes, found = ({name: value.shape for name, value in s.items()} for s in (wanted, state))
        if shapes != found:
            wrong = min(name for name in shapes | found if shapes.get(name) != found.get(name))
            raise ModelError(f"{folder / WEIGHTS} does not fit its {CONFIG} at weight '{wrong}'",
                             "use the config.json that was saved with these weights")
        model.load_state_dict(state, strict=False)
        model.dtype = dtype
        return model.to(device).eval()
