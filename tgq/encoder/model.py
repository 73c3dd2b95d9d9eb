"""TGQ-Former, top to bottom: frozen towers, hybrid-query connector, dual gates, head (arXiv 2605.17366)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import LongTensor, Tensor, nn

from tgq.encoder.anchor import Anchor
from tgq.encoder.connectors import connector_class
from tgq.encoder.features import Features
from tgq.encoder.gates import DualGates
from tgq.encoder.heads import LightHead, LLMHead, Streams
from tgq.encoder.packing import CachedText
from tgq.encoder.towers import hub
from tgq.encoder.towers.text import TextTower
from tgq.encoder.towers.vision import VisionTower
from tgq.errors import ModelError

DEFAULT_ENCODER = Path(__file__).parent / "pretrained" / "default"
WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class EncoderConfig:
    """What an encoder is made of. References: a bundled tower, a folder (relative to the encoder's), or a hub name."""

    vision: str = "efficientnet-lite0"
    text: str = "all-minilm-l6-v2"
    fit: str = "pad"  # pad: the whole picture on white; crop: as the vision checkpoint crops
    image_size: int = 320  # pixels a side of the whole picture that the vision tower is shown; 0: the checkpoint's own
    closeups: int = 2  # and each part of a grid of so many a side by itself, at the checkpoint's own size; 0: none
    text_length: int = 64  # tokens of metadata that are read, and padded to
    dim: int = 768  # De, width of an item embedding
    connector: str = "tgq"  # a name in tgq.encoder.connectors
    anchor: bool = True  # light head: the pooling looks where the metadata points in the picture
    width: int = 128  # Dq, width of connector tokens
    heads: int = 4  # attention heads in the connector
    depth: int = 2  # cross-attention blocks in the connector
    anchored_queries: int = 8  # from the metadata
    exploratory_queries: int = 8  # learned
    dropout: float = 0.1  # in the connector, while training
    alignment_dim: int = 64  # width of the learned image-title space, where the towers are no aligned pair
    head: str = "light"  # light: linear base + connector; llm: language model with LoRA
    image_root: bool = True  # light head: signed square root of f_img before the linear base
    pooling_heads: int = 4  # light head: channel shares of the tower's feature that are pooled apart
    llm: str = ""  # llm head: the language model's reference
    lora_rank: int = 16  # llm head: rank of the adapters

    @classmethod
    def read(cls, folder: Path) -> EncoderConfig:
        """From an encoder folder; ModelError for a missing file or an unknown key."""
        path = folder / CONFIG
        if not path.is_file():
            raise ModelError(f"encoder folder {folder} has no {CONFIG}", "give a folder written by save_pretrained")
        values = json.loads(path.read_text())
        if unknown := sorted(set(values) - set(cls.__dataclass_fields__)):
            raise ModelError(f"{path} has the unknown key '{unknown[0]}'", "train it again with this version")
        return cls(**{"image_size": 0, "closeups": 0} | values)  # an encoder from before there was a choice


@dataclass
class EncoderOutput:
    """Per item of a batch, float32 on CPU."""

    embedding: Tensor  # [B, De], unit length
    image: Tensor  # [B, Dg] frozen f_img, zeros where missing
    text: Tensor  # [B, Dp] frozen f_txt, zeros where empty
    agreement: Tensor  # [B] S_title, nan where a side is missing
    gate_metadata: Tensor  # [B] mean of 1 + beta over channels, in (0, 2)
    gate_exploratory: Tensor  # [B]


@dataclass
class Forward:
    """What one pass of the trainable part gives, with what the losses need."""

    embedding: Tensor  # [B, De], unit length
    agreement: Tensor  # [B] S_title, nan where a side is missing
    anchored: Tensor  # [B, D] pooled E~_txt
    exploratory: Tensor  # [B, D] pooled E~_rnd
    gate_metadata: Tensor  # [B, D]
    gate_exploratory: Tensor  # [B, D]
    attention_logits: Tensor  # [B, N] the anchor's logits


class Alignment(nn.Module):
    """`S_title = cos(f_img, f_title)`. Towers that are no aligned pair get two learned projections, trained
    image-title contrastively beside the connector; a pair's own projections are used as they are."""

    def __init__(self, image_width: int, text_width: int, dim: int, learned: bool):
        super().__init__()
        self.image = nn.Linear(image_width, dim, bias=False) if learned else nn.Identity()
        self.title = nn.Linear(text_width, dim, bias=False) if learned else nn.Identity()

    def forward(self, image: Tensor, title: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides in the shared space, unit length (zero where missing)."""
        image, title = self.image(F.normalize(image, dim=-1)), self.title(F.normalize(title, dim=-1))
        return F.normalize(image, dim=-1), F.normalize(title, dim=-1)


class TGQFormer(nn.Module):
    """Item encoder. `forward` is the trainable part over tower features, `encode` the whole from pixels and text.

    Args:
        config: see EncoderConfig.
        relative_to: where relative tower paths start.

    Raises:
        ModelError: a tower, connector or head that is not there.
    """

    def __init__(self, config: EncoderConfig, relative_to: Path | None = None):
        super().__init__()
        self.config, self.relative_to, self.dtype = config, relative_to, torch.float32
        self.vision = VisionTower(config.vision, config.fit, relative_to, config.image_size, config.closeups)
        self.text = TextTower(config.text, config.text_length, relative_to)
        v, t = self.vision, self.text
        aligned = v.is_pair and v.weights_sha256 == t.weights_sha256
        self.alignment = Alignment(v.pooled_width, t.pooled_width, config.alignment_dim, learned=not aligned)
        self.image_in = nn.Sequential(nn.LayerNorm(v.width, elementwise_affine=False), nn.Linear(v.width, config.width))
        self.null_image = nn.Parameter(torch.randn(config.width) * 0.02)
        self.position = nn.Parameter(torch.randn(v.tokens_per_image, config.width) * 0.02)
        design = connector_class(config.connector)
        self.connector = design(config, t.width, t.max_length)
        self.anchor = Anchor(len(v.vocabulary), v.width, t.pooled_width, v.n_closeups) if config.anchor and self.connector.n_anchored else None
        self.gates = DualGates(config.width, v.pooled_width) if design.gated else None
        if config.head not in ("light", "llm"):
            raise ModelError(f"unknown head '{config.head}'", "choose light or llm")
        if config.head == "light":
            self.head = LightHead(config, v.width, v.pooled_width, t.pooled_width, v.n_closeups, design.fusion)
        else:
            self.head = LLMHead(config, relative_to)

    @property
    def dim(self) -> int:
        """Width of an item embedding."""
        return self.config.dim

    def forward(self, features: Features) -> Forward:
        """Tower features of B items to embeddings and what the losses need."""
        streams, agreement = self.streams(features)
        embedding = F.normalize(self.head(features, streams).float(), dim=-1)
        pooled = (x.sum(1) / max(1, x.shape[1]) for x in (streams.anchored, streams.exploratory))  # a stream may be empty
        return Forward(embedding, agreement, *pooled, streams.gate_metadata, streams.gate_exploratory, streams.attention_logits)

    def streams(self, features: Features) -> tuple[Streams, Tensor]:
        """All that the head reads beside the towers' features, and S_title `[B]`."""
        f = features
        seen_or_null = torch.where(f.has_image[:, None, None], self.image_in(f.image_tokens), self.null_image)
        projected = seen_or_null + self.position
        seen, titled = self.alignment(f.image, f.title)
        agreement = (seen * titled).sum(-1).masked_fill(~(f.has_image & f.has_title), float("nan"))

        tokens = self.connector(projected, f.text_tokens, f.text_mask)
        anchored, exploratory = tokens[:, : self.connector.n_anchored], tokens[:, self.connector.n_anchored :]
        if self.gates is None:
            on_metadata = on_exploratory = tokens.new_ones(len(tokens), self.config.width)
        else:
            anchored, exploratory, on_metadata, on_exploratory = self.gates(anchored, exploratory, f.image, agreement)
        return Streams(projected, anchored, exploratory, on_metadata, on_exploratory, self.attention_logits(f)), agreement

    def attention_logits(self, features: Features) -> Tensor:
        """`[B, N]` logits of the anchor: zero without one, and for items that lack a side."""
        f = features
        if self.anchor is None:
            return f.image_tokens.new_zeros(f.image_tokens.shape[:2])
        known = f.has_image & f.has_text
        return self.anchor(f.image_tokens, f.text, known) if f.attention_logits is None else f.attention_logits.masked_fill(~known[:, None], 0.0)

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """U preprocessed pictures `[U, 3, H, W]` through the vision tower: tokens `[U, N, Dv]`, pooled `[U, Dg]`.

        float32 at float16's precision, which is what a cache of features keeps: fresh or kept, the numbers are the same.
        """
        with self._autocast():
            seen = self.vision(pixels.to(self.null_image.device, non_blocking=True))
        return tuple(value.half().float() for value in seen)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """T texts through the text tower: tokens `[T, L, Dt]`, mask `[T, L]`, pooled `[T, Dp]`; rounded as in `encode_image`."""
        with self._autocast():
            tokens, mask, pooled = self.text(list(texts))
        return tokens.half().float(), mask, pooled.half().float()

    @torch.no_grad()
    def features(
        self, seen: tuple[Tensor, Tensor] | None, image_index: LongTensor, metadata: Sequence[str], titles: Sequence[str],
        known: Mapping[int, CachedText] = MappingProxyType({}),
    ) -> Features:  # fmt: skip
        """B items after the towers. The text tower runs once per unique text; see `encode` for the arguments.

        Args:
            seen: what `encode_image` gives for the U unique pictures, or what was kept of it; None where no item has one.
            known: by item, what was kept of its texts.
        """
        device, v = self.null_image.device, self.vision
        if seen is None:
            seen = torch.zeros(1, v.tokens_per_image, v.width, device=device), torch.zeros(1, v.pooled_width, device=device)
        tokens, pooled = seen
        image_index = image_index.to(device)
        has_image, at = image_index >= 0, image_index.clamp(min=0)
        return Features(tokens[at], pooled[at] * has_image[:, None], has_image, *self._texts(metadata, titles, known), tuple(metadata))

    def _texts(self, metadata: Sequence[str], titles: Sequence[str], known: Mapping[int, CachedText]) -> tuple[Tensor, ...]:
        """Tokens, mask and pooled feature of the metadata, and the pooled feature of the title, a row per item."""
        t, device, items = self.text, self.null_image.device, len(metadata)
        shapes = (items, t.max_length, t.width), (items, t.max_length), (items, t.pooled_width), (items, t.pooled_width)
        tokens, mask, pooled, title = (torch.zeros(shape, device=device) for shape in shapes)
        mask = mask.bool()
        if fresh := [i for i in range(items) if i not in known]:
            unique = list(dict.fromkeys([metadata[i] for i in fresh] + [titles[i] for i in fresh]))
            place = {value: at for at, value in enumerate(unique)}
            rows, said, titled = (torch.tensor(x, device=device) for x in
                                  (fresh, [place[metadata[i]] for i in fresh], [place[titles[i]] for i in fresh]))
            read = self.encode_text(unique)
            tokens[rows], mask[rows], pooled[rows], title[rows] = *(value[said] for value in read), read[2][titled]
        for i, text in known.items():
            kept = torch.from_numpy(text.mask.copy()).to(device)
            mask[i] = kept
            tokens[i, kept] = torch.from_numpy(text.tokens.astype(np.float32)).to(device)
            pooled[i], title[i] = (torch.from_numpy(x.astype(np.float32)).to(device) for x in (text.pooled, text.title))
        return tokens, mask, pooled, title

    @torch.no_grad()
    def encode(
        self, pixels: Tensor | None, image_index: LongTensor, metadata: Sequence[str], titles: Sequence[str]
    ) -> EncoderOutput:
        """Embed B items whose U unique pictures are preprocessed.

        Args:
            pixels: `[U, 3, H, W]` from `vision.preprocess`, or None where no item has a picture.
            image_index: `[B]`, the item's picture in `pixels`, -1 for none.
            metadata: B texts of `metadata_text`, '' for none.
            titles: B titles, '' for none.
        """
        seen = self.encode_image(pixels) if pixels is not None and len(pixels) else None
        return self.embed(self.features(seen, image_index, metadata, titles))

    @torch.no_grad()
    def embed(self, features: Features) -> EncoderOutput:
        """Embed B items after the towers."""
        if self.training:
            raise RuntimeError("embed needs eval mode: call .eval() first")
        with self._autocast():
            out = self(features)
        parts = (out.embedding, features.image, features.text, out.agreement,
                 out.gate_metadata.mean(-1), out.gate_exploratory.mean(-1))
        return EncoderOutput(*(part.float().cpu() for part in parts))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.null_image.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def own_state(self) -> dict[str, Tensor]:
        """The weights that are this encoder's own: neither the towers' nor the language model's frozen ones."""
        return {
            name: value for name, value in self.state_dict().items()
            if not name.startswith(("vision.", "text.")) and not (name.startswith("head.llm.") and "lora_" not in name)
        }

    @property
    def model_version(self) -> str:
        """16 hex digits over own weights, configuration and the towers' fingerprints (weights and preprocessing).

        References are left out: the same towers in another folder are the same model.
        """
        digest = hashlib.sha256()
        for name, value in sorted(self.own_state().items()):
            digest.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
        shape = asdict(replace(self.config, vision=self.vision.fingerprint, text=self.text.fingerprint, llm=self._llm_sha()))
        del shape["image_size"], shape["closeups"]  # they are part of the vision tower's fingerprint
        digest.update(json.dumps(shape, sort_keys=True).encode())
        return digest.hexdigest()[:16]

    def _llm_sha(self) -> str:
        files = hub.weight_files(self.head.folder) if self.config.head == "llm" else []
        return "".join(hub.sha256_of(file) for file in files)

    def save_pretrained(self, path: str | Path) -> None:
        """Write `config.json` and `model.safetensors` (own weights, float16 where that loses nothing) to a folder."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: value.detach().cpu().contiguous() for name, value in self.own_state().items()}
        if all(torch.equal(value, value.half().float()) for value in state.values()):
            state = {name: value.half() for name, value in state.items()}
        if self.config.head == "llm" and not any("lora_" in name for name in state):
            raise ModelError("an encoder with merged adapters cannot be saved", "save it before merge()")
        save_file(state, folder / WEIGHTS, {"format": "pt"})
        (folder / WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone; workers may be another user
        moved = {name: _moved(getattr(self.config, name), self.relative_to, folder) for name in ("vision", "text", "llm")}
        (folder / CONFIG).write_text(json.dumps(asdict(replace(self.config, **moved)), indent=1) + "\n")

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> TGQFormer:
        """Load an encoder folder, in eval mode; `"default"` is the one that ships with tgq.

        Args:
            dtype: torch.float32, or torch.bfloat16 to run under autocast.

        Raises:
            ModelError: no such folder, no weights, or weights of another configuration.
        """
        folder = DEFAULT_ENCODER if str(path) == "default" else Path(path)
        if not folder.is_dir():
            raise ModelError(f"encoder folder {folder} does not exist", "give a folder written by save_pretrained")
        config = EncoderConfig.read(folder)
        if not (folder / WEIGHTS).is_file():
            raise ModelError(f"encoder folder {folder} has no {WEIGHTS}", "train it, or copy the folder whole")
        model = cls(config, relative_to=folder)
        try:
            state = load_file(folder / WEIGHTS)
        except Exception as error:
            raise ModelError(f"{folder / WEIGHTS} cannot be read ({error})", "copy the file again") from None
        wanted = model.own_state()
        shapes, found = ({name: value.shape for name, value in s.items()} for s in (wanted, state))
        if shapes != found:
            wrong = min(name for name in shapes | found if shapes.get(name) != found.get(name))
            raise ModelError(f"{folder / WEIGHTS} does not fit its {CONFIG} at '{wrong}'",
                             "use the config.json that was saved with these weights")
        model.load_state_dict(state, strict=False)
        model.dtype = dtype
        return model.to(device).eval()


def _moved(reference: str, relative_to: Path | None, folder: Path) -> str:
    """A relative tower path as seen from the folder that is written now; every other reference stands."""
    place = (relative_to or Path()) / reference
    if not reference or reference in hub.BUNDLED or Path(reference).is_absolute() or not place.is_dir():
        return reference
    return os.path.relpath(place.resolve(), folder.resolve())
