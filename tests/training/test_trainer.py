"""Training on a synthetic set with a known answer: only the text tells which of the image's tokens shows the item."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tgq.encoder.layers.fusion import PlainFusion
from tgq.encoder.model import TGQFormer
from tgq.encoder.tiny import write_tiny_encoder, write_tiny_llm
from tgq.errors import ModelError, SourceError, TgqError
from tgq.training.config import learning_rate_factor
from tgq.training.data.dataset import TrainingSet
from tgq.training.initialisation import initialise
from tgq.training.loss.ranking import first_ranks
from tgq.training.processes import Processes
from tgq.training.trainer import TrainConfig, train
from tgq.training.validation import Validation, embed, validation_rows

CONFIG = TrainConfig(steps=4, pairs=16, evaluate_every=2)


@pytest.fixture
def encoder(folder):
    torch.manual_seed(0)
    return TGQFormer(TGQFormer.from_pretrained(folder).config, folder)


def drawn(encoder, groups=60, per_group=4, seed=0) -> TrainingSet:
    """Images that show four items, one of them the group's. The text names its kind, one of eight."""
    draw, n = np.random.default_rng(seed), groups * per_group
    tokens, width = encoder.vision.tokens_per_image, encoder.vision.width
    kinds, words = 4 * draw.normal(size=(8, width)), draw.normal(size=(8, encoder.text.pooled_width))
    kind = draw.integers(0, 8, groups)
    look = kinds[kind] + 3 * draw.normal(size=(groups, width))
    group = np.repeat(np.arange(groups), per_group)
    frame = 0.3 * draw.normal(size=(n, tokens, width))
    for i, g in enumerate(group):
        here, *there = draw.permutation(tokens - 1)[:4] + 1
        frame[i, here], frame[i, there] = look[g], look[draw.choice(np.flatnonzero(kind != kind[g]), len(there))]
    texts = words[kind[group]] + 0.05 * draw.normal(size=(n, words.shape[1]))
    length = encoder.text.max_length
    mask = np.zeros((n, length), bool)
    mask[:, 0] = True
    said = np.zeros((n, length, encoder.text.width), np.float16)
    rows, texts = np.arange(n), texts.astype(np.float32)
    pairs = np.array([(i, j) for i in rows for j in rows if i != j and group[i] == group[j]])
    return TrainingSet(
        frame.astype(np.float16), frame.mean(1).astype(np.float32), said, mask, texts, tuple(map(str, rows)), texts, rows,
        np.stack([rows, rows], 1), rows, np.char.add("g", group.astype(str)), np.array(["drawn"] * n), rows.astype(str),
        pairs, pairs[:0], (rows[:, None] + [per_group, 2 * per_group]) % n,
    )  # fmt: skip


def reciprocal(vectors, rows):
    return float(np.nanmean(1 / first_ranks(vectors, rows, np.arange(len(rows)))))


def test_initialisation_finds_the_item_that_the_text_names(encoder, folder):
    rows = drawn(encoder)
    initialise(encoder, rows, CONFIG)
    assert float(encoder.anchor.strength) > 0, "a strength above 0 is chosen, because the anchor helps"
    anchored = reciprocal(embed(encoder, rows), rows)
    without_anchor = TGQFormer(replace(encoder.config, anchor=False), folder)
    initialise(without_anchor, rows, CONFIG)
    plain = reciprocal(embed(without_anchor, rows), rows)
    assert without_anchor.anchor is None and anchored > plain + 0.05


def test_the_anchors_strength_is_chosen_if_not_given_and_zero_if_it_only_harms(encoder):
    rows = drawn(encoder)
    initialise(encoder, rows, replace(CONFIG, strength=0.5))
    assert float(encoder.anchor.strength) == 0.5
    draw = np.random.default_rng(1)
    # every text points at a token that shows anything but the group's product, which fills the rest of the frame
    tokens = rows.image_tokens.copy()
    for i, g in enumerate(rows.group):
        loud = tokens[i, 1:][np.abs(tokens[i, 1:].astype(np.float32)).max(-1) > 3]
        tokens[i, :] = np.random.default_rng(int(g[1:])).normal(size=tokens.shape[2]) * 3
        tokens[i, 5] = loud[0] + draw.normal(size=tokens.shape[2]) * 6
    misled = replace(rows, image_tokens=tokens.astype(np.float16), image=tokens.astype(np.float32).mean(1))
    initialise(encoder, misled, CONFIG)
    assert float(encoder.anchor.strength) == 0.0


