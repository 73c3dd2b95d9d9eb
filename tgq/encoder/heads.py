"""Heads: from the connector's tokens to one unit vector per item."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgq.encoder import hub
from tgq.encoder.attention import GuidedPooling
from tgq.encoder.features import Features
from tgq.encoder.towers import load_model, load_tokenizer
from tgq.errors import ModelError

ROOT_FLOOR = 1e-3


class PlainFusion(nn.Module):
    """A linear map of the frozen towers' pooled features: `W_i u(r(f_img) - mean) + W_t u(f_txt - mean)`, u = unit length.

    r is the signed square root, which keeps a few loud channels of a picture from deciding everything (Perronnin,
    Sánchez, Mensink 2010); off, it is the identity. The strong base of the light head. `W` starts as a random
    projection, which keeps the cosine of the concatenated features up to noise; `fit` replaces it by what a catalog's
    groups say. A side that is missing is a learned vector.
    """

    def __init__(self, image_width: int, text_width: int, dim: int, image_root: bool = True):
        super().__init__()
        self.image_root = image_root
        self.image = nn.Parameter(torch.randn(dim, image_width) / dim**0.5)
        self.text = nn.Parameter(torch.randn(dim, text_width) / dim**0.5)
        self.null_image = nn.Parameter(torch.randn(dim) * 0.1 / dim**0.5)
        self.null_text = nn.Parameter(torch.randn(dim) * 0.1 / dim**0.5)
        self.register_buffer("image_mean", torch.zeros(image_width))
        self.register_buffer("text_mean", torch.zeros(text_width))

    def forward(self, image: Tensor, has_image: Tensor, text: Tensor, has_text: Tensor) -> Tensor:
        """`[B, Dg]`, `[B]`, `[B, Dp]`, `[B]` to `[B, De]`, not normalised."""
        seen = F.linear(F.normalize(self.rooted(image) - self.image_mean, dim=-1), self.image)
        read = F.linear(F.normalize(text - self.text_mean, dim=-1), self.text)
        return torch.where(has_image[:, None], seen, self.null_image) + torch.where(has_text[:, None], read, self.null_text)

    def rooted(self, image: Tensor) -> Tensor:
        """Signed square root of `[..., Dg]`, with a slope at 0 that training survives; the identity where it is off."""
        return image / (image.abs() + ROOT_FLOOR).sqrt() if self.image_root else image

    @torch.no_grad()
    def fit(self, image: Tensor, text: Tensor, group: Tensor, catalog: Tensor, image_weight: float, floor: float) -> None:
        """Set means and maps from pooled features `[n, Dg]` and `[n, Dp]` of n items and their groups and catalogs `[n]`.

        Within-class covariance normalisation (Hatch, Kajarekar, Stolcke 2006) of `z = [w u_img, (1-w) u_txt]`,
        w = `image_weight`: what differs between items of one group is divided out, `(S_within + floor s I)^(-1/2)`, s the
        mean variance of all; then the leading principal directions of the result. A catalog counts with the square root
        of its groups. Closed form; `(Dg + Dp)^3` operations, whatever n.
        """
        per_catalog = [torch.where(catalog == c)[0] for c in catalog.unique()]
        image = self.rooted(image)
        self.image_mean.copy_(torch.stack([image[rows].mean(0) for rows in per_catalog]).mean(0))
        self.text_mean.copy_(torch.stack([text[rows].mean(0) for rows in per_catalog]).mean(0))
        z = torch.cat([image_weight * F.normalize(image - self.image_mean, dim=-1),
                       (1 - image_weight) * F.normalize(text - self.text_mean, dim=-1)], dim=-1)
        within, total = (torch.zeros(z.shape[1], z.shape[1], device=z.device) for _ in range(2))
        weights = 0.0
        for rows in per_catalog:
            own, (groups, place, sizes) = z[rows], group[rows].unique(return_inverse=True, return_counts=True)
            weight = len(groups) ** 0.5
            inside = (own - _group_means(own, place, sizes))[sizes[place] > 1]
            if len(inside):
                within += weight * inside.T @ inside / len(inside)
            total += weight * torch.cov(own.T, correction=0)
            weights += weight
        within, total = within / weights, total / weights
        variance, axes = torch.linalg.eigh(within + floor * total.diagonal().mean() * torch.eye(len(total), device=z.device))
        even = axes * variance.rsqrt() @ axes.T
        kept = torch.linalg.eigh(even @ total @ even)[1][:, -len(self.image):]
        maps = torch.zeros(len(self.image), z.shape[1], device=z.device)
        maps[: kept.shape[1]] = (even @ kept).T
        maps /= (z @ maps.T).norm(dim=-1).mean()
        self.image.copy_(maps[:, : image.shape[1]] * image_weight)
        self.text.copy_(maps[:, image.shape[1]:] * (1 - image_weight))


def _group_means(rows: Tensor, place: Tensor, sizes: Tensor) -> Tensor:
    """Each row's group mean `[n, D]`."""
    sums = rows.new_zeros(len(sizes), rows.shape[1]).index_add_(0, place, rows)
    return (sums / sizes[:, None])[place]


