"""The policy starts as the supervised heads and learns to say what retrieval rewards, and to keep quiet where it does not."""

import math

import numpy as np
import pytest
import torch

from tests.attributes.test_heads import OPTIONS, made
from tgq.attributes.heads import AttributeHeads
from tgq.attributes.reinforce import Policy, ReinforceConfig, advantages, grpo_loss, reinforce, said_of
from tgq.attributes.rewards import RecallRewards, k_of
from tgq.attributes.training import train_heads
from tgq.encoder.model import TGQFormer
from tgq.encoder.packing import CachedImage
from tgq.encoder.text import metadata_text
from tgq.training.data.dataset import Row, TrainingSet

KEYS = ("colour", "mood", "shape")
HALF = np.arange(200), np.arange(200, 400)


@pytest.fixture(scope="module")
def supervised():
    features, items = made()
    return features, items, train_heads(features, items, "vision", "text", OPTIONS).heads


class Scripted:
    """Rewards a right shape, and nothing that is said of the mood."""

    def __init__(self, items):
        self.items = items

    def recall(self, queries, attributes):
        return np.array([
            0.5 * (own.get("shape") == self.items[row].attributes["shape"]) + 0.5 * ("colour" not in own)
            for row, own in zip(queries, attributes, strict=True)
        ])  # fmt: skip


def test_the_policy_starts_as_the_supervised_heads(supervised):
    features, _, heads = supervised
    policy, asked = Policy(heads), [KEYS] * len(features)
    assert policy.frozen().predict(features, asked) == heads.predict(features, asked)
    log_p = policy.log_probabilities(policy.heads.inputs(features))
    for key in KEYS:
        assert torch.allclose(log_p[key].exp().sum(1), torch.ones(len(features)))
        best, values = log_p[key].argmax(1), len(heads.config.vocabulary.values[key])
        said = torch.tensor([row[0].is_said for row in heads.predict(features, [(key,)] * len(features))])
        assert torch.equal(best < values, said), "its most likely choice is theirs"


def test_it_learns_what_is_rewarded_on_items_that_it_never_saw_and_from_the_best_step_on_says_it(supervised):
    features, items, heads = supervised
    options = ReinforceConfig(steps=120, lr=5e-3, every=40, samples=8)
    found = reinforce(heads, features, [KEYS] * 400, Scripted(items), *HALF, options)
    first, last = found.curve[0], found.curve[-1]
    assert last.held_out_recall > first.held_out_recall + 0.2 and last.held_out_length < first.held_out_length
    assert last.divergence > 0 and math.isnan(first.reward) and last.reward > found.curve[1].reward
    rows = found.heads.predict(features[HALF[1]], [KEYS] * 200)
    assert np.mean([any(one.is_said for one in row if one.key == "colour") for row in rows]) < 0.1, "colours cost, so they are kept back"
    assert np.mean([any(one.is_said for one in row if one.key == "shape") for row in rows]) > 0.9
    assert found.step == min(p.step for p in found.curve if p.held_out_recall == max(q.held_out_recall for q in found.curve))
    again = reinforce(heads, features, [KEYS] * 400, Scripted(items), *HALF, options)
    assert again.heads.version == found.heads.version != heads.version, "the same seed gives the same heads"


def test_reinforced_heads_are_read_as_they_were_written(supervised, tmp_path):
    features, items, heads = supervised
    found = reinforce(heads, features, [KEYS] * 400, Scripted(items), *HALF, ReinforceConfig(steps=4, lr=3e-3, every=2))
    found.heads.save(tmp_path)
    assert AttributeHeads.load(tmp_path).predict(features, [KEYS] * 400) == found.heads.predict(features, [KEYS] * 400)


def test_where_nothing_is_better_the_supervised_heads_stay(supervised):
    features, _, heads = supervised

    class Flat:
        def recall(self, queries, attributes):
            return np.full(len(queries), 0.5)

    found = reinforce(heads, features, [KEYS] * 400, Flat(), *HALF, ReinforceConfig(steps=4, every=2))
    assert found.step == 0 and found.heads.predict(features, [KEYS] * 400) == heads.predict(features, [KEYS] * 400)


