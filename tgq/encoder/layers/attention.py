"""Attention layers: cross-attention over visual tokens for the connectors, and attention pooling for the light head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgq.encoder.layers.linear import Linear


class CrossAttention(nn.Module):
    """Multi-head attention of queries `[B, n, D]` over tokens `[B, N, D]`. Cost grows with B * n * N * D.

    A mask `[B, N]` (bool) selects the tokens that queries may attend to; None: all of them.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.out = Linear(width, width), Linear(width, width)
        self.key_value = Linear(width, 2 * width)

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The attended values `[B, n, D]`, one per query."""
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        q, k, v = (split_heads(x, self.heads) for x in (self.query(queries), key, value))
        mask = None if mask is None else mask[:, None, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm cross-attention and MLP, both with a residual connection. Queries attend to the tokens, not to each other."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.attention = CrossAttention(width, heads, dropout)
        self.mlp = nn.Sequential(Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), Linear(2 * width, width))
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Queries `[B, n, D]` and tokens `[B, N, D]` to updated queries `[B, n, D]`."""
        queries = queries + self.attention(self.attention_norm(queries), tokens)
        return queries + self.mlp(self.mlp_norm(queries))


class GuidedPooling(nn.Module):
    """Attention pooling of the vision tower's tokens, guided by connector tokens and anchor logits (ours, not the paper's).

    Each head pools its own share of the tower's channels, without a projection. The weights of a stream over the N visual
    tokens are the mean of the attention maps of the stream's tokens. The stream's gate scales how far these weights move the
    result away from the plain mean. The query projection starts at zero. Without anchor logits and with a close-up share of
    zero, the initial weights are therefore uniform over the grid, the pooled feature is the plain mean and the shift is zero.
    No gradient flows into the tower's tokens, which keeps training cheap.

    The last `closeups` of the N tokens are close-ups. In the first stream that has tokens, `share` of the total weight goes to
    them before the scores are added. In the second stream they get no weight, because they would count twice.
    """

    share: Tensor  # None without close-ups

    def __init__(self, width: int, heads: int, closeups: int = 0, head_width: int = 32):
        super().__init__()
        self.heads, self.head_width, self.closeups = heads, head_width, closeups
        self.register_buffer("share", torch.zeros(()) if closeups else None)
        self.query = Linear(width, heads * head_width)
        self.key = Linear(width, heads * head_width)
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)

    def weights(self, projected: Tensor, tokens: Tensor, logits: Tensor, first: bool = True) -> Tensor:
        """Pooling weights `[B, heads, N]` of one stream. They sum to 1 over the N visual tokens.

        Args:
            projected: `[B, N, D]`, visual tokens at the connector's width.
            tokens: `[B, n, D]`, the stream's tokens.
            logits: `[B, N]`, anchor attention logits, added to the attention scores.
            first: whether this is the stream that gives weight to the close-ups.
        """
        if self.closeups:
            grid, closeups = logits.tensor_split([-self.closeups], dim=1)
            share = self.share if first else torch.zeros_like(self.share)
            logits = torch.cat([grid.log_softmax(1) + (1 - share).log(), closeups.log_softmax(1) + share.log()], dim=1)
        q, k = split_heads(self.query(tokens), self.heads), split_heads(self.key(projected), self.heads)
        scores = q @ k.transpose(-1, -2) / self.head_width**0.5
        return (scores.float() + logits[:, None, None]).softmax(-1).mean(2)

    def forward(self, image_tokens: Tensor, projected: Tensor, streams: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        """The shift `[B, Dv]` from the mean of the tower's tokens to the pooled feature.

        Args:
            image_tokens: `[B, N, Dv]`, tokens of the vision tower.
            projected: `[B, N, D]`, the same tokens at the connector's width.
            streams: for each stream its tokens `[B, n, D]`, anchor logits `[B, N]` and gate `[B, D]`. Each head uses the mean of
                its share of the gate's channels. A stream without tokens adds nothing.
        """
        difference = image_tokens.new_zeros(len(image_tokens), self.heads, image_tokens.shape[1])
        grid = image_tokens.shape[1] - self.closeups
        uniform = F.pad(difference.new_full((grid,), 1 / grid), (0, self.closeups))
        for number, (tokens, logits, gate) in enumerate(stream for stream in streams if stream[0].shape[1]):
            scale = gate.float().unflatten(-1, (self.heads, -1)).mean(-1)
            difference = difference + scale[..., None] * (self.weights(projected, tokens, logits, first=not number) - uniform).to(difference.dtype)
        # One product per head reads the tokens in place. einsum copies them first, which is six times slower on a CPU.
        parts = zip(difference.split(1, dim=1), image_tokens.chunk(self.heads, dim=-1), strict=True)
        return torch.cat([weights @ tokens for weights, tokens in parts], dim=-1).squeeze(1)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`[B, n, heads * d]` to `[B, heads, n, d]`."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