@pytest.mark.parametrize("connector", ["tgq", "qformer"])
def test_close_ups_have_a_share_if_they_help_and_none_if_they_harm(tmp_path, connector):
    config = TGQFormer.from_pretrained(write_tiny_encoder(tmp_path / "tiny", dim=24, closeups=2, connector=connector)).config
    for name in ("clear", "noise"):
        torch.manual_seed(0)
        encoder = TGQFormer(config, tmp_path / "tiny")
        rows = drawn(encoder)
        draw, tokens = np.random.default_rng(2), rows.image_tokens.astype(np.float32)
        looks = {g: draw.normal(size=tokens.shape[2]) for g in np.unique(rows.group)}
        if name == "clear":
            tokens[:, :-4] = draw.normal(size=tokens[:, :-4].shape)
            tokens[:, -4:] = np.stack([3 * looks[g] for g in rows.group])[:, None]
        else:
            tokens[:, :-4] = np.stack([looks[g] for g in rows.group])[:, None]
            tokens[:, -4:] = 9 * draw.normal(size=tokens[:, -4:].shape)
        rows = replace(rows, image_tokens=tokens.astype(np.float16), image=tokens[:, :-4].mean(1))
        initialise(encoder, rows, CONFIG)
        assert (float(encoder.head.pooling.share) > 0) == (name == "clear")
    initialise(encoder, rows, replace(CONFIG, closeup_share=0.25))
    assert float(encoder.head.pooling.share) == 0.25


@pytest.mark.parametrize(("groups", "given", "found"), [(16, None, 3.2), (100, None, 0.2), (16, 0.4, 0.4)])
def test_the_ridge_is_larger_if_few_groups_would_be_overfitted(encoder, monkeypatch, groups, given, found):
    floors, fit = [], PlainFusion.fit
    monkeypatch.setattr(PlainFusion, "fit", lambda base, *args: (floors.append(args[5]), fit(base, *args)))
    rows, draw = drawn(encoder, groups=groups, per_group=3), np.random.default_rng(3)
    here, width = np.repeat(np.arange(groups), 3), encoder.vision.width
    look, said = (draw.normal(size=(groups, width))[here] + draw.normal(size=(len(here), width)) for _ in "it")
    tokens = np.repeat(look[:, None], rows.image_tokens.shape[1], 1)
    rows = replace(rows, image_tokens=tokens.astype(np.float16), image=look.astype(np.float32), text=said.astype(np.float32))
    chosen = initialise(encoder, rows, replace(CONFIG, base_floor=given))
    assert floors == [found] == [chosen["base_floor"]] and chosen["strength"] == float(encoder.anchor.strength)


def test_precomputed_attention_logits_are_used_and_equal_fresh_ones(encoder, tmp_path):
    rows = drawn(encoder)
    initialise(encoder, rows, CONFIG)
    precomputed = rows.with_attention_logits(encoder)
    np.testing.assert_allclose(embed(encoder, precomputed), embed(encoder, rows), atol=1e-6)
    encoder.anchor.strength.zero_()
    assert not np.allclose(embed(encoder, precomputed), embed(encoder, rows), atol=1e-3), "the logits were computed again"
    only_first, mixed = rows.with_attention_logits(encoder, views=1), np.array([0, 1])
    assert only_first.features(np.array([5, 2])).attention_logits is not None
    assert only_first.features(np.array([5, 2]), mixed).attention_logits is None, "there are no precomputed logits of the second view"
    part = precomputed.subset(np.array([5, 2]))
    np.testing.assert_array_equal(part.attention_logits, precomputed.attention_logits[[5, 2]])
    part.save(tmp_path / "rows.npz")
    assert TrainingSet.load(tmp_path / "rows.npz").attention_logits is None, "logits belong to an anchor, so they are not saved with the data"


def test_training_validates_its_initialisation_first_and_returns_float16_weights(encoder):
    rows, seen = drawn(encoder), []
    history = train(encoder, rows, CONFIG, lambda step, values: seen.append(step))
    assert seen == [0, 2, 4] and [values["step"] for values in history] == seen
    assert history[0].keys() == {"step", "validation_mrr", "strength", "closeup_share", "base_floor"}
    assert all(np.isfinite(values["loss"]) for values in history[1:])
    assert not encoder.training
    for name, value in encoder.own_state().items():
        assert torch.equal(value, value.half().float()), name


def test_more_processes_than_chunks_are_refused_before_anything_starts(encoder):
    with pytest.raises(TgqError, match="4 pairs is 1 chunks of 8 items, but there are 3 processes: lower chunk to 2"):
        train(encoder, drawn(encoder), replace(CONFIG, pairs=4, chunk=8), processes=Processes(0, 3))


def test_steps_that_harm_are_not_kept(encoder):
    rows, wild = drawn(encoder), replace(CONFIG, lr=3.0, base_lr=3.0)
    history = [values["validation_mrr"] for values in train(encoder, rows, wild)]
    assert min(history[1:]) < history[0] - 0.05, "the learning rate does no harm, so this test proves nothing"
    kept = Validation(rows, validation_rows(rows, CONFIG), CONFIG)(encoder)["validation_mrr"]
    assert kept == pytest.approx(max(history), abs=0.01), "apart from the rounding to float16"


def test_training_ends_early_where_nothing_gets_better(encoder):
    history = train(encoder, drawn(encoder), replace(CONFIG, steps=9, evaluate_every=1, patience=2, lr=0.0, base_lr=0.0))
    assert [values["step"] for values in history] == [0, 1, 2]


