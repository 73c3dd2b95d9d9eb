"""Reinforcement of the heads: GRPO with the retrieval reward of AFMRL (arXiv 2604.20135) on a policy over what the heads say.

For an item and a key that it lacks the policy draws a value, OTHER, or silence. Their weights are the calibrated probabilities of the values and of OTHER,
and for silence the key's threshold, so the policy starts as the supervised heads: its most likely choice is theirs. OTHER says nothing, like silence: there
is no text for it. So every sample is a valid answer, and the paper's penalty of invalid ones, which are free text there, has no case.

For each item of a step G samples are rewarded by `RecallRewards`. A sample's advantage is its reward's deviation from the group's mean, in standard
deviations. The loss is PPO's clipped one over the choices (Shao et al. 2024, arXiv 2402.03300) plus the divergence from the
supervised policy, which is computed exactly because a choice has few outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tgq.attributes.heads import AttributeHeads, ItemFeatures

NEVER = 4.0  # weight of silence, where all values weigh 1 together, for a key that supervision never says: one draw in five says it


@dataclass(frozen=True)
class ReinforceConfig:
    """Settings of the reinforcement."""

    seed: int = 0
    steps: int = 100
    items: int = 32  # of a step
    samples: int = 8  # of an item: the group
    epochs: int = 2  # passes over a step's samples
    lr: float = 1e-4
    clip: float = 0.2  # of the ratio of probabilities
    kl: float = 0.02  # weight of the divergence from the supervised policy
    every: int = 10  # steps between two evaluations
    evaluated: int = 200  # items of an evaluation, of each side


class Rewarding(Protocol):
    """Rewards generated attributes; `RecallRewards` does."""

    def recall(self, queries: Sequence[int], attributes: Sequence[Mapping[str, str]]) -> np.ndarray:
        """`[Q]`, 0 to 1, for row numbers and the attributes that each has."""
        ...


@dataclass(frozen=True)
class Point:
    """How good the most likely choices are at a step, and the samples of the steps before it."""

    step: int
    train_recall: float
    held_out_recall: float
    train_length: float  # values that are said of an item
    held_out_length: float
    reward: float  # mean of the samples since the last point; nan at the start
    divergence: float  # from the supervised policy, of a choice, in nats


@dataclass(frozen=True)
class Reinforced:
    """The heads of the step with the best held-out recall, the first one of equals, and the curve."""

    heads: AttributeHeads
    curve: tuple[Point, ...]
    step: int


class Policy:
    """Draws what is said of items. `heads` are copied, and have a threshold for every key then."""

    def __init__(self, heads: AttributeHeads):
        thresholds = {key: NEVER if (least := heads.config.thresholds.get(key)) is None else least for key in heads.keys}
        self.heads = AttributeHeads(replace(heads.config, thresholds=thresholds)).train()
        self.heads.load_state_dict(heads.state_dict())

    def log_probabilities(self, inputs: Tensor) -> dict[str, Tensor]:
        """By key `[N, V + 2]`: of its values, of OTHER and of silence."""
        logits, silence, config = self.heads(inputs), self.heads.silence(inputs), self.heads.config
        found = {}
        for n, key in enumerate(self.heads.keys):
            values = (logits[:, self.heads.slices[key]] / config.temperatures.get(key, 1.0)).log_softmax(1)
            least = config.thresholds[key]
            assert least is not None
            found[key] = torch.cat([values, (np.log(max(least, 1e-6)) + silence[:, n])[:, None]], 1).log_softmax(1)
        return found

    def frozen(self) -> AttributeHeads:
        """The present heads, as a copy in eval mode."""
        return self.heads.with_calibration(self.heads.config.temperatures, self.heads.config.thresholds)


def reinforce(
    heads: AttributeHeads, features: ItemFeatures, asked: Sequence[Sequence[str]], rewards: Rewarding, train: np.ndarray, held_out: np.ndarray,
    options: ReinforceConfig, log: Callable[[Point], None] = lambda point: None,
) -> Reinforced:  # fmt: skip
    """Reinforce supervised heads. The encoder behind the rewards stays as it is.

    Args:
        features, asked: of all rows; `asked` are the keys that an item would lack without its attributes.
        train, held_out: numbers of rows with a positive, of different groups.

    Cost: `steps * items * samples` rewards, of which those that repeat cost nothing.
    """
    policy, start = Policy(heads), Policy(heads)
    inputs = policy.heads.inputs(features)
    draw, pick = torch.Generator().manual_seed(options.seed), np.random.default_rng(options.seed)
    train, held_out = (np.array([row for row in rows if len(asked[row])], int) for rows in (train, held_out))
    judged = [pick.permutation(rows)[: options.evaluated] for rows in (train, held_out)]
    optimiser = torch.optim.Adam(policy.heads.parameters(), lr=options.lr)
    curve, best, seen = [], policy.frozen(), _Seen()

    def evaluated(step: int) -> Point:
        now = policy.frozen()
        (train_recall, train_length), (recall, length) = (_greedy(now, features, asked, rewards, rows) for rows in judged)
        return Point(step, train_recall, recall, train_length, length, *seen.means())

    curve.append(evaluated(0))
    log(curve[0])
    chosen, highest = 0, curve[0].held_out_recall
    for step in range(1, options.steps + 1):
        rows = pick.choice(train, min(options.items, len(train)), replace=False)
        batch = inputs[rows].repeat_interleave(options.samples, 0)
        keys = [asked[row] for row in rows for _ in range(options.samples)]
        with torch.no_grad():
            before, reference = policy.log_probabilities(batch), start.log_probabilities(batch)
            drawn = {key: torch.multinomial(p.exp(), 1, generator=draw)[:, 0] for key, p in before.items()}
        said = said_of(policy.heads, drawn, keys)
        reward = rewards.recall([row for row in rows for _ in range(options.samples)], said)
        advantage = torch.from_numpy(advantages(reward.reshape(len(rows), options.samples)).reshape(-1)).float()
        is_asked = {key: torch.tensor([key in own for own in keys]) for key in policy.heads.keys}
        for _ in range(options.epochs):
            loss, divergence = grpo_loss(policy.log_probabilities(batch), before, reference, drawn, is_asked, advantage, options.clip, options.kl)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        seen.add(reward, float(divergence))
        if step % options.every == 0 or step == options.steps:
            curve.append(evaluated(step))
            log(curve[-1])
            if curve[-1].held_out_recall > highest:
                best, chosen, highest = policy.frozen(), step, curve[-1].held_out_recall
    return Reinforced(best, tuple(curve), chosen)


def said_of(heads: AttributeHeads, drawn: Mapping[str, Tensor], asked: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """What samples say: nothing for keys for which they draw OTHER or silence.

    Args:
        drawn: by key `[N]` places among its values, OTHER and silence.
        asked: keys of each sample; what is drawn for others does not count.
    """
    choices, known = {key: places.tolist() for key, places in drawn.items()}, heads.config.vocabulary.values
    return [{key: known[key][choices[key][n]] for key in keys if choices[key][n] < len(known[key])} for n, keys in enumerate(asked)]


def advantages(reward: np.ndarray) -> np.ndarray:
    """`[B, G]`: rewards of B groups as deviations from their group's mean, in its standard deviations; 0 where all of a group are equal."""
    deviation = reward - reward.mean(1, keepdims=True)
    spread = reward.std(1, keepdims=True)
    return np.where(spread > 1e-8, deviation / np.maximum(spread, 1e-8), 0.0)


