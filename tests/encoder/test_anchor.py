"""The anchor against planted truth and against its formulas, worked out the long way."""

import pytest
import torch
import torch.nn.functional as F

from tgq.encoder.layers.anchor import Anchor, Moments, normalise_tokens, smooth
from tgq.encoder.model import TGQFormer

DV, DP, N = 12, 6, 16


@pytest.fixture
def planted():
    """Items whose text says what one of their 16 tokens shows; the others show other things."""
    draw = torch.Generator().manual_seed(0)
    things = torch.randn(8, DV, generator=draw) * 3
    said = torch.randn(8, DP, generator=draw)
    of = torch.randint(0, 8, (600,), generator=draw)
    tokens = things[torch.randint(0, 8, (600, N), generator=draw)]
    place = torch.randint(0, N, (600,), generator=draw)
    tokens[torch.arange(600), place] = things[of]
    text = said[of] + torch.randn(600, DP, generator=draw) * 0.1
    return tokens + torch.randn(600, N, DV, generator=draw) * 0.2, text, place, of


def test_an_anchor_that_learned_nothing_is_zero(planted):
    tokens, text, _, _ = planted
    assert not Anchor(5, DV, DP)(tokens, text, torch.ones(600, dtype=torch.bool)).any()


def test_the_correlation_finds_the_planted_token_without_being_told_where_it_is(planted):
    tokens, text, place, of = planted
    anchor = Anchor(0, DV, DP)
    anchor.fit_correlation(Moments.of((tokens[i : i + 100], text[i : i + 100], torch.full((100, N), 1 / N)) for i in range(0, 400, 100)))
    scores = anchor.correlation_scores(tokens, text)[400:]
    shown = (tokens[400:] - tokens[400:][torch.arange(200), place[400:]][:, None]).norm(dim=-1) < 3  # tokens of the same thing
    best = shown[torch.arange(200), scores.argmax(1)].float().mean()
    assert best > 0.8 and shown.float().mean() < 0.3


def test_weights_decide_which_tokens_are_learned_from(planted):
    tokens, text, place, _ = planted
    other = torch.randn_like(tokens)
    other[torch.arange(600), place] = tokens[torch.arange(600), place]
    only = F.one_hot(place, N).float()
    first, second = Anchor(0, DV, DP), Anchor(0, DV, DP)
    first.fit_correlation(Moments.of([(tokens, text, only)]))
    second.fit_correlation(Moments.of([(other, text, only)]))
    torch.testing.assert_close(first.correlation, second.correlation, atol=1e-5, rtol=0)


def test_the_score_is_the_pointwise_mutual_information_less_what_all_tokens_share(planted):
    tokens, text, _, _ = planted
    anchor = Anchor(0, DV, DP)
    anchor.fit_correlation(Moments.of([(tokens, text, torch.full((600, N), 1 / N))]))
    r, rows = anchor.correlation.double(), slice(0, 5)
    u = (normalise_tokens(tokens[rows]) @ anchor.image_map - anchor.image_shift).double()
    y = (text[rows] @ anchor.text_map - anchor.text_shift).double()[:, None].expand_as(u)
    joint = torch.distributions.MultivariateNormal(
        torch.zeros(len(r), 2, dtype=torch.double), torch.stack([torch.stack([torch.ones_like(r), r], -1), torch.stack([r, torch.ones_like(r)], -1)], -2)
    )
    one = torch.distributions.Normal(torch.zeros((), dtype=torch.double), 1.0)
    information = (joint.log_prob(torch.stack([u, y], -1)) - one.log_prob(u) - one.log_prob(y)).sum(-1)
    scores = anchor.correlation_scores(tokens[rows], text[rows]).double()
    gap = information - scores
    torch.testing.assert_close(gap, gap[:, :1].expand_as(gap), atol=1e-3, rtol=0)


def test_a_text_looks_along_the_directions_of_the_names_that_it_resembles():
    anchor = Anchor(3, DV, DP)
    names = F.normalize(torch.randn(3, DP, generator=torch.Generator().manual_seed(1)), dim=-1)
    directions = torch.eye(3, DV)
    anchor.set_vocabulary(["shoe", "mug", "lamp"], directions, lambda asked: 5 * names[[["shoe", "mug", "lamp"].index(a) for a in asked]])
    tokens = torch.zeros(1, 4, DV)
    tokens[0, 2, 1] = 4.0  # token 2 shows a mug
    assert anchor.vocabulary_scores(tokens, names[1:2])[0].argmax() == 2
    assert anchor.vocabulary_scores(tokens, names[0:1])[0].argmin() == 2


