"""Dual gates: they scale each stream of connector tokens, per channel and per item."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgq.encoder.layers.linear import Linear


class DualGates(nn.Module):
    """`beta = 2 sigmoid(G(u)) - 1`, `E~ = E (1 + beta)`, one gate per stream (arXiv 2605.17366).

    The input u of the metadata gate is `[S_title, f_img, summary(E_txt), summary(E_rnd)]`, that of the exploratory gate
    `[f_img, summary(E_rnd)]`. The summary of a stream is the mean of its tokens. The last layer of each G is initialised to
    zero, so both gates start as the identity (ours). `f_img` enters at unit length, and an unknown `S_title` enters as 0.
    """

    def __init__(self, width: int, image_width: int, hidden: int = 64):
        super().__init__()
        self.metadata = _gate(1 + image_width + 2 * width, hidden, width)
        self.exploratory = _gate(image_width + width, hidden, width)

    def forward(
        self, anchored: Tensor, exploratory: Tensor, image: Tensor, agreement: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scale both streams.

        Args:
            anchored: `[B, n, D]`, E_txt.
            exploratory: `[B, m, D]`, E_rnd.
            image: `[B, Dg]`, f_img.
            agreement: `[B]`, S_title; nan if unknown.

        Returns:
            The scaled anchored and exploratory streams, then the metadata and exploratory gates `1 + beta`, `[B, D]` in (0, 2).
        """
        image, agreement = F.normalize(image, dim=-1), agreement.nan_to_num(0.0)[:, None]
        e_txt, e_rnd = anchored.mean(1), exploratory.mean(1)
        on_metadata = 2 * torch.sigmoid(self.metadata(torch.cat([agreement, image, e_txt, e_rnd], dim=-1)))
        on_exploratory = 2 * torch.sigmoid(self.exploratory(torch.cat([image, e_rnd], dim=-1)))
        return anchored * on_metadata[:, None], exploratory * on_exploratory[:, None], on_metadata, on_exploratory


def _gate(inputs: int, hidden: int, width: int) -> nn.Sequential:
    first, last = Linear(inputs, hidden), Linear(hidden, width)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(first, nn.GELU(), last)