def test_a_sample_says_only_what_was_asked_and_nothing_for_a_value_that_is_not_known(supervised):
    heads = supervised[2]
    other, silent = len(heads.config.vocabulary.values["shape"]), len(heads.config.vocabulary.values["shape"]) + 1
    drawn = {"shape": torch.tensor([0, other, silent, 0]), **{key: torch.tensor([9, 9, 9, 9]) for key in ("colour", "mood")}}
    said = said_of(heads, drawn, [("shape",), ("shape",), ("shape",), ()])
    assert said == [{"shape": heads.config.vocabulary.values["shape"][0]}, {}, {}, {}]


def test_advantages_are_deviations_within_a_group():
    found = advantages(np.array([[1.0, 0.0, 1.0, 0.0], [0.3, 0.3, 0.3, 0.3]]))
    assert np.allclose(found, [[1, -1, 1, -1], [0, 0, 0, 0]])


def test_the_loss_is_clipped_and_pulls_back_to_the_supervised_policy():
    before = {"a": torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()}
    drawn, asked = {"a": torch.tensor([0, 0])}, {"a": torch.tensor([True, False])}
    far = {"a": torch.tensor([[0.9, 0.1], [0.9, 0.1]]).log().requires_grad_()}
    loss, divergence = grpo_loss(far, before, before, drawn, asked, torch.tensor([1.0, 1.0]), clip=0.2, kl=0.0)
    assert float(loss.detach()) == pytest.approx(-1.2 / 2), "the ratio 1.8 counts as 1.2, and the sample that was not asked counts as nothing"
    assert float(divergence) == pytest.approx((0.9 * math.log(1.8) + 0.1 * math.log(0.2)) / 2, abs=1e-5)
    loss.backward()
    assert float(far["a"].grad.abs().sum()) == 0, "beyond the clip nothing is learned"
    pulled = {"a": torch.tensor([[0.9, 0.1], [0.9, 0.1]]).log()}
    assert float(grpo_loss(pulled, before, before, drawn, asked, torch.zeros(2), 0.2, 1.0)[0]) == pytest.approx(float(divergence))


def test_the_reward_is_the_recall_of_the_enriched_query_among_the_other_items(tiny_encoder):
    torch.manual_seed(0)
    encoder, draw = TGQFormer.from_pretrained(tiny_encoder), np.random.default_rng(0)
    size = (encoder.vision.tokens_per_image, encoder.vision.width), (encoder.vision.pooled_width,)
    colours = [("red", "blue", "green", "black")[n // 2 % 4] for n in range(16)]
    pictures = [None if n % 3 == 0 else CachedImage(*(draw.normal(size=s).astype("<f2") for s in size)) for n in range(16)]
    rows = TrainingSet.build(encoder, [
        Row(f"i{n}", f"g{n // 2}", "shop", f"p{n}" if pictures[n] else None, pictures[n], None,
            metadata_text(f"shoe {n // 2}", None, None, {"color": colours[n]})) for n in range(16)
    ], [(f"i{a}", f"i{b}", 1.0) for n in range(8) for a, b in ((2 * n, 2 * n + 1), (2 * n + 1, 2 * n))])  # fmt: skip

    def compose(row, own):
        return metadata_text(f"shoe {row // 2}", None, None, own)

    rewards = RecallRewards(encoder, rows, compose, k=3)
    assert rewards.queries.tolist() == list(range(16)) and k_of(100) == 1 and k_of(2000) == 20 and k_of(10**6) == 50
    own = rewards.recall(range(16), [{"color": colour} for colour in colours])
    for row in range(16):  # with its own attributes a query is the item itself, as the pool has it
        scores = rewards.pool[row] @ rewards.pool.T
        scores[row] = -np.inf
        assert own[row] == float(row ^ 1 in np.argsort(-scores)[:3])
    assert set(np.unique(own)) <= {0.0, 1.0} and len(rewards._known) == 16
    real = encoder.encode_text
    encoder.encode_text = lambda texts: pytest.fail("what was rewarded once is remembered")
    assert np.array_equal(rewards.recall([3, 3], [{"color": colours[3]}] * 2), own[[3, 3]])
    encoder.encode_text = real
