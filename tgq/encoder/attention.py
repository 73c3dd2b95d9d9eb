"""Attention, in one place."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """Multi-head attention of queries `[B, n, D]` over tokens `[B, N, D]`; grows with B * n * N * D."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        q, k, v = (split_heads(x, self.heads) for x in (self.query(queries), key, value))
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
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
    """The tower's own tokens, pooled where the connector's tokens point (ours, not the paper's).

    Each head pools its share of the channels, unprojected, with attention weights that the connector's tokens set.
    The score projection starts at zero: every weight is then 1/N, the result the plain mean and the shift zero.
    """

    def __init__(self, image_width: int, width: int, heads: int, head_width: int = 32):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(image_width)
        self.query = nn.Linear(width, heads * head_width)
        self.key = nn.Linear(image_width, heads * head_width)
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)

    def forward(self, image_tokens: Tensor, tokens: Tensor) -> Tensor:
        """`[B, N, Dv]`, `[B, n, D]` to the shift `[B, Dv]` from the mean of the tower's tokens."""
        q = split_heads(self.query(tokens), self.heads)
        k = split_heads(self.key(self.norm(image_tokens)), self.heads)
        pooled = F.scaled_dot_product_attention(q, k, split_heads(image_tokens, self.heads))
        return pooled.mean(2).flatten(1) - image_tokens.mean(1)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`[B, n, heads * d]` to `[B, heads, n, d]`."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
