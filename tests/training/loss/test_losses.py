"""The losses against what they are defined to be, worked out the long way."""

import math

import numpy as np
import pytest
import torch

from tgq.training.loss.losses import info_nce, redundancy, relation, separation


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_info_nce_is_the_mean_of_both_directions_and_skips_known_pairs():
    queries, positives, scale = unit(5, 8, 1), unit(5, 8, 2), torch.tensor(7.0)
    known = torch.eye(5, dtype=torch.bool)
    known[0, 3] = known[3, 0] = True
    logits = (scale * queries @ positives.T).tolist()

    def row(i, scores):
        kept = [math.exp(s) for j, s in enumerate(scores) if j == i or not known[i, j]]
        return math.log(sum(kept)) - scores[i]

    expected = np.mean([row(i, logits[i]) for i in range(5)] + [row(i, [logits[j][i] for j in range(5)]) for i in range(5)])
    assert float(info_nce(queries, positives, scale, known)) == pytest.approx(expected, rel=1e-5)


def test_redundancy_is_the_mean_squared_correlation_of_equal_channels():
    anchored, exploratory = torch.randn(64, 3), torch.randn(64, 3)
    exploratory[:, 0] = -2 * anchored[:, 0] + 5  # fully redundant, whatever sign and scale
    exploratory[:, 2] = 1.0  # constant: no correlation
    middle = np.corrcoef(anchored[:, 1], exploratory[:, 1])[0, 1] ** 2
    assert float(redundancy(anchored, exploratory)) == pytest.approx((1 + middle) / 3, abs=1e-4)


def test_separation_is_the_logistic_loss_of_pairs_in_the_wrong_order():
    gate, mark = torch.tensor([0.5, 1.5, 1.0, 0.1]), torch.tensor([1.0, 0.0, 0.0, -1.0])
    odds = [math.log(x / (2 - x)) for x in (0.5, 1.5, 1.0)]
    expected = np.mean([math.log1p(math.exp(odds[0] - right)) for right in odds[1:]])
    assert float(separation(gate, mark)) == pytest.approx(expected, rel=1e-5)
    assert float(separation(gate, 1 - mark.clamp(min=0))) > float(separation(gate, mark))
    assert float(separation(gate, mark.clamp(max=0))) == 0, "nothing is misleading"


def test_relation_is_zero_for_the_teachers_geometry_in_any_basis_and_grows_away_from_it():
    teacher = unit(12, 6, 3)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(4)))[0]
    assert float(relation(teacher @ turn, teacher)) < 1e-10
    wider = torch.cat([teacher, torch.zeros(12, 4)], dim=1)
    assert float(relation(wider, teacher)) < 1e-12
    assert float(relation(unit(12, 6, 5), teacher)) > 0.05
