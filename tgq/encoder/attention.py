"""Attention, in one place: over the picture for the connectors, and as weights for pooling it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """Multi-head attention of queries `[B, n, D]` over tokens `[B, N, D]`, of which those of `seen [B, N]` count (None: all);
    grows with B * n * N * D."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)

    def forward(self, queries: Tensor, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        q, k, v = (split_heads(x, self.heads) for x in (self.query(queries), key, value))
        mask = None if seen is None else seen[:, None, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm cross-attention and MLP. Queries see the picture, never each other."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.attention = CrossAttention(width, heads, dropout)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width))
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        queries = queries + self.attention(self.attention_norm(queries), tokens)
        return queries + self.mlp(self.mlp_norm(queries))


class GuidedPooling(nn.Module):
    """The tower's own tokens, pooled where the connector's tokens and the anchor point (ours, not the paper's).

    Each head pools its share of the tower's channels, unprojected. A stream's weights over the N tokens are the mean of
    its tokens' attention maps; its gate says how far they count. The score projection starts at zero: without an anchor
    and with no share for the close-ups the weights are then even over the grid, the result the plain mean and the shift
    zero. No gradient reaches the tower's tokens, which makes it cheap.

    Of the N tokens the last `closeups` are close-ups. They have `share` of the weight before the scores have their say, in
    the first stream that has tokens; in a second one they have none, or they would count twice.
    """

    share: Tensor  # None without close-ups

    def __init__(self, width: int, heads: int, closeups: int = 0, head_width: int = 32):
        super().__init__()
        self.heads, self.head_width, self.closeups = heads, head_width, closeups
        self.register_buffer("share", torch.zeros(()) if closeups else None)
        self.query = nn.Linear(width, heads * head_width)
        self.key = nn.Linear(width, heads * head_width)
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)

    def weights(self, projected: Tensor, tokens: Tensor, where: Tensor, first: bool = True) -> Tensor:
        """Projected picture `[B, N, D]`, a stream's tokens `[B, n, D]` and the anchor's logits `[B, N]` to weights
        `[B, heads, N]`, each row of sum 1. `first`: it is the stream that looks at close-ups."""
        if self.closeups:
            grid, near = where.tensor_split([-self.closeups], dim=1)
            share = self.share if first else torch.zeros_like(self.share)
            where = torch.cat([grid.log_softmax(1) + (1 - share).log(), near.log_softmax(1) + share.log()], dim=1)
        q, k = split_heads(self.query(tokens), self.heads), split_heads(self.key(projected), self.heads)
        scores = q @ k.transpose(-1, -2) / self.head_width**0.5
        return (scores.float() + where[:, None, None]).softmax(-1).mean(2)

    def forward(self, image_tokens: Tensor, projected: Tensor, streams: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        """The shift `[B, Dv]` of the pooled feature from the mean of the tower's tokens `[B, N, Dv]`.

        Args:
            streams: for each, tokens `[B, n, D]`, anchor logits `[B, N]` and gate `[B, D]`, of which each head takes the
                mean of its share. One without tokens has no say.
        """
        away = image_tokens.new_zeros(len(image_tokens), self.heads, image_tokens.shape[1])
        grid = image_tokens.shape[1] - self.closeups
        even = F.pad(away.new_full((grid,), 1 / grid), (0, self.closeups))
        for number, (tokens, where, gate) in enumerate(stream for stream in streams if stream[0].shape[1]):
            counts = gate.float().unflatten(-1, (self.heads, -1)).mean(-1)
            away = away + counts[..., None] * (self.weights(projected, tokens, where, first=not number) - even).to(away.dtype)
        # a product per head reads the tokens where they lie: einsum copies them first, six times slower on a CPU
        parts = zip(away.split(1, dim=1), image_tokens.chunk(self.heads, dim=-1), strict=True)
        return torch.cat([weights @ tokens for weights, tokens in parts], dim=-1).squeeze(1)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`[B, n, heads * d]` to `[B, heads, n, d]`."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