def grpo_loss(
    now: Mapping[str, Tensor], before: Mapping[str, Tensor], reference: Mapping[str, Tensor], drawn: Mapping[str, Tensor], is_asked: Mapping[str, Tensor],
    advantage: Tensor, clip: float, kl: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The loss of N samples, and the mean divergence of their choices.

    Args:
        now, before, reference: by key `[N, V + 2]` log-probabilities of the policy, of the one that drew, and of the supervised one.
        drawn, is_asked: by key `[N]`.
        advantage: `[N]`. Every choice of a sample has that of the sample; samples count alike, however many choices they have.
    """
    gain = divergence = torch.zeros(len(advantage))
    choices = torch.stack([asked.float() for asked in is_asked.values()]).sum(0).clamp(min=1)
    for key, log_p in now.items():
        at = drawn[key][:, None]
        ratio = (log_p.gather(1, at) - before[key].gather(1, at))[:, 0].exp()
        clipped = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
        apart = (log_p.exp() * (log_p - reference[key])).sum(1)
        gain = gain + clipped * is_asked[key] / choices
        divergence = divergence + apart * is_asked[key] / choices
    return kl * divergence.mean() - gain.mean(), divergence.mean().detach()


def _greedy(heads: AttributeHeads, features: ItemFeatures, asked: Sequence[Sequence[str]], rewards: Rewarding, rows: np.ndarray) -> tuple[float, float]:
    """Mean recall and mean number of values, if heads say what they say at night."""
    answers = heads.predict(features[rows], [asked[row] for row in rows])
    said = [{one.key: one.value for one in row if one.is_said} for row in answers]
    if not len(rows):
        return float("nan"), float("nan")
    return float(rewards.recall(rows.tolist(), said).mean()), float(np.mean([len(own) for own in said]))


class _Seen:
    """Sums over the samples since the last point."""

    def __init__(self) -> None:
        self._rewards: list[float] = []
        self._divergence: list[float] = []

    def add(self, reward: np.ndarray, divergence: float) -> None:
        self._rewards.append(float(reward.mean()))
        self._divergence.append(divergence)

    def means(self) -> tuple[float, float]:
        """Means of both, which begin anew then."""
        reward, divergence = (float(np.mean(values)) if values else float("nan") for values in (self._rewards, self._divergence))
        self._rewards.clear()
        self._divergence.clear()
        return reward, divergence
