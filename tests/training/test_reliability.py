"""The trust in metadata: closed-form spaces, their calibration, and what an encoder does with metadata of another item."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.test_trainer import CONFIG, drawn
from tgq.encoder.layers.fusion import Imputation
from tgq.encoder.layers.reliability import Alignment
from tgq.encoder.model import TGQFormer
from tgq.errors import ModelError, SourceError
from tgq.training.initialisation import initialise
from tgq.training.reliability import auc, calibrated, fit_alignment, logistic_regression
from tgq.training.validation import embed


def correlated(encoder, groups=120, titles=True, seed=0):
    """Rows whose pictures and texts show the same hidden features, with noise."""
    rows, draw = drawn(encoder, groups=groups, per_group=3, seed=seed), np.random.default_rng(seed + 1)
    hidden = np.repeat(draw.normal(size=(groups, 6)), 3, axis=0)

    def shown(width, noise):
        return (hidden @ draw.normal(size=(6, width)) + noise * draw.normal(size=(len(hidden), width))).astype(np.float32)

    image, text = shown(encoder.vision.pooled_width, 0.5), shown(encoder.text.pooled_width, 0.5)
    at, blank = np.arange(len(rows)), np.zeros((1, text.shape[1]), np.float32)
    mask, tokens = (np.concatenate([x[rows.metadata_index[:, 0]], np.zeros_like(x[:1])]) for x in (rows.text_mask, rows.text_tokens))
    return replace(
        rows, image=image, image_index=at, image_tokens=rows.image_tokens[rows.image_index], text=np.concatenate([text, blank]), text_mask=mask,
        text_tokens=tokens, texts=(*(f"text {i}" for i in at), ""), metadata_index=np.stack([at, at], 1),
        title=np.concatenate([text[:, ::-1] if titles else 0 * text, blank]), title_index=at,
    )  # fmt: skip


def with_other_metadata(rows):
    """The same rows with the metadata and title of a row that is half the set away."""
    other = np.roll(np.arange(len(rows)), len(rows) // 2)
    return replace(rows, metadata_index=rows.metadata_index[other], title_index=rows.title_index[other])


def gates(encoder, rows):
    with torch.no_grad():
        return encoder.eval()(rows.features(np.arange(len(rows)))).gate_metadata.mean(-1).numpy()


@pytest.fixture
def encoder(folder):
    torch.manual_seed(0)
    return TGQFormer(replace(TGQFormer.from_pretrained(folder).config, reliability=True, imputation=16), folder)


@pytest.mark.parametrize("titles", [True, False])
def test_the_gate_closes_for_metadata_of_another_item_and_costs_the_right_one_nothing(encoder, titles):
    learning, unseen = correlated(encoder, titles=titles), correlated(encoder, titles=titles)
    unseen = unseen.subset(np.arange(len(unseen))[-90:])
    learning = learning.subset(np.arange(len(learning))[:-90])
    assert (gates(encoder, unseen) == 1).all(), "before it is fitted, all metadata is trusted"
    initialise(encoder, learning, CONFIG)
    right, wrong = gates(encoder, unseen), gates(encoder, with_other_metadata(unseen))
    assert (right[:, None] > wrong[None]).mean() > 0.9 and right.mean() > 0.85 and wrong.mean() < 0.5

    clean, misled = embed(encoder, unseen), embed(encoder, with_other_metadata(unseen))
    encoder.reliability.with_title[-1] = encoder.reliability.without_title[-1] = 1e4  # trust everything
    trusting = embed(encoder, unseen), embed(encoder, with_other_metadata(unseen))
    assert (clean * trusting[0]).sum(1).mean() > 0.97
    assert (clean * misled).sum(1).mean() > (trusting[0] * trusting[1]).sum(1).mean() + 0.1


def test_without_metadata_or_picture_nothing_contradicts(encoder):
    rows = correlated(encoder)
    initialise(encoder, rows, CONFIG)
    blank = rows.texts.index("")
    without = replace(rows, metadata_index=np.full_like(rows.metadata_index, blank), title_index=np.full(len(rows), blank))
    assert (gates(encoder, without) == 1).all() and (gates(encoder, replace(rows, image_index=np.full(len(rows), -1))) == 1).all()
    whole, textless = embed(encoder, rows), embed(encoder, without)
    assert np.isfinite(textless).all() and (whole * textless).sum(1).mean() > 0.3


def test_titles_do_not_count_where_none_were_learnt_from(encoder):
    initialise(encoder, correlated(encoder, titles=False), CONFIG)
    assert encoder.reliability.with_title.tolist() == [0.0, *encoder.reliability.without_title.tolist()]
    titled = correlated(encoder)
    assert gates(encoder, titled).mean() > 0.85, "an item with a title is judged by its metadata"


def test_an_encoder_without_trust_is_calibrated_to_the_rows_of_another_catalog(folder):
    torch.manual_seed(0)
    base = TGQFormer(TGQFormer.from_pretrained(folder).config, folder).eval()
    rows = correlated(base)
    learning, unseen = rows.subset(np.arange(len(rows))[:-90]), rows.subset(np.arange(len(rows))[-90:])
    made, area = calibrated(base, learning)
    right, wrong = gates(made, unseen), gates(made, with_other_metadata(unseen))
    assert area > 0.9 and auc(right, wrong) > 0.9 and right.mean() > 0.85 and wrong.mean() < 0.5
    kept, now = base.own_state(), made.own_state()
    fitted = ("alignment.", "head.base.null_")
    assert all(torch.equal(value, now[name]) for name, value in kept.items() if not name.startswith(fitted))
    missing = replace(unseen, metadata_index=np.full_like(unseen.metadata_index, unseen.texts.index("")), title_index=np.full(len(unseen), len(rows)))
    whole, before, after = embed(base, unseen), embed(base, missing), embed(made, missing)
    assert (whole * after).sum(1).mean() > (whole * before).sum(1).mean() + 0.02, "what the picture makes one expect stands for a missing text"
    assert made.model_version != base.model_version and calibrated(made, learning)[0].model_version == made.model_version


def test_what_cannot_be_calibrated_is_said(folder):
    base = TGQFormer.from_pretrained(folder)
    rows = correlated(base)
    with pytest.raises(SourceError, match="30 items have a picture and metadata, which are too few .* at least 128"):
        calibrated(base, rows.subset(np.arange(30)))
    with pytest.raises(SourceError, match="^0 items"):
        calibrated(base, replace(rows, image_index=np.full(len(rows), -1)))
    with pytest.raises(ModelError, match="connector concat_linear and head light has no trust"):
        calibrated(TGQFormer(replace(base.config, connector="concat_linear"), folder), rows)


def test_projections_are_canonical_correlations():
    draw = torch.Generator().manual_seed(0)
    hidden, noise = torch.randn(4000, 2, generator=draw), torch.randn(4000, 12, generator=draw)
    image, text = torch.cat([hidden, noise[:, :6]], 1), torch.cat([2 * hidden[:, :1] + 0.1 * noise[:, 6:7], noise[:, 7:]], 1)
    space = Alignment(8, 6, 3, learned=True, centred=True)
    assert fit_alignment(space, image, text, torch.ones(4000))
    x, y = (layer(torch.nn.functional.normalize(side, dim=-1)).detach() for layer, side in ((space.image, image), (space.title, text)))
    assert x.mean(0).abs().max() < 1e-4
    cross = (x - x.mean(0)).T @ (y - y.mean(0)) / 4000
    assert cross[0, 0] > 20 * (cross - torch.diag(cross.diagonal())).abs().max() and cross[0, 0] > 20 * cross[1, 1]
    before = space.image.weight.clone()
    assert not fit_alignment(space, image, text, torch.cat([torch.ones(3), torch.zeros(3997)])) and torch.equal(space.image.weight, before)


def test_the_logistic_regression_is_where_its_slope_is_zero():
    draw = torch.Generator().manual_seed(1)
    x, weight = torch.randn(500, 2, generator=draw), torch.rand(500, generator=draw)
    belongs = (torch.rand(500, generator=draw) < (3 * x[:, 0] - x[:, 1] + 1).sigmoid()).float()
    found = logistic_regression(x, belongs, weight)
    p = (torch.cat([x, torch.ones(500, 1)], 1) @ found).sigmoid()
    slope = torch.cat([x, torch.ones(500, 1)], 1).T @ (weight * (belongs - p))
    assert slope.abs().max() < 0.02 and found[0] > 2 and found[1] < 0
    assert torch.isfinite(logistic_regression(x[:, :1], (x[:, 0] > 0).float(), weight)).all(), "separable classes have finite weights"


def test_a_missing_side_is_estimated_by_a_map_of_low_rank():
    draw = torch.Generator().manual_seed(2)
    known, map_ = torch.randn(3000, 10, generator=draw), torch.randn(10, 3, generator=draw) @ torch.randn(3, 7, generator=draw)
    expected = Imputation(10, 7, 3)
    assert not expected(known).any()
    expected.fit(known, known @ map_ + 0.1 * torch.randn(3000, 7, generator=draw), torch.ones(3000))
    found, true = expected(known).detach(), known @ map_
    assert torch.nn.functional.cosine_similarity(found, true).mean() > 0.99 and 0.4 < float(found.norm() / true.norm()) < 0.6, "a ridge of one variance"
