"""The training loss. It is computed from the encoder's outputs for a whole batch, which may come in chunks and from several processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from tgq.encoder.features import Features
from tgq.encoder.layers.heads import LightHead, Streams
from tgq.encoder.model import TGQFormer
from tgq.training.loss.losses import info_nce, outside, redundancy, relation, separation


@dataclass(frozen=True)
class Outputs:
    """Everything that the losses need of B items, float32."""

    embedding: Tensor  # [B, De], unit length
    anchored: Tensor  # [B, D] mean of the anchored stream's tokens
    exploratory: Tensor  # [B, D] mean of the exploratory stream's tokens
    image: Tensor  # [B, A] f_img in the learned image-title space; A is 0 if the space is not learned here
    title: Tensor  # [B, A] f_title in the same space
    gates: Tensor  # [B, 2] mean over channels of the metadata gate and of the exploratory gate
    attention: Tensor  # [B, 2] attention loss of the item, and 1 if it counts or 0; [B, 0] without composed scenes
    misleading: Tensor  # [B, 2] see `Chunk.misleading`; no gradient
    teacher: Tensor  # [B, T] the teacher's embedding of the undisturbed item; no gradient
    has_both: Tensor  # [B, 1] 1 if the item has an image and a title, else 0; no gradient

    @classmethod
    def join(cls, parts: list[Outputs]) -> Outputs:
        """The outputs of several chunks, concatenated."""
        return cls(*(torch.cat(columns) for columns in zip(*map(_columns, parts), strict=True)))

    def map(self, change: Callable[[Tensor], Tensor]) -> Outputs:
        """`change` applied to each field."""
        return Outputs(*map(change, _columns(self)))

    def detached(self) -> Outputs:
        """The same values without their computation graph."""
        return self.map(Tensor.detach)

    def zeros(self, items: int) -> Outputs:
        """Outputs of `items` items with the same widths, all zero."""
        return self.map(lambda value: value.new_zeros(items, *value.shape[1:]))

    def leaves(self) -> Outputs:
        """Copies of the values without their computation graph; the differentiable ones are leaves that collect gradients."""
        leaves = self.map(lambda value: value.detach().clone())
        for value in leaves.differentiable():
            value.requires_grad_()
        return leaves

    def differentiable(self) -> list[Tensor]:
        """The fields that gradients flow through."""
        return [self.embedding, self.anchored, self.exploratory, self.image, self.title, self.gates, self.attention]


def _columns(outputs: Outputs) -> tuple[Tensor, ...]:
    return tuple(getattr(outputs, f.name) for f in fields(outputs))


class Objective(nn.Module):
    """The weighted sum of InfoNCE, L_rr, the image-title contrast, a distillation loss, and where wanted an attention and a gate loss.

    The teacher of the distillation saw the undisturbed item (`validation.teacher_embeddings`), while the encoder sees it in a scene, with
    metadata of another item, or without picture or text.
    """

    def __init__(self, encoder: TGQFormer, config):
        super().__init__()
        self.encoder, self.config = encoder, config
        device = encoder.null_image.device
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature), device=device))
        self.align_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature), device=device))

    @property
    def scales(self) -> list[nn.Parameter]:
        """The learned inverse temperatures, as logarithms. Every process computes their full gradients, so these are not summed."""
        return [self.log_scale, self.align_scale]

    def outputs(self, features: Features, teacher: Tensor, box: Tensor | None, misleading: Tensor) -> Outputs:
        """Run the encoder on B items. This is the only expensive part of the objective.

        Args:
            teacher: `[B, T]`, the teacher's embeddings of the undisturbed items, unit length.
            box: `[B, N]` bool, tokens that show the item, for items in composed scenes; all false for other items. None: the batch
                has no scenes.
            misleading: `[B, 2]`, see `Chunk.misleading`.
        """
        out = self.encoder(features)
        aligned = self.encoder.reliability is not None or isinstance(self.encoder.alignment.image, nn.Identity)
        image, title = (x[:, :0] if aligned else x for x in self.encoder.alignment(features.image, features.title))
        gates = torch.stack([out.gate_metadata.mean(-1), out.gate_exploratory.mean(-1)], -1)
        has_both = (features.has_image & features.has_title).float()[:, None]
        attention = self._attention(out.streams, box)
        return Outputs(*(x.float() for x in (out.embedding, out.anchored, out.exploratory, image, title, gates, attention, misleading, teacher, has_both)))

    def forward(
        self, out: Outputs, excluded: Tensor, hard_excluded: Tensor, log_weights: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
        """The loss, and its parts by name.

        Args:
            out: outputs of P queries, then of their P positives, then of H hard negatives.
            excluded: `[P, P]` bool, query and positive of another query that must not count as a negative pair.
            hard_excluded: `[P, H]` bool, query and hard negative that must not count as a negative pair.
            log_weights: as for `info_nce`, of the embeddings alone, not of the image-title contrast.
        """
        c, pairs = self.config, len(excluded)
        queries, positives, hard = out.embedding.split([pairs, pairs, len(out.embedding) - 2 * pairs])
        scale = self.log_scale.exp().clamp(max=c.max_scale)
        contrast = info_nce(queries, positives, scale, excluded, hard, hard_excluded, log_weights)
        overlap = redundancy(out.anchored, out.exploratory)
        align = self._alignment(out, excluded)
        distillation = relation(out.embedding, out.teacher)
        loss = contrast + c.alignment_weight * align + c.relation_weight * distillation
        further = {}
        if c.restoration_weight:
            further["restoration"] = (1 - (out.embedding * out.teacher).sum(-1)).mean()
            loss = loss + c.restoration_weight * further["restoration"]
        if self.encoder.connector.decorrelated:
            loss = loss + c.redundancy_weight * overlap
        if out.attention.shape[1]:
            counts = out.attention[:, 1].detach()
            further["attention"] = (out.attention[:, 0] * counts).sum() / counts.sum().clamp(min=1)
            loss = loss + c.attention_weight * further["attention"]
        if c.gate_weight and self.encoder.gates is not None:
            further["gates"] = torch.stack([separation(*of_stream) for of_stream in zip(out.gates.unbind(1), out.misleading.unbind(1), strict=True)]).sum()
            loss = loss + c.gate_weight * further["gates"]
        deviation = out.gates.detach().std(0)
        values = {
            "loss": loss, "info_nce": contrast, "redundancy": overlap, "alignment": align, "relation": distillation, "scale": scale,
            "gate_metadata": out.gates[:, 0].mean(), "gate_exploratory": out.gates[:, 1].mean(),
            "gate_metadata_std": deviation[0], "gate_exploratory_std": deviation[1], **further,
        }  # fmt: skip
        if log_weights is not None:
            values["masked_by_attributes"] = log_weights[0].isinf().float().mean()
        return loss, {name: float(value.detach()) for name, value in values.items()}

    def _attention(self, streams: Streams, box: Tensor | None) -> Tensor:
        """The attention loss of each item and whether it counts `[B, 2]`; `[B, 0]` without boxes. No item counts if the head has no attention."""
        if box is None:
            return streams.projected.new_zeros(len(streams.projected), 0)
        head = self.encoder.head
        weights = head.attention(streams) if isinstance(head, LightHead) else None
        if weights is None:
            return streams.projected.new_zeros(len(box), 2)
        return torch.stack([outside(weights, box), box.any(1).float()], -1)

    def _alignment(self, out: Outputs, excluded: Tensor) -> Tensor:
        """Image-title contrast over the queries that have both, with their own title; 0 if the towers are an aligned pair."""
        pairs = len(excluded)
        usable = out.has_both[:pairs, 0].bool() & (out.misleading[:pairs, 0] != 1)
        if not out.image.shape[1] or usable.sum() < 2:
            return out.embedding.new_zeros(())
        scale = self.align_scale.exp().clamp(max=self.config.max_scale)
        return info_nce(out.image[:pairs][usable], out.title[:pairs][usable], scale, excluded[usable][:, usable])