def test_a_token_is_scored_by_the_probability_of_what_the_text_resembles():
    draw = torch.Generator().manual_seed(2)
    names, directions = torch.randn(3, DP, generator=draw), torch.randn(3, DV, generator=draw)
    anchor = Anchor(3, DV, DP)
    anchor.set_vocabulary(["a", "b", "c"], directions, lambda asked: names)
    tokens, text = torch.randn(1, 2, DV, generator=draw), torch.randn(1, DP, generator=draw)
    alike = [F.cosine_similarity(text[0], name, dim=0) / 0.03 for name in names]
    q = [torch.exp(a) / sum(map(torch.exp, alike)) for a in alike]
    for token, score in zip(tokens[0], anchor.vocabulary_scores(tokens, text)[0], strict=True):
        p = torch.softmax(torch.stack([token @ d / 4 for d in directions]), 0)
        torch.testing.assert_close(score, torch.log(sum(a * b for a, b in zip(q, p, strict=True))))


def test_logits_are_as_spread_as_the_anchor_is_strong_and_a_flat_picture_has_none(planted):
    tokens, text, _, _ = planted
    anchor = Anchor(0, DV, DP)
    anchor.fit_correlation(Moments.of([(tokens, text, torch.full((600, N), 1 / N))]))
    both = torch.ones(2, dtype=torch.bool)
    torch.testing.assert_close(anchor(tokens[:2], text[:2], both).std(1, correction=0), anchor.strength.expand(2))
    assert not anchor(tokens[:2, :1].expand(-1, N, -1), text[:2], both).any()
    torch.nn.init.zeros_(anchor.strength)
    assert not anchor(tokens[:2], text[:2], both).any()


def test_close_ups_are_scored_at_their_word_beside_the_grid(planted):
    tokens, text, _, _ = planted
    plain, near = Anchor(0, DV, DP), Anchor(0, DV, DP, closeups=3)
    for anchor in (plain, near):
        anchor.fit_correlation(Moments.of([(tokens[:, :13], text, torch.full((600, 13), 1 / 13))]))
    both = torch.ones(600, dtype=torch.bool)
    logits = near(tokens, text, both)
    torch.testing.assert_close(logits[:, :13], plain(tokens[:, :13], text, both))
    torch.testing.assert_close(logits[:, 13:], near.strength * 0.4 * near.correlation_scores(tokens[:, 13:], text))


def test_scores_are_smoothed_on_a_square_grid_only():
    spike = torch.zeros(1, 16)
    spike[0, 5] = 9.0
    around = smooth(spike).view(4, 4)
    assert around[0:3, 0:3].allclose(torch.ones(3, 3)) and not around[3].any() and not around[:, 3].any()
    assert torch.equal(smooth(spike[:, :15]), spike[:, :15])
    finer = torch.zeros(1, 100)
    finer[0, 55] = 25.0
    reached = torch.zeros(10, 10)
    reached[3:8, 3:8] = 1.0
    torch.testing.assert_close(smooth(finer).view(10, 10), reached)


def test_a_missing_side_anchors_nothing(planted):
    tokens, text, _, _ = planted
    anchor = Anchor(0, DV, DP)
    anchor.fit_correlation(Moments.of([(tokens, text, torch.full((600, N), 1 / N))]))
    known = torch.tensor([True, False])
    scores = anchor(tokens[:2], text[:2], known)
    assert scores[0].any() and not scores[1].any()


def test_a_correlation_of_nothing_changes_nothing():
    anchor = Anchor(0, DV, DP)
    anchor.fit_correlation(Moments.of([]))
    anchor.fit_correlation(Moments.of([(torch.randn(2, N, DV), torch.randn(2, DP), torch.zeros(2, N))]))
    assert not anchor.correlation.any()


def test_an_encoder_keeps_its_anchor_in_its_folder(tiny, tmp_path):
    torch.manual_seed(0)
    shape = tiny.anchor.image_map.shape[0], tiny.anchor.text_map.shape[0]
    tiny.anchor.fit_correlation(Moments.of([(torch.randn(50, 4, shape[0]), torch.randn(50, shape[1]), torch.full((50, 4), 0.25))]))
    before = tiny.model_version
    tiny.save_pretrained(tmp_path / "moved")
    config = (tiny.relative_to / "config.json").read_text()
    (tmp_path / "moved" / "config.json").write_text(config.replace('"towers/', f'"{tiny.relative_to}/towers/'))
    again = TGQFormer.from_pretrained(tmp_path / "moved")
    assert again.model_version == before and torch.equal(again.anchor.image_map, tiny.anchor.image_map)
    assert before != TGQFormer.from_pretrained(tiny.relative_to).model_version
