"""What the frozen towers say of a batch of items; all that the trainable part ever sees."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """B items after the towers. A text that an item lacks is all zeros and all masked."""

    image_tokens: Tensor  # [B, N, Dv], anything where the picture is missing
    image: Tensor  # [B, Dg] pooled, f_img; zeros where the picture is missing
    has_image: Tensor  # [B] bool
    text_tokens: Tensor  # [B, L, Dt]
    text_mask: Tensor  # [B, L] bool
    text: Tensor  # [B, Dp] pooled metadata text, f_txt
    title: Tensor  # [B, Dp] pooled title alone, f_title
    metadata: tuple[str, ...]  # the metadata texts, for a head that reads them with a tokenizer of its own
    where: Tensor | None = None  # [B, N] what the encoder's anchor says of picture and metadata, where it was asked before

    @property
    def has_text(self) -> Tensor:
        """`[B]` bool."""
        return self.text_mask.any(-1)

    @property
    def has_title(self) -> Tensor:
        """`[B]` bool."""
        return self.title.abs().sum(-1) > 0

    def without(self, image: Tensor, text: Tensor) -> Features:
        """The same items with the picture, or the metadata, of those marked `[B]` taken away."""
        said = {name: getattr(self, name) * ~text.view(-1, *[1] * (getattr(self, name).ndim - 1))
                for name in ("text_tokens", "text_mask", "text", "title")}
        metadata = tuple("" if gone else text for text, gone in zip(self.metadata, text.tolist(), strict=True))
        return replace(self, image=self.image * ~image[:, None], has_image=self.has_image & ~image, metadata=metadata, **said)

    def to(self, device: torch.device | str) -> Features:
        """The same items on another device, float32."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in moved.items():
            if isinstance(value, Tensor):
                moved[name] = value.to(device) if value.dtype == torch.bool else value.to(device, torch.float32)
        return Features(**moved)
