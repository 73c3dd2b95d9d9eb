"""The anchor: attention logits over visual tokens, computed from the metadata text (ours, not the paper's)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgq.encoder.layers.linear import linear

NAME_TEMPERATURE = 0.03  # of the softmax over class names
CLASS_TEMPERATURE = 4.0  # of the classifier's softmax; a single token carries less evidence than the whole image it was trained on
WEIGHTS = (2.0, 1.0)  # of vocabulary and correlation: names apply to any catalog, a correlation to the catalogs it was fitted on
CLOSEUP_WEIGHTS = (2.7, 0.4)  # likewise for close-ups, at strength 1; exponents of what would be a likelihood ratio with perfect sources
STRENGTH = 0.75  # default standard deviation of the logits; exactly representable in float16, the format of saved weights
REACH = 0.17  # radius of the smoothing window as a share of the grid's side: 3 x 3 of 7 x 7 cells, 5 x 5 of 10 x 10
MIN_DEVIATION = 0.05  # smallest divisor when scores are standardised; a smaller deviation carries no information
PAIRS, DIRECTIONS = 48, 128  # canonical pairs that are kept, and principal directions of each side that they are found in
RIDGE, MAX_CORRELATION = 0.05, 0.98


class Anchor(nn.Module):
    """Scores each visual token against the metadata text: attention logits `[B, N]`, shared by all heads that use them.

    The scores come from two sources. Both have a closed form and no gradient flows through them. Without any fitted source all
    logits are zero.

    - *Vocabulary*: the vision checkpoint's own classifier is applied to each token, as in a class activation map (arXiv
      1512.04150). The text is compared with the class names by a softmax over cosines, as in ConSE (arXiv 1312.5650). With `q`
      these text-to-class weights and `p` the class probabilities of a token, the token's score is `log sum_c q_c p_c`. This
      source recognises objects that occur in no training catalog. Cost: `C Dv` per token, the same as the classifier's.
    - *Correlation*: canonical correlation analysis between tokens and texts (Hotelling 1936). Under a joint Gaussian, the
      pointwise mutual information of a canonical pair (u, y) with correlation r is
      `(r u y - r^2 (u^2 + y^2) / 2) / (1 - r^2)` plus a constant. The score is the sum over pairs without the terms that do not
      depend on u, because these are equal for all tokens. It is fitted on images and texts alone, without groups or boxes.

    If the tokens form a square grid, scores are averaged over neighbouring cells, because products are larger than one cell.
    Each source is then standardised within the image, and the sum weighted by `WEIGHTS` is scaled to the standard deviation
    `strength`.
    The last `closeups` tokens are close-ups, each an image of its own. Their scores are not standardised: they are the sources'
    log-probabilities and mutual information weighted by `CLOSEUP_WEIGHTS`. A text that matches one close-up well therefore
    selects it, and a text that matches none leaves the weights of the close-ups nearly equal.

    Args:
        classes: C, classes of the vision checkpoint's classifier; 0: it has none.
        image_width: Dv, width of visual tokens.
        text_width: Dp, width of pooled texts.
        closeups: number of close-up tokens.
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
        rank = min(PAIRS, image_width, text_width)
        shapes = {
            "names": (classes, text_width), "directions": (classes, image_width),
            "image_map": (image_width, rank), "image_shift": (rank,), "text_map": (text_width, rank), "text_shift": (rank,),
            "correlation": (rank,),
        }  # fmt: skip
        for name, shape in shapes.items():  # buffer names are keys of saved weights
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("trust", torch.tensor(WEIGHTS))  # of vocabulary and correlation
        self.register_buffer("close_trust", torch.tensor(CLOSEUP_WEIGHTS) if closeups else None)
        self.register_buffer("strength", torch.tensor(STRENGTH))

    @torch.no_grad()
    def forward(self, image_tokens: Tensor, text: Tensor, present: Tensor) -> Tensor:
        """Attention logits `[B, N]`.

        Args:
            image_tokens: `[B, N, Dv]`.
            text: `[B, Dp]`, pooled features of the metadata texts.
            present: `[B]` bool, items that have both an image and a text. The logits of other items are 0.
        """
        with torch.autocast(image_tokens.device.type, enabled=False):
            tokens, text = image_tokens.float(), text.float()
            logits = self.logits(self.vocabulary_scores(tokens, text), self.correlation_scores(tokens, text), self.strength)
            return logits.masked_fill(~present[:, None], 0.0)

    def logits(self, vocabulary_scores: Tensor, correlation_scores: Tensor, strength: Tensor | float) -> Tensor:
        """Combine the scores of both sources, `[B, N]` each, into logits `[B, N]` as the class describes."""
        sources, grid = (vocabulary_scores, correlation_scores), vocabulary_scores.shape[1] - self.closeups
        combined = standardise(sum(weight * standardise(smooth(source[:, :grid])) for weight, source in zip(self.trust, sources, strict=True)))
        if not self.closeups:
            return strength * combined
        closeups = sum(weight * source[:, grid:] for weight, source in zip(self.close_trust, sources, strict=True))
        return strength * torch.cat([combined, closeups], dim=1)

    def vocabulary_scores(self, tokens: Tensor, text: Tensor) -> Tensor:
        """Scores `[B, N]` of tokens `[B, N, Dv]` for texts `[B, Dp]`; zero without a vocabulary."""
        if not len(self.names):
            return tokens.new_zeros(tokens.shape[:2])
        of_text = (F.normalize(text, dim=-1) @ self.names.T / NAME_TEMPERATURE).softmax(-1)
        of_token = (linear(tokens, self.directions) / CLASS_TEMPERATURE).softmax(-1)
        return (of_token @ of_text[..., None]).squeeze(-1).clamp(min=1e-12).log()

    def correlation_scores(self, tokens: Tensor, text: Tensor) -> Tensor:
        """Scores `[B, N]` of tokens `[B, N, Dv]` for texts `[B, Dp]`; zero before `fit_correlation`."""
        r = self.correlation
        u, y = linear(normalise_tokens(tokens), self.image_map.T) - self.image_shift, text @ self.text_map - self.text_shift
        return ((u * (y * r)[:, None] - u.square() * (r.square() / 2)) / (1 - r.square())).sum(-1)

    @torch.no_grad()
    def set_vocabulary(self, names: Sequence[str], directions: Tensor, embed: Callable[[list[str]], Tensor]) -> None:
        """Copy a classifier.

        Args:
            names: C class names; none leaves the vocabulary unset.
            directions: `[C, Dv]`, the classifier's weight rows.
            embed: returns pooled text features `[n, Dp]` of n texts.
        """
        if names:
            self.names.copy_(F.normalize(embed(list(names)), dim=-1))
            self.directions.copy_(directions)

    @torch.no_grad()
    def fit_correlation(self, moments: Moments) -> None:
        """Fit the correlation of tokens and texts to their moments. Empty moments leave it unchanged."""
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
        self.correlation.zero_()[:rank].copy_(correlation[:rank].clamp(max=MAX_CORRELATION))
        self.image_shift.copy_(v.to(self.image_map.dtype) @ self.image_map)
        self.text_shift.copy_(t.to(self.text_map.dtype) @ self.text_map)


