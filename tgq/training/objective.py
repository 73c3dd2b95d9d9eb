"""The loss of a batch, from what the encoder gives for its items: apart, so that the items may come in chunks, from several processes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgq.encoder.features import Features
from tgq.encoder.heads import LightHead, Streams
from tgq.encoder.model import TGQFormer
from tgq.training.losses import info_nce, redundancy, relation


@dataclass(frozen=True)
class Outputs:
    """All that the losses need of B items, float32."""

    embedding: Tensor  # [B, De], unit length
    anchored: Tensor  # [B, D] pooled
    exploratory: Tensor  # [B, D]
    seen: Tensor  # [B, A] f_img in the learned image-title space; of no width where the towers are a pair
    titled: Tensor  # [B, A]
    gates: Tensor  # [B, 2] means of both gates
    taught: Tensor  # [B, T] the teacher's embedding; no gradient
    usable: Tensor  # [B, 1] 1 where picture and title are there; no gradient

    @classmethod
    def join(cls, parts: list[Outputs]) -> Outputs:
        """Several chunks as one."""
        return cls(*(torch.cat(columns) for columns in zip(*map(_columns, parts), strict=True)))

    def map(self, change: Callable[[Tensor], Tensor]) -> Outputs:
        """Each field changed."""
        return Outputs(*map(change, _columns(self)))

    def detached(self) -> Outputs:
        """The same values, apart from what made them."""
        return self.map(Tensor.detach)

    def zeros(self, items: int) -> Outputs:
        """The same widths for `items` items, all zero."""
        return self.map(lambda value: value.new_zeros(items, *value.shape[1:]))

    def leaves(self) -> Outputs:
        """The same values, apart from what made them, ready to collect gradients."""
        leaves = self.map(lambda value: value.detach().clone())
        for value in leaves.differentiable():
            value.requires_grad_()
        return leaves

    def differentiable(self) -> list[Tensor]:
        """Those that carry gradients."""
        return [self.embedding, self.anchored, self.exploratory, self.seen, self.titled, self.gates]


def _columns(outputs: Outputs) -> tuple[Tensor, ...]:
    return tuple(getattr(outputs, f.name) for f in fields(outputs))


class Objective(nn.Module):
    """InfoNCE, L_rr, image-title contrast and the distance from the start, over an encoder's outputs."""

    def __init__(self, encoder: TGQFormer, config):
        super().__init__()
        self.encoder, self.config = encoder, config
        self.teacher = copy.deepcopy(encoder.head).requires_grad_(False).eval() if isinstance(encoder.head, LightHead) else None
        device = encoder.null_image.device
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature), device=device))
        self.align_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature), device=device))

    @property
    def scales(self) -> list[nn.Parameter]:
        """The learned temperatures: every process computes their gradients whole."""
        return [self.log_scale, self.align_scale]

    def outputs(self, features: Features) -> Outputs:
        """The encoder on some items; the only part that costs."""
        out = self.encoder(features)
        aligned = isinstance(self.encoder.alignment.image, nn.Identity)
        seen, titled = (x[:, :0] if aligned else x for x in self.encoder.alignment(features.image, features.title))
        gates = torch.stack([out.gate_metadata.mean(-1), out.gate_exploratory.mean(-1)], -1)
        usable = (features.has_image & features.has_title).float()[:, None]
        return Outputs(*(x.float() for x in (out.embedding, out.anchored, out.exploratory, seen, titled, gates, self._taught(features, out.where), usable)))

    def forward(self, out: Outputs, known: Tensor, hard_known: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The loss, and its parts by name.

        Args:
            out: P queries, then their P positives, then H hard negatives.
            known: `[P, P]`, pairs that must not count as negatives; hard_known: `[P, H]` likewise.
        """
        c, half = self.config, len(known)
        queries, positives, hard = out.embedding.split([half, half, len(out.embedding) - 2 * half])
        scale = self.log_scale.exp().clamp(max=c.max_scale)
        contrast = info_nce(queries, positives, scale, known, hard, hard_known)
        overlap = redundancy(out.anchored, out.exploratory)
        align = self._alignment(out, known)
        far = relation(out.embedding, out.taught)
        loss = contrast + c.alignment_weight * align + c.relation_weight * far
        if self.encoder.connector.decorrelated:
            loss = loss + c.redundancy_weight * overlap
        deviation = out.gates.detach().std(0)
        values = {
            "loss": loss, "info_nce": contrast, "redundancy": overlap, "alignment": align, "relation": far, "scale": scale,
            "gate_metadata": out.gates[:, 0].mean(), "gate_exploratory": out.gates[:, 1].mean(),
            "gate_metadata_std": deviation[0], "gate_exploratory_std": deviation[1],
        }  # fmt: skip
        return loss, {name: float(value.detach()) for name, value in values.items()}

    @torch.no_grad()
    def _taught(self, features: Features, where: Tensor) -> Tensor:
        """The embeddings `[B, De]` of the start; without a light head the frozen towers' concatenation, unit length."""
        if self.teacher is None:
            sides = F.normalize(features.image, dim=-1), F.normalize(features.text, dim=-1)
            return F.normalize(torch.cat(sides, dim=-1), dim=-1)
        streams = Streams.untrained(where, self.encoder.config.width)
        return F.normalize(self.teacher(features, streams), dim=-1)

    def _alignment(self, out: Outputs, known: Tensor) -> Tensor:
        """Image-title contrast over the queries that have both; nothing where the towers are an aligned pair."""
        usable = out.usable[: len(known), 0].bool()
        if not out.seen.shape[1] or usable.sum() < 2:
            return out.embedding.new_zeros(())
        scale = self.align_scale.exp().clamp(max=self.config.max_scale)
        return info_nce(out.seen[: len(known)][usable], out.titled[: len(known)][usable], scale, known[usable][:, usable])
