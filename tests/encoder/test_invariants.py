"""What holds for every TGQ-Former, whatever its weights."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tgq.encoder.layers.attention import GuidedPooling
from tgq.encoder.layers.heads import Streams
from tgq.encoder.model import TGQFormer

TITLES = ["red shirt", "blue leather bag for women", "mug", "", "a lamp of green wool and cotton for the home"]
METADATA = ["red shirt | sport", "blue leather bag for women | bag | color: blue", "", "home", TITLES[4] + " | home | material: wool"]
PICTURES = torch.tensor([0, 1, 2, 1, -1])


@pytest.fixture
def pixels(tiny):
    return torch.stack([tiny.vision.preprocess(Image.new("RGB", (40, 50), c)) for c in ("red", "blue", "white")])


@pytest.fixture
def features(tiny, pixels):
    return tiny.features(tiny.encode_image(pixels), PICTURES, METADATA, TITLES)


def test_an_untrained_light_head_is_plain_fusion(tiny, features):
    base = tiny.head.base(features.image, features.has_image, features.text, features.has_text)
    torch.testing.assert_close(tiny(features).embedding, F.normalize(base, dim=-1), atol=1e-6, rtol=0)


def test_gates_start_open_and_stay_between_zero_and_two(tiny, stirred, features):
    fresh = TGQFormer(tiny.config, tiny.relative_to).eval()
    assert torch.equal(fresh(features).gate_metadata, torch.ones(5, tiny.config.width))
    out = stirred(features)
    for gate in (out.gate_metadata, out.gate_exploratory):
        assert (gate > 0).all() and (gate < 2).all() and (gate != 1).any()


def test_anchored_queries_follow_the_metadata_and_exploratory_ones_do_not(stirred, pixels):
    index = torch.tensor([0, 0])
    f = stirred.features(stirred.encode_image(pixels), index, ["red shirt", "green mug"], ["red shirt", "green mug"])
    projected = stirred.image_in(f.image_tokens) + stirred.position
    tokens = stirred.connector(projected, f.text_tokens, f.text_mask)
    anchored, exploratory = tokens.tensor_split([stirred.connector.n_anchored], dim=1)
    assert (anchored[0] - anchored[1]).abs().max() > 1e-2
    torch.testing.assert_close(exploratory[0], exploratory[1], atol=1e-6, rtol=0)


def test_both_streams_follow_the_picture(stirred, pixels):
    f = stirred.features(stirred.encode_image(pixels), torch.tensor([0, 1]), ["mug"] * 2, ["mug"] * 2)
    out = stirred(f)
    assert (out.anchored[0] - out.anchored[1]).abs().max() > 1e-3
    assert (out.exploratory[0] - out.exploratory[1]).abs().max() > 1e-3


def test_masked_tokens_are_not_read(stirred, features):
    noise = torch.randn_like(features.text_tokens) * ~features.text_mask[..., None]
    noisy = replace(features, text_tokens=features.text_tokens + noise)
    torch.testing.assert_close(stirred(noisy).embedding, stirred(features).embedding, atol=1e-6, rtol=0)


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(5)), cut=st.integers(1, 4))
def test_an_embedding_does_not_depend_on_its_batch(tiny_encoder_dir, order, cut):
    stirred = TGQFormer.from_pretrained(tiny_encoder_dir)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in stirred.head.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    pictures = torch.stack([stirred.vision.preprocess(Image.new("RGB", (40, 50), c)) for c in ("red", "blue", "white")])

    def encode(rows):
        return stirred.encode(pictures, PICTURES[rows], [METADATA[i] for i in rows], [TITLES[i] for i in rows]).embedding

    whole = encode(list(range(5)))
    torch.testing.assert_close(encode(list(order)), whole[list(order)], atol=1e-4, rtol=0)
    parts = torch.cat([encode(list(range(cut))), encode(list(range(cut, 5)))])
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=0)


def test_missing_sides_leave_no_nan_and_a_unit_vector(stirred, pixels):
    out = stirred.encode(pixels, torch.tensor([0, -1, -1, 1]), ["", "red shirt", "", "mug"], ["", "red shirt", "", ""])
    torch.testing.assert_close(out.embedding.norm(dim=-1), torch.ones(4))
    assert out.agreement.isnan().all()
    assert torch.isfinite(out.gate_metadata).all() and torch.isfinite(out.gate_exploratory).all()
    assert not out.image[1:3].any() and not out.text[[0, 2]].any()
    assert (out.embedding[0] - out.embedding[3]).abs().max() > 1e-3
    no_pixels = stirred.encode(None, torch.tensor([-1]), ["red shirt"], ["red shirt"])
    torch.testing.assert_close(no_pixels.embedding[0], out.embedding[1], atol=1e-5, rtol=0)


def test_agreement_is_a_cosine_where_both_sides_are_there(stirred, features):
    agreement = stirred(features).agreement
    assert agreement[:3].abs().max() <= 1 and agreement[3:].isnan().all()


def test_a_training_step_leaves_the_towers_alone(stirred, features):
    before = {name: value.clone() for name, value in stirred.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in stirred.parameters() if p.requires_grad], lr=1e-2)
    stirred.train()
    stirred(features).embedding.sum().backward()
    optimizer.step()
    after = stirred.state_dict()
    frozen = [name for name in before if name.startswith(("vision.", "text."))]
    assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
    assert any(not torch.equal(before[name], after[name]) for name in stirred.own_state())
    assert not stirred.vision.training and not stirred.text.training


def test_an_open_gate_lets_the_anchor_move_the_picture_and_a_shut_one_does_not(tiny, features):
    where = torch.zeros(5, features.image_tokens.shape[1])
    where[:, 3] = 50.0  # all on one token
    streams = Streams.untrained(where, tiny.config.width)
    moved = tiny.head.shifted_image(features, streams)
    mean = features.image_tokens.mean(1)
    torch.testing.assert_close(moved - features.image, features.image_tokens[:, 3] - mean, atol=1e-4, rtol=0)
    shut = replace(streams, gate_metadata=torch.zeros_like(streams.gate_metadata))
    torch.testing.assert_close(tiny.head.shifted_image(features, shut), features.image)


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0, 1), closeups=st.integers(1, 4), loud=st.floats(0, 20))
def test_close_ups_have_their_share_of_the_first_stream_and_nothing_of_the_second(share, closeups, loud):
    torch.manual_seed(0)
    pooling = GuidedPooling(8, 2, closeups)
    pooling.share.fill_(share)
    tokens, where = torch.randn(3, 9 + closeups, 6), loud * torch.randn(3, 9 + closeups)
    projected, stream, gate = torch.randn(3, 9 + closeups, 8), torch.randn(3, 2, 8), torch.ones(3, 8)
    weights = pooling.weights(projected, stream, where)
    torch.testing.assert_close(weights[..., -closeups:].sum(-1), torch.full((3, 2), share), atol=1e-5, rtol=0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2))
    assert not pooling.weights(projected, stream, where, first=False)[..., -closeups:].any()
    only, both = (pooling(tokens, projected, [(stream, where, gate), *more]) for more in ([], [(stream, torch.zeros_like(where), gate)]))
    torch.testing.assert_close(both, only, atol=1e-5, rtol=0)  # the second, with no logits, is the mean of the grid
    expected = torch.einsum("bn,bnd->bd", weights[:, 0], tokens) - tokens[:, :9].mean(1)
    torch.testing.assert_close(only, expected, atol=1e-4, rtol=0)
    lone = pooling(tokens, projected, [(stream[:, :0], where, gate), (stream, where, gate)])
    torch.testing.assert_close(lone, only)


def test_pooling_weights_sum_to_one_and_start_even(tiny, stirred, features):
    fresh = TGQFormer(tiny.config, tiny.relative_to).eval()
    for model in (fresh, stirred):
        projected = model.image_in(features.image_tokens) + model.position
        nowhere = projected.new_zeros(projected.shape[:2])
        weights = model.head.pooling.weights(projected, torch.randn(5, 8, model.config.width), nowhere)
        torch.testing.assert_close(weights.sum(-1), torch.ones(5, model.config.pooling_heads))
        assert torch.allclose(weights, torch.full_like(weights, 1 / weights.shape[-1])) == (model is fresh)
