"""The frozen towers' output for a batch of items, which is the only input of the trainable part."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """Tower features of B items. A missing text is all zeros and fully masked."""

    image_tokens: Tensor  # [B, N, Dv], arbitrary values if the image is missing
    image: Tensor  # [B, Dg] pooled, f_img; zeros if the image is missing
    has_image: Tensor  # [B] bool
    text_tokens: Tensor  # [B, L, Dt]
    text_mask: Tensor  # [B, L] bool
    text: Tensor  # [B, Dp] pooled feature of the metadata text, f_txt
    title: Tensor  # [B, Dp] pooled feature of the title alone, f_title
    metadata: tuple[str, ...]  # B metadata texts, for a head with its own tokenizer
    attention_logits: Tensor | None = None  # [B, N] precomputed by the encoder's anchor; None: computed when needed

    @property
    def has_text(self) -> Tensor:
        """`[B]` bool: the item has a metadata text."""
        return self.text_mask.any(-1)

    @property
    def has_title(self) -> Tensor:
        """`[B]` bool: the item has a title."""
        return self.title.abs().sum(-1) > 0

    def without(self, image: Tensor, text: Tensor) -> Features:
        """A copy without the images, and without the metadata and titles, of the items marked in `image` and `text`, both `[B]` bool."""
        texts = {name: getattr(self, name) * ~text.view(-1, *[1] * (getattr(self, name).ndim - 1))
                for name in ("text_tokens", "text_mask", "text", "title")}
        metadata = tuple("" if removed else text for text, removed in zip(self.metadata, text.tolist(), strict=True))
        return replace(self, image=self.image * ~image[:, None], has_image=self.has_image & ~image, metadata=metadata, **texts)

    def to(self, device: torch.device | str) -> Features:
        """A copy on another device, float32."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in moved.items():
            if isinstance(value, Tensor):
                moved[name] = value.to(device) if value.dtype == torch.bool else value.to(device, torch.float32)
        return Features(**moved)