def test_the_learning_rate_warms_up_linearly_and_decays_as_a_cosine():
    rates = [learning_rate_factor(step, 100, 0.1) for step in range(1, 101)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[10:] == pytest.approx(0.5 + 0.5 * np.cos(np.pi * np.arange(90) / 90))


def test_training_repeats_itself(folder):
    def once():
        torch.manual_seed(0)
        encoder = TGQFormer(TGQFormer.from_pretrained(folder).config, folder)
        train(encoder, drawn(encoder), CONFIG)
        return encoder.model_version

    assert once() == once()


def weights(folder, config, checkpoint=None, log=lambda step, values: None, make=drawn):
    torch.manual_seed(0)
    encoder = TGQFormer(TGQFormer.from_pretrained(folder).config, folder)
    history = train(encoder, make(encoder), config, log, checkpoint=checkpoint)
    return encoder.own_state(), history


def test_recomputed_and_stored_chunks_have_the_gradients_of_the_whole_batch(folder):
    """Without dropout the division into chunks has no effect. With dropout each chunk has its own random draws."""
    still = replace(CONFIG, hard=1, lr=1e-2)
    for name, value in (("dropout", 0.0), ("dropout", 0.1)):
        shape = replace(TGQFormer.from_pretrained(folder).config, **{name: value})
        results = []
        for config in (still, replace(still, regather=True), replace(still, chunk=11)):
            torch.manual_seed(0)
            encoder = TGQFormer(shape, folder)
            results.append([values["loss"] for values in train(encoder, drawn(encoder), config)[1:]])
        assert results[0] == pytest.approx(results[1], rel=1e-5)
        assert (results[0] == pytest.approx(results[2], rel=1e-4)) == (value == 0.0)


def test_hard_negatives_change_what_is_learned(folder):
    without, with_them = (weights(folder, replace(CONFIG, hard=hard))[1][-1]["loss"] for hard in (0, 2))
    assert with_them > without, "more negatives, a greater loss"


def test_a_resumed_training_ends_like_an_uninterrupted_one(folder, tmp_path):
    config = replace(CONFIG, steps=6, lr=1e-2)
    whole, history = weights(folder, config)

    class Killed(Exception):
        pass

    def kill(step, values):
        if step == 4:
            raise Killed

    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        weights(folder, config, path, kill)
    seen = []
    resumed, again = weights(folder, config, path, lambda step, values: seen.append(step))
    assert seen == [0, 2, 4, 6] and all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert [values["loss"] for values in again[1:]] == [values["loss"] for values in history[1:]]
    with pytest.raises(ModelError, match="checkpoint .* was written with another configuration or other data"):
        weights(folder, replace(config, lr=1e-3), path)
    path.write_bytes(b"cut off")
    with pytest.raises(ModelError, match="cannot be read"):
        weights(folder, config, path)


def test_half_precision_learns_the_same_within_its_precision(folder):
    full, half = (weights(folder, replace(CONFIG, precision=precision))[1][-1]["loss"] for precision in ("float32", "bfloat16"))
    assert half == pytest.approx(full, rel=0.02) and half != full
    with pytest.raises(TgqError, match="choose auto, float32 or bfloat16"):
        weights(folder, replace(CONFIG, precision="int4"))


def test_a_loss_that_is_no_number_is_one_line(encoder):
    with pytest.raises(TgqError, match=r"the loss is nan at step \d"):
        train(encoder, drawn(encoder), replace(CONFIG, lr=1e30, base_lr=1e30))


def test_features_that_are_no_numbers_are_one_line(encoder):
    rows = drawn(encoder)
    rows.image_tokens[7, 3] = np.nan
    with pytest.raises(TgqError, match="not finite numbers"):
        train(encoder, rows, CONFIG)


def test_too_few_groups_are_one_line(encoder):
    with pytest.raises(SourceError, match="too few for training and validation"):
        train(encoder, drawn(encoder).subset(np.arange(4)), CONFIG)


@pytest.mark.parametrize("regather", [False, True])
def test_a_language_model_head_trains_without_a_closed_form_and_with_a_teacher(encoder, folder, tmp_path, regather):
    llm = TGQFormer(replace(encoder.config, head="llm", llm=str(write_tiny_llm(tmp_path / "llm")), lora_rank=4), folder)
    rows, path = drawn(llm), tmp_path / "checkpoint.safetensors"
    assert initialise(llm, rows, CONFIG) == {}, "there is nothing to solve in closed form"
    history = train(llm, rows, replace(CONFIG, lr=3e-3, chunk=8, regather=regather, steps=6, evaluate_every=1), checkpoint=path)
    assert history[-1]["loss"] < history[1]["loss"] and history[-1]["relation"] > 0
    trained = {name: value for name, value in load_file(path).items() if name.startswith("now/encoder.head.llm.")}
    assert trained and all("lora_" in name for name in trained), "the checkpoint has the adapters, not the language model"
    assert all(value.any() for name, value in trained.items() if "lora_B" in name), "every adapter has left its start at zero"