@dataclass(frozen=True)
class Moments:
    """Sufficient statistics of a correlation, float64: the sums of weights, tokens, texts and their three products.

    Moments of disjoint data are added with `+`, so that each part of the data is read only once. No sums: no data.
    """

    sums: tuple[Tensor, ...] = ()

    @classmethod
    @torch.no_grad()
    def of(cls, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Moments:
        """Moments of batches of tokens `[b, N, Dv]`, texts `[b, Dp]` and weights `[b, N]`.

        The weight of a token is a guess of how likely it shows what the text names; tokens of weight 0 do not count. Cost:
        `Dv^2` per token.
        """
        return sum((cls._of_batch(normalise_tokens(tokens.float()), text.float(), weight.float()) for tokens, text, weight in batches), cls())

    @classmethod
    def _of_batch(cls, tokens: Tensor, text: Tensor, weight: Tensor) -> Moments:
        weighted, per_item = tokens * weight[..., None], weight.sum(1)
        pooled = weighted.sum(1)
        sums = (per_item.sum(), pooled.sum(0), (text * per_item[:, None]).sum(0), weighted.flatten(0, 1).T @ tokens.flatten(0, 1),
                (text * per_item[:, None]).T @ text, pooled.T @ text)
        return cls(tuple(value.double() for value in sums))

    def __add__(self, other: Moments) -> Moments:
        if not (self.sums and other.sums):
            return self if self.sums else other
        return Moments(tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)))


def normalise_tokens(tokens: Tensor) -> Tensor:
    """Tokens `[..., Dv]` at mean 0 and variance 1 over their channels, so that bright and busy cells do not weigh more."""
    return F.layer_norm(tokens, (tokens.shape[-1],))


def standardise(scores: Tensor) -> Tensor:
    """Scores `[B, N]` at mean 0 and standard deviation 1 over the tokens of each item.

    Nearly constant scores get a smaller deviation: the divisor is at least MIN_DEVIATION.
    """
    return (scores - scores.mean(1, keepdim=True)) / scores.std(1, correction=0, keepdim=True).clamp(min=MIN_DEVIATION)


def smooth(scores: Tensor) -> Tensor:
    """Scores `[B, N]` averaged over a square window of grid cells with radius REACH, border cells repeated.

    If N is not a square number there is no grid, and the scores are returned unchanged.
    """
    side = math.isqrt(scores.shape[1])
    reach = round(REACH * side)
    if side * side != scores.shape[1] or not reach:
        return scores
    grid = F.pad(scores.view(-1, 1, side, side), (reach,) * 4, mode="replicate")
    return F.avg_pool2d(grid, 2 * reach + 1, 1).flatten(1)


def _whitening(covariance: Tensor) -> Tensor:
    """Whitening map `[D, k]`: the leading principal directions, each divided by the root of its variance plus a ridge."""
    variance, directions = torch.linalg.eigh(covariance)
    variance, directions = variance[-DIRECTIONS:].clamp(min=0), directions[:, -DIRECTIONS:]
    return directions / (variance + RIDGE * variance.mean()).sqrt()
