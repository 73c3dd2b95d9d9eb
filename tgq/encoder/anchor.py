"""Where the metadata points in the picture (ours, not the paper's)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RESEMBLANCE = 0.03  # temperature of the softmax over class names
CERTAINTY = 4.0  # temperature of the classifier's softmax: a token sees less than the whole picture it was trained on
TRUST = (2.0, 1.0)  # in vocabulary and correlation: names hold for any catalog, correlations for the ones they come from
CLOSE_TRUST = (2.7, 0.4)  # likewise in a close-up, at strength 1: exponents of what is a likelihood ratio, were the sources perfect
STRENGTH = 0.75  # standard deviation of the logits (exact in float16, as what is saved), where no training has chosen it
NEAR = 0.17  # share of a side: 3 x 3 of 7 x 7 cells, 5 x 5 of 10 x 10
FLAT = 0.05  # scores that differ by less say nothing
RANK, KEPT, FLOOR, STRONGEST = 48, 128, 0.05, 0.98  # of the correlation: canonical pairs, directions, ridge, cap of a correlation


class Anchor(nn.Module):
    """Scores each visual token for the metadata text: `[B, N]` logits, the same for all that attend by them.

    Two sources, both in closed form; no gradient reaches them, and an anchor that has learned neither is zero everywhere.

    - *Vocabulary*: the vision checkpoint's own classifier, asked of each token, which makes a class activation map (arXiv
      1512.04150). A text resembles some of the class names (a softmax over the cosines, as in ConSE, arXiv 1312.5650): with
      `q` that resemblance and `p` the class probabilities of a token, the score is `log sum_c q_c p_c`. It knows of things
      that no training catalog has. Cost: `C Dv` per token, as the classifier's own.
    - *Correlation*: canonical correlation between tokens and texts (Hotelling 1936). With a joint Gaussian, the pointwise
      mutual information of a canonical pair (u, y) of correlation r is `(r u y - r^2 (u^2 + y^2) / 2) / (1 - r^2)` plus a
      constant; the score is its sum over pairs, less the terms without u, which are the same for every token. It is
      learned from pictures and texts alone: no groups, no boxes.

    Scores are averaged over neighbours where the tokens are a square grid: what a shop shows is larger than a cell. Each
    source then counts by how its scores are spread within the picture, and the sum has standard deviation `strength`.
    The last `closeups` tokens are close-ups, pictures of their own: there the scores are taken at their word, `log p` and
    information weighted by `CLOSE_TRUST`, so that a text that says much of one of them chooses it and one that says little
    leaves them even.
    """

    names: Tensor
    directions: Tensor
    image_map: Tensor
    image_shift: Tensor
    text_map: Tensor
    text_shift: Tensor
    correlation: Tensor
    trust: Tensor
    close_trust: Tensor  # None without close-ups
    strength: Tensor

    def __init__(self, classes: int, image_width: int, text_width: int, closeups: int = 0):
        super().__init__()
        self.closeups = closeups
        rank = min(RANK, image_width, text_width)
        shapes = {
            "names": (classes, text_width), "directions": (classes, image_width),
            "image_map": (image_width, rank), "image_shift": (rank,), "text_map": (text_width, rank), "text_shift": (rank,),
            "correlation": (rank,),
        }  # fmt: skip
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("trust", torch.tensor(TRUST))  # in the vocabulary, in the correlation
        self.register_buffer("close_trust", torch.tensor(CLOSE_TRUST) if closeups else None)
        self.register_buffer("strength", torch.tensor(STRENGTH))

    @torch.no_grad()
    def forward(self, image_tokens: Tensor, text: Tensor, known: Tensor) -> Tensor:
        """Tokens `[B, N, Dv]`, texts `[B, Dp]` and whether both are there `[B]` to logits `[B, N]`; 0 where not known."""
        with torch.autocast(image_tokens.device.type, enabled=False):
            tokens, text = image_tokens.float(), text.float()
            logits = self.logits(self.by_vocabulary(tokens, text), self.by_correlation(tokens, text), self.strength)
            return logits.masked_fill(~known[:, None], 0.0)

    def logits(self, named: Tensor, related: Tensor, strength: Tensor | float) -> Tensor:
        """What `by_vocabulary` and `by_correlation` say `[B, N]`, as one: see the class."""
        sources, grid = (named, related), named.shape[1] - self.closeups
        spread = standard(
            sum((trust * standard(smooth(source[:, :grid])) for trust, source in zip(self.trust, sources, strict=True)), torch.zeros(()))
        )
        if not self.closeups:
            return strength * spread
        near = sum((trust * source[:, grid:] for trust, source in zip(self.close_trust, sources, strict=True)), torch.zeros(()))
        return strength * torch.cat([spread, near], dim=1)

    def by_vocabulary(self, tokens: Tensor, text: Tensor) -> Tensor:
        """`[B, N]`; zero without a vocabulary."""
        if not len(self.names):
            return tokens.new_zeros(tokens.shape[:2])
        resembles = (F.normalize(text, dim=-1) @ self.names.T / RESEMBLANCE).softmax(-1)
        shows = (tokens @ self.directions.T / CERTAINTY).softmax(-1)
        return (shows @ resembles[..., None]).squeeze(-1).clamp(min=1e-12).log()

    def by_correlation(self, tokens: Tensor, text: Tensor) -> Tensor:
        """`[B, N]`; zero before `correlate`."""
        r = self.correlation
        u, y = whole(tokens) @ self.image_map - self.image_shift, text @ self.text_map - self.text_shift
        return ((u * (y * r)[:, None] - u.square() * (r.square() / 2)) / (1 - r.square())).sum(-1)

    @torch.no_grad()
    def learn_vocabulary(self, names: Sequence[str], directions: Tensor, embed: Callable[[list[str]], Tensor]) -> None:
        """Take over a classifier: C class names, its rows `[C, Dv]`, and what makes `[n, Dp]` of n texts."""
        if names:
            self.names.copy_(F.normalize(embed(list(names)), dim=-1))
            self.directions.copy_(directions)

    @torch.no_grad()
    def correlate(self, moments: Moments) -> None:
        """Learn the correlation of tokens and texts from their moments; from none, nothing is learned."""
        if not moments.sums or not float(moments.sums[0]):
            return
        total, v, t, vv, tt, vt = moments.sums
        v, t = v / total, t / total
        by_image = _whitening(vv / total - torch.outer(v, v))
        by_text = _whitening(tt / total - torch.outer(t, t))
        left, correlation, right = torch.linalg.svd(by_image.T @ (vt / total - torch.outer(v, t)) @ by_text, full_matrices=False)
        rank = min(len(self.correlation), len(correlation))
        for name, value in (("image_map", by_image @ left[:, :rank]), ("text_map", by_text @ right[:rank].T)):
            getattr(self, name).zero_()[:, :rank].copy_(value)
        self.correlation.zero_()[:rank].copy_(correlation[:rank].clamp(max=STRONGEST))
        self.image_shift.copy_(v.to(self.image_map.dtype) @ self.image_map)
        self.text_shift.copy_(t.to(self.text_map.dtype) @ self.text_map)


@dataclass(frozen=True)
class Moments:
    """What a correlation is learned from, float64: the sums of weights, tokens, texts, and of their three products. They add up, so
    that what was read once serves alone and with others."""

    sums: tuple[Tensor, ...] = ()

    @classmethod
    @torch.no_grad()
    def of(cls, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Moments:
        """From tokens `[b, N, Dv]`, their items' texts `[b, Dp]` and weights `[b, N]`, which say how likely a token shows what the
        text names; a token of weight 0 does not count. Cost: `Dv^2` per token."""
        return sum((cls._of_batch(whole(tokens.float()), text.float(), weight.float()) for tokens, text, weight in batches), cls())

    @classmethod
    def _of_batch(cls, tokens: Tensor, text: Tensor, weight: Tensor) -> Moments:
        heavy, per_item = tokens * weight[..., None], weight.sum(1)
        pooled = heavy.sum(1)
        sums = (per_item.sum(), pooled.sum(0), (text * per_item[:, None]).sum(0), heavy.flatten(0, 1).T @ tokens.flatten(0, 1),
                (text * per_item[:, None]).T @ text, pooled.T @ text)
        return cls(tuple(value.double() for value in sums))

    def __add__(self, other: Moments) -> Moments:
        if not (self.sums and other.sums):
            return self if self.sums else other
        return Moments(tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)))


def whole(tokens: Tensor) -> Tensor:
    """Tokens at mean 0 and variance 1 over their channels, so that bright and busy cells do not count more."""
    return F.layer_norm(tokens, (tokens.shape[-1],))


def standard(scores: Tensor) -> Tensor:
    """`[B, N]` at mean 0 and standard deviation 1 over the tokens of each item; less where they hardly differ."""
    return (scores - scores.mean(1, keepdim=True)) / scores.std(1, correction=0, keepdim=True).clamp(min=FLAT)


def smooth(scores: Tensor) -> Tensor:
    """`[B, N]`, each the mean of its neighbours within NEAR of a side (the border repeated) where N is a square; else as it is."""
    side = math.isqrt(scores.shape[1])
    reach = round(NEAR * side)
    if side * side != scores.shape[1] or not reach:
        return scores
    grid = F.pad(scores.view(-1, 1, side, side), (reach,) * 4, mode="replicate")
    return F.avg_pool2d(grid, 2 * reach + 1, 1).flatten(1)


def _whitening(covariance: Tensor) -> Tensor:
    """`[D, k]`: the leading directions, each divided by the root of its variance and a ridge."""
    variance, directions = torch.linalg.eigh(covariance)
    variance, directions = variance[-KEPT:].clamp(min=0), directions[:, -KEPT:]
    return directions / (variance + FLOOR * variance.mean()).sqrt()
