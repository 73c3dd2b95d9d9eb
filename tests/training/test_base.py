"""Training of the linear base alone: it starts where the encoder is, sees what the encoder sees, and never ends with a worse one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.test_scene_training import drawn, encoder_of
from tgq.training.base import PooledViews, train_base
from tgq.training.data.casting import Casting
from tgq.training.initialisation import initialise
from tgq.training.trainer import TrainConfig, train
from tgq.training.validation import Validation, embed, validation_rows

CONFIG = TrainConfig(scene_share=0.5, base_steps=60, base_pairs=24, base_steps_lr=3e-3, base_scenes=2)


@pytest.fixture(scope="module")
def start(cnn_encoder_dir):
    """An initialised encoder, its rows with attention logits, and those that are held out."""
    encoder = encoder_of(cnn_encoder_dir)
    rows = drawn(encoder)
    held_out = validation_rows(rows, CONFIG)
    learning = rows.subset(np.flatnonzero(~held_out))
    casting = Casting(learning, CONFIG.scene_share, CONFIG.scene_same_category)
    initialise(encoder, casting.applied(0), CONFIG)
    return encoder, {name: value.clone() for name, value in encoder.own_state().items()}, rows.with_attention_logits(encoder, views=1), held_out


def restored(start):
    encoder, state, rows, held_out = start
    encoder.load_state_dict(state, strict=False)
    return encoder, rows, held_out


def weaken(encoder):
    """Another start than the closed form, so that there is something to learn: little more than two directions."""
    with torch.no_grad():
        encoder.head.base.image[2:] *= 0.01
        encoder.head.base.text *= 0.01


def test_pooled_views_give_the_embeddings_of_the_encoder(start):
    encoder, rows, held_out = restored(start)
    seen = Casting(rows, 1.0, 0.0)
    views = PooledViews.of(encoder, rows, [(None, 0), (seen, 7)])
    text, everything = torch.from_numpy(rows.text[rows.metadata_index[:, 0]]), torch.arange(len(rows))
    for view, expected in enumerate((embed(encoder, rows), embed(encoder, rows, seen, 7))):
        with torch.no_grad():
            found = views.embedded(encoder.head.base, text, torch.full_like(everything, view), everything)
        assert np.abs(found.numpy() - expected).max() < 2e-3, "apart from the rounding of pooled features to float16"
    dropped = torch.ones(len(rows), dtype=torch.bool)
    with torch.no_grad():
        without = views.embedded(encoder.head.base, text, torch.zeros_like(everything), everything, (dropped, ~dropped))
        both = views.embedded(encoder.head.base, text, torch.zeros_like(everything), everything, (dropped, dropped))
    assert not torch.allclose(without[0], both[0]) and torch.unique(without, dim=0).shape[0] > 40
    assert torch.unique(both.round(decimals=4), dim=0).shape[0] > 40, "an item keeps its picture if both sides were to be dropped"


def test_it_starts_as_validated_gets_better_and_changes_nothing_but_the_base(start):
    encoder, rows, held_out = restored(start)
    before = Validation(rows, held_out, CONFIG)(encoder)["validation_mrr"]
    weaken(encoder)
    worse = Validation(rows, held_out, CONFIG)(encoder)["validation_mrr"]
    found = train_base(encoder, rows, held_out, CONFIG)
    after = Validation(rows, held_out, CONFIG)(encoder)["validation_mrr"]
    assert found["base_mrr_before"] == pytest.approx(worse, abs=0.03) and found["base_mrr"] == pytest.approx(after, abs=0.03)
    assert after > worse + 0.1 and 0 < found["base_step"] <= CONFIG.base_steps and before > worse
    state = start[1]
    changed = {name for name, value in encoder.own_state().items() if not torch.equal(value, state[name])}
    assert changed and all(name.startswith("head.base.") for name in changed)
    once = {name: encoder.own_state()[name].clone() for name in changed}
    encoder, *_ = restored(start)
    weaken(encoder)
    train_base(encoder, rows, held_out, CONFIG)
    assert all(torch.equal(encoder.own_state()[name], value) for name, value in once.items()), "the same again"


def test_steps_that_do_not_help_change_nothing(start):
    encoder, rows, held_out = restored(start)
    found = train_base(encoder, rows, held_out, replace(CONFIG, scene_share=0.0, base_steps_lr=1e3))
    assert found["base_step"] == 0 and found["base_mrr"] == found["base_mrr_before"]
    assert all(torch.equal(value, start[1][name]) for name, value in encoder.own_state().items())


def test_a_training_begins_with_it(start):
    encoder, rows, held_out = restored(start)
    weaken(encoder)
    history = train(encoder, rows, replace(CONFIG, steps=0), initialised=True)
    assert len(history) == 1 and history[0]["base_step"] > 0
    assert history[0]["validation_mrr"] == pytest.approx(history[0]["base_mrr"], abs=0.03) and history[0]["base_mrr"] > history[0]["base_mrr_before"] + 0.1
    assert not encoder.training