@dataclass(frozen=True)
class Streams:
    """What the connector and the gates say of B items."""

    projected: Tensor  # [B, N, D] the picture as the connector saw it
    anchored: Tensor  # [B, n, D] modulated tokens
    exploratory: Tensor  # [B, m, D]
    gate_metadata: Tensor  # [B, D] in (0, 2)
    gate_exploratory: Tensor  # [B, D]
    where: Tensor  # [B, N] the anchor's logits

    @classmethod
    def untrained(cls, where: Tensor, width: int) -> Streams:
        """Those of a connector that says nothing yet: only the anchor's logits `[B, N]` have a say."""
        items, nothing = len(where), where.new_zeros(len(where), 1, width)
        gate = where.new_ones(items, width)
        return cls(where.new_zeros(*where.shape, width), nothing, nothing[:, :0], gate, gate, where)

    @property
    def tokens(self) -> Tensor:
        """`[B, n + m, D]`."""
        return torch.cat([self.anchored, self.exploratory], dim=1)


class LightHead(nn.Module):
    """Plain fusion of f_txt and of an f_img that the connector has moved; no language model.

    Modulated tokens and anchor say where to look: they shift f_img towards the grid cells that they point at
    (`GuidedPooling`, ours). Without an anchor the shift starts at exactly zero, so an untrained light head is its plain
    fusion. Mapping the tokens themselves into the embedding, as the paper's head does, was measured too: it fits the
    catalogs that it is trained on and loses on catalogs that it has not seen (a catalog left out of training: H@1 62
    without, 60 with; frozen features 64).
    """

    def __init__(self, config, image_width: int, pooled_width: int, text_width: int):
        super().__init__()
        self.base = PlainFusion(pooled_width, text_width, config.dim, config.image_root)
        self.pooling = GuidedPooling(config.width, config.pooling_heads)
        same = image_width == pooled_width  # a pair's pooled feature lives in another space than its tokens
        self.shift = nn.Identity() if same else nn.Linear(image_width, pooled_width, bias=False)

    def forward(self, features: Features, streams: Streams) -> Tensor:
        """`[B, De]`, not normalised."""
        return self.base(self.moved(features, streams), features.has_image, features.text, features.has_text)

    def moved(self, features: Features, s: Streams) -> Tensor:
        """f_img `[B, Dg]` after the shift."""
        nowhere = torch.zeros_like(s.where)
        streams = ((s.anchored, s.where, s.gate_metadata), (s.exploratory, nowhere, s.gate_exploratory))
        return features.image + self.shift(self.pooling(features.image_tokens, s.projected, streams))


class LLMHead(nn.Module):
    """Connector tokens next to metadata tokens in a language model with LoRA; the state at the last one is mapped.

    The sequence is `[visual tokens, metadata tokens, end]`, padded on the right of a causal model, so that neither
    padding nor neighbours in the batch reach the position that is read. Base weights stay frozen and outside of what
    is saved. Cost grows with the LLM's: B * (n + text length) tokens.
    """

    def __init__(self, config, relative_to: Path | None = None):
        super().__init__()
        from peft import LoraConfig, get_peft_model
        if not config.llm:
            raise ModelError("head 'llm' without a language model", "set llm to a model folder or hub name")
        self.folder, self.text_length = hub.resolve(config.llm, relative_to), config.text_length
        self.tokenizer, model = load_tokenizer(self.folder), load_model(self.folder)
        if self.tokenizer.eos_token_id is None:
            raise ModelError(f"the tokenizer of {self.folder} has no end token", "set eos_token in its configuration")
        lora = LoraConfig(r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules="all-linear")
        self.llm = get_peft_model(model, lora)
        self.visual_in = nn.Linear(config.width, model.config.hidden_size)
        self.out = nn.Linear(model.config.hidden_size, config.dim)

    def forward(self, features: Features, streams: Streams) -> Tensor:
        """Modulated tokens and the metadata texts to `[B, De]`, not normalised."""
        visual = self.visual_in(streams.tokens)
        ids, mask = self._tokenize(features.metadata, visual.device)
        embeds = torch.cat([visual, self.llm.get_input_embeddings()(ids).to(visual.dtype)], dim=1)
        mask = torch.cat([mask.new_ones(visual.shape[:2]), mask], dim=1)
        states = self.llm(inputs_embeds=embeds, attention_mask=mask, use_cache=False).last_hidden_state
        return self.out(states[torch.arange(len(states)), mask.sum(1) - 1].to(self.out.weight.dtype))

    def _tokenize(self, texts: tuple[str, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        end = self.tokenizer.eos_token_id
        rows = [self.tokenizer(t, truncation=True, max_length=self.text_length, add_special_tokens=False)["input_ids"]
                for t in texts]
        rows = [torch.tensor([*row, end]) for row in rows]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)
        lengths = torch.tensor([len(row) for row in rows])
        return ids.to(device), (torch.arange(ids.shape[1]) < lengths[:, None]).long().to(device)

    def merge(self) -> None:
        """Fold the adapters into the base weights: faster, and for inference only."""
        self.llm = self.llm.merge_and_unload()
