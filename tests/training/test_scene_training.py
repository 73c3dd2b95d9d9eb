"""Training with composed scenes: only the text tells which of the products in a scene is the item."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tgq.encoder.model import TGQFormer
from tgq.errors import SourceError
from tgq.training.data.batches import Batches
from tgq.training.data.casting import Casting
from tgq.training.data.dataset import TrainingSet
from tgq.training.data.sampling import PairSampler
from tgq.training.data.scenes import Banks, SceneParts, compose
from tgq.training.initialisation import initialise
from tgq.training.loss.losses import outside
from tgq.training.loss.objective import Objective
from tgq.training.trainer import TrainConfig, train
from tgq.training.validation import Validation, embed, validation_rows

CONFIG = TrainConfig(steps=4, pairs=16, evaluate_every=2, chunk=12, scene_share=0.5)


def encoder_of(folder, **changed):
    torch.manual_seed(0)
    return TGQFormer(replace(TGQFormer.from_pretrained(folder).config, **changed), folder)


@pytest.fixture
def encoder(cnn_encoder_dir):
    return encoder_of(cnn_encoder_dir)


def drawn(encoder, groups=48, per_group=4, seed=0) -> TrainingSet:
    """Pictures that a product of one of eight kinds fills. The text names the kind, and the kind is the category."""
    draw, n = np.random.default_rng(seed), groups * per_group
    vision, text = encoder.vision, encoder.text
    side, half = 4, 2
    kinds = 3 * draw.normal(size=(8, vision.width))
    words, spoken = draw.normal(size=(8, text.pooled_width)), draw.normal(size=(8, text.width))
    kind = draw.integers(0, 8, groups)
    look, group = kinds[kind] + draw.normal(size=(groups, vision.width)), np.repeat(np.arange(groups), per_group)

    def tokens(*shape, of=None):
        return (0.3 * draw.normal(size=(*shape, vision.width)) + (0 if of is None else of)).astype(np.float16)

    frame = tokens(n, vision.tokens_per_image, of=look[group][:, None])
    mask = np.zeros((n, text.max_length), bool)
    mask[:, :4] = True
    said = (mask[..., None] * spoken[kind[group]][:, None]).astype(np.float16)
    texts = (words[kind[group]] + 0.05 * draw.normal(size=(n, words.shape[1]))).astype(np.float32)
    rows = np.arange(n)
    pairs = np.array([(i, j) for i in rows for j in rows if i != j and group[i] == group[j]])
    parts = SceneParts(tokens(n, half, half, of=look[group][:, None, None]), tokens(n, of=look[group]), np.ones(n, bool))
    banks = Banks(tokens(5, side, side), tokens(5, 4), tokens(3, side, side), np.array([(0, 1), (3, 4), (2, 3)]))
    return TrainingSet(
        frame, frame[:, : side**2].astype(np.float32).mean(1), said, mask, texts, tuple(map(str, rows)), texts, rows, np.stack([rows, rows], 1), rows,
        np.char.add("g", group.astype(str)), np.array(["drawn"] * n), rows.astype(str), pairs, pairs[:0],
        (rows[:, None] + [per_group, 2 * per_group]) % n, category=kind[group].astype(str), parts=parts, banks=banks,
    )  # fmt: skip


def batches_of(rows, config):
    teacher = np.arange(len(rows), dtype=np.float32)[:, None]
    return Batches(rows, PairSampler(rows, config.seed), Casting(rows, config.scene_share, config.scene_same_category), teacher, config)


def test_the_loss_is_minus_log_of_the_attention_inside_the_box():
    attention = torch.tensor([[[0.5, 0.25, 0.25], [0.125, 0.5, 0.375]], [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
    box = torch.tensor([[False, True, True], [True, False, False]])
    inside = torch.tensor([[0.5, 0.875], [1.0, 1.0]])
    torch.testing.assert_close(outside(attention, box), -inside.log().mean(1), atol=1e-5, rtol=1e-5)
    assert torch.isfinite(outside(attention, torch.zeros_like(box))).all()


def test_chunks_hold_the_scenes_of_their_items_and_the_pictures_of_the_others(encoder):
    rows, config = drawn(encoder), replace(CONFIG, scene_share=0.4, drop_text=0.2, drop_image=0.2, hard=1)
    batch = batches_of(rows, config).draw(3)
    again = batches_of(rows, config).draw(3)
    scenes = compose(rows.parts, rows.banks, batch.cast)
    assert 0.2 < (batch.scene >= 0).mean() < 0.6 and (again.scene == batch.scene).all() and len(batch.sizes) > 3
    assert not np.array_equal(batches_of(rows, config).draw(4).scene, batch.scene)
    for at in reversed(range(len(batch.sizes))):  # in any order, by any process
        chunk, part = again.chunk(at), slice(12 * at, 12 * at + batch.sizes[at])
        own = rows.features(batch.items[part])
        assert chunk.teacher[:, 0].tolist() == batch.items[part].tolist(), "of the item itself, however it is shown"
        for i, scene in enumerate(batch.scene[part]):
            f, dropped = chunk.features, not (chunk.features.has_image[i] and chunk.features.has_text[i])
            assert chunk.composed[i] == (scene >= 0) and torch.equal(f.image_tokens[i], scenes.tokens[scene] if scene >= 0 else own.image_tokens[i])
            pooled = scenes.pooled[scene] if scene >= 0 else own.image[i]
            assert torch.equal(f.image[i], pooled * f.has_image[i])
            assert torch.equal(chunk.box[i], scenes.box[scene] & (not dropped) if scene >= 0 else torch.zeros_like(chunk.box[i]))


def test_composed_items_have_attention_logits_of_their_own(encoder):
    rows = drawn(encoder)
    train(encoder, rows, replace(CONFIG, strength=0.75, steps=1))
    known = rows.with_attention_logits(encoder)
    with_logits, fresh = (batches_of(these, CONFIG).draw(1).chunk(0) for these in (known, rows))
    completed, expected = (encoder.attention_logits(chunk.features) for chunk in (with_logits.with_own_logits(encoder), fresh))
    torch.testing.assert_close(completed, expected, atol=1e-4, rtol=1e-4)
    stale = (encoder.attention_logits(with_logits.features) - expected).abs().amax(1) > 0.01
    asked = fresh.features.has_image & fresh.features.has_text
    assert torch.equal(stale, fresh.composed & asked) and stale.any(), "those of the pictures would be wrong"
    assert fresh.with_own_logits(encoder) is fresh, "without precomputed logits the encoder computes all of them"


def test_wrong_metadata_are_those_of_an_item_of_another_group_in_the_batch(encoder):
    rows = drawn(encoder)
    train(encoder, rows, replace(CONFIG, strength=0.75, steps=1))
    known, config = rows.with_attention_logits(encoder), replace(CONFIG, wrong_text=0.5, chunk=32)
    batch, told = batches_of(known, config).draw(1), batches_of(rows, config).draw(1)
    chunk, fresh, wrong = batch.chunk(0), told.chunk(0), torch.from_numpy(batch.metadata_of != batch.items)
    assert 0.2 < wrong.float().mean() < 0.8 and torch.equal(chunk.wrong_text, wrong)
    assert set(batch.metadata_of) <= set(batch.items)
    assert not (rows.group[batch.metadata_of] == rows.group[batch.items])[wrong.numpy()].any()
    f, own, other = chunk.features, rows.features(batch.items), rows.features(batch.metadata_of)
    assert torch.equal(f.text[f.has_text], other.text[f.has_text]) and torch.equal(f.title[f.has_text], other.title[f.has_text])
    assert not torch.equal(f.text[f.has_text], own.text[f.has_text])
    assert not chunk.box[wrong].any(), "nothing in the scene is asked for"
    completed, expected = (encoder.attention_logits(some.features) for some in (chunk.with_own_logits(encoder), fresh))
    torch.testing.assert_close(completed, expected, atol=1e-4, rtol=1e-4)
    both = f.has_image & f.has_text
    assert chunk.misleading[:, 0].tolist() == torch.where(both, wrong.float(), -1).tolist()
    assert chunk.misleading[:, 1].tolist() == torch.where(f.has_image, chunk.composed.float(), -1).tolist()
    assert not (batches_of(rows, replace(config, wrong_text=0.0)).draw(1).metadata_of != batch.items).any()


def test_the_gate_loss_closes_the_gates_of_misleading_streams(cnn_encoder_dir):
    found = {}
    for weight in (0.0, 2.0):
        encoder = encoder_of(cnn_encoder_dir, dropout=0.0)
        config = replace(CONFIG, steps=80, pairs=48, chunk=96, evaluate_every=80, lr=1e-2, patience=99, wrong_text=0.4, gate_weight=weight, drop_text=0.0)
        rows = drawn(encoder)
        train(encoder, rows, replace(config, validation_share=0.1))
        batch = batches_of(rows, replace(config, seed=9)).draw(1)
        chunk = replace(batch, chunk_size=len(batch.items)).chunk(0)
        with torch.no_grad():
            out = encoder(chunk.features)
        for name, gate, mark in (("metadata", out.gate_metadata, chunk.misleading[:, 0]), ("exploratory", out.gate_exploratory, chunk.misleading[:, 1])):
            misled, right = gate.mean(1)[mark == 1], gate.mean(1)[mark == 0]
            found[weight, name] = float((misled[:, None] < right[None]).float().mean())
    assert found[2.0, "metadata"] > 0.8 and found[2.0, "exploratory"] > 0.8, found


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_casting_is_applied_to_its_share_of_the_items(encoder, share):
    rows = drawn(encoder)
    casting = Casting(rows, share, 0.5)
    found = casting.applied(seed=1)
    place, cast = casting.draw(np.arange(len(rows)), np.random.default_rng([1, 0, 3]))
    assert (place >= 0).mean() == pytest.approx(share, abs=0.1)
    scenes, f, own = compose(rows.parts, rows.banks, cast), found.features(np.arange(len(rows))), rows.features(np.arange(len(rows)))
    for i, scene in enumerate(place):
        assert torch.equal(f.image_tokens[i], scenes.tokens[scene].half().float() if scene >= 0 else own.image_tokens[i])
        assert torch.equal(f.image[i], scenes.pooled[scene] if scene >= 0 else own.image[i])
    assert np.array_equal(found.pairs, rows.pairs) and np.array_equal(found.text, rows.text) and found.parts is None


def test_the_initialisation_is_fitted_to_scenes_where_training_has_them(encoder):
    """The anchor is worth more where other products are in the picture."""
    rows, strengths = drawn(encoder), {}
    for share in (0.0, 1.0):
        history = train(encoder, rows, replace(CONFIG, scene_share=share, steps=1, lr=0.0, base_lr=0.0))
        strengths[share] = history[0]["strength"]
    assert strengths[1.0] > strengths[0.0], strengths


def test_validation_shows_the_held_out_items_in_the_same_scenes_each_time(encoder):
    rows = drawn(encoder)
    train(encoder, rows, replace(CONFIG, steps=1, lr=0.0, base_lr=0.0))
    validation = Validation(rows, validation_rows(rows, CONFIG), CONFIG)
    found = validation(encoder)
    assert found == validation(encoder)
    pictures, scenes = found["validation_mrr_pictures"], found["validation_mrr_scenes"]
    assert scenes < pictures and found["validation_mrr"] == pytest.approx((pictures + scenes) / 2)
    assert pictures == Validation(rows, validation_rows(rows, CONFIG), replace(CONFIG, scene_share=0.0))(encoder)["validation_mrr"]


def test_restoration_is_the_distance_to_what_the_initial_encoder_made_of_the_undisturbed_items(encoder):
    rows = drawn(encoder)
    initialise(encoder, rows, CONFIG)
    teacher, losses, distances = torch.from_numpy(embed(encoder, rows)), {}, {}
    for weight, share in ((0.0, 0.5), (3.0, 0.5), (3.0, 0.0)):
        config = replace(CONFIG, scene_share=share or 0.5, drop_image=0.0, drop_text=0.0, restoration_weight=weight)
        batch = batches_of(rows, config).draw(1)
        batch = replace(batch, chunk_size=len(batch.items), view=0 * batch.view, scene=batch.scene if share else 0 * batch.scene - 1)
        chunk, objective = batch.chunk(0), Objective(encoder, config)
        out = objective.outputs(chunk.features, teacher[batch.items], chunk.box, chunk.misleading)
        loss, values = objective(out, torch.from_numpy(batch.excluded), torch.from_numpy(batch.hard_excluded))
        losses[weight, share], distances[weight, share] = float(loss), values.get("restoration")
    assert distances[0.0, 0.5] is None and distances[3.0, 0.5] > 0.02
    assert losses[3.0, 0.5] - losses[0.0, 0.5] == pytest.approx(3 * distances[3.0, 0.5], rel=1e-3)
    assert distances[3.0, 0.0] == pytest.approx(0, abs=1e-5), "nothing is disturbed"


def test_training_with_scenes_learns_to_attend_to_the_item(cnn_encoder_dir):
    losses = {}
    for weight in (0.0, 2.0):
        encoder = encoder_of(cnn_encoder_dir, anchor=False, dropout=0.0)
        config = replace(CONFIG, steps=60, pairs=24, chunk=96, evaluate_every=20, lr=2e-2, patience=99, attention_weight=weight, closeup_share=0.25)
        losses[weight] = [values["attention"] for values in train(encoder, drawn(encoder), config)[1:]]
    assert losses[2.0][-1] < 0.7 * losses[2.0][0] and losses[2.0][-1] < 0.7 * losses[0.0][-1], losses


def test_without_scenes_parts_and_banks_change_nothing(cnn_encoder_dir):
    results = []
    for parts in (True, False):
        encoder = encoder_of(cnn_encoder_dir)
        rows = drawn(encoder)
        rows = rows if parts else replace(rows, parts=None, banks=None, category=None)
        history = train(encoder, rows, replace(CONFIG, scene_share=0.0, attention_weight=0.5 if parts else 0.0))
        results.append((history, encoder.model_version))
    assert results[0] == results[1] and "attention" not in results[0][0][-1]


def test_scenes_need_parts(encoder):
    with pytest.raises(SourceError, match="scene_share is above 0, but the training set has no parts of scenes"):
        train(encoder, replace(drawn(encoder), parts=None), CONFIG)


def weights(folder, config, checkpoint=None, log=lambda step, values: None):
    encoder = encoder_of(folder)
    history = train(encoder, drawn(encoder), config, log, checkpoint=checkpoint)
    return encoder.own_state(), history


def test_a_resumed_training_with_scenes_ends_like_an_uninterrupted_one(cnn_encoder_dir, tmp_path):
    config = replace(CONFIG, steps=6, lr=1e-2, scene_same_category=0.5)
    whole, history = weights(cnn_encoder_dir, config)

    class Killed(Exception):
        pass

    def kill(step, values):
        if step == 4:
            raise Killed

    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        weights(cnn_encoder_dir, config, path, kill)
    resumed, again = weights(cnn_encoder_dir, config, path)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole) and again == history
    assert all(np.isfinite(values["attention"]) for values in history[1:])


def test_the_division_into_chunks_has_no_effect_without_dropout(cnn_encoder_dir):
    losses = []
    for changed in ({}, {"chunk": 7}, {"regather": True}):
        encoder = encoder_of(cnn_encoder_dir, dropout=0.0)
        losses.append([values["loss"] for values in train(encoder, drawn(encoder), replace(CONFIG, lr=1e-2, **changed))[1:]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and losses[0] == pytest.approx(losses[2], rel=1e-5)


def test_other_connectors_and_heads_train_on_scenes_too(cnn_encoder_dir):
    for connector in ("qformer", "concat_linear"):
        encoder = encoder_of(cnn_encoder_dir, connector=connector)
        rows = drawn(encoder)
        history = train(encoder, rows, replace(CONFIG, steps=2))
        assert (history[-1]["attention"] > 0) == (connector == "qformer") and np.isfinite(embed(encoder, rows)).all()
