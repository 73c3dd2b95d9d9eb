"""The linear base against within-class covariance normalisation written with numpy."""

import numpy as np
import pytest
import torch

from tgq.encoder.layers.fusion import PlainFusion


def drawn(items=400, groups=80, catalogs=2, seed=0):
    """Features whose first channels tell the group and whose last ones shake within it."""
    draw = np.random.default_rng(seed)
    group = draw.integers(0, groups, items)
    catalog = group % catalogs
    told = draw.normal(size=(groups, 6))[group]
    image = np.concatenate([told[:, :3] + 1, 6 * draw.normal(size=(items, 3))], 1)
    text = np.concatenate([told[:, 3:], 3 * draw.normal(size=(items, 2))], 1)
    return image.astype(np.float32), text.astype(np.float32), group, catalog


def fitted(dim, floor=0.2, weight=0.4, catalogs=2):
    image, text, group, catalog = drawn(catalogs=catalogs)
    base = PlainFusion(6, 5, dim, image_root=False)
    base.fit(*(torch.from_numpy(x) for x in (image, text, group, catalog)), weight, floor)
    everyone = torch.ones(len(image), dtype=torch.bool)
    return base(torch.from_numpy(image), everyone, torch.from_numpy(text), everyone).detach().numpy(), image, text, group


def test_products_are_those_of_the_normalised_covariance():
    found, image, text, group = fitted(dim=11, catalogs=1)

    def unit(x):
        x = x - x.mean(0)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    z = np.concatenate([0.4 * unit(image), 0.6 * unit(text)], 1)
    inside = np.concatenate([z[group == g] - z[group == g].mean(0) for g in np.unique(group) if (group == g).sum() > 1])
    within = inside.T @ inside / len(inside) + 0.2 * np.trace(np.cov(z.T, bias=True)) / 11 * np.eye(11)
    expected = z @ np.linalg.inv(within) @ z.T
    np.testing.assert_allclose(found @ found.T / np.trace(found @ found.T), expected / np.trace(expected), atol=2e-6)


def test_what_shakes_within_groups_counts_less_after_the_fit():
    def found_first(vectors, group):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = unit @ unit.T - 9 * np.eye(len(unit))
        return np.mean(group[scores.argmax(1)] == group)

    embedded, image, text, group = fitted(dim=6)
    plain = np.concatenate([image / np.linalg.norm(image, axis=1, keepdims=True), text / np.linalg.norm(text, axis=1, keepdims=True)], 1)
    assert found_first(embedded, group) > 2 * found_first(plain, group)


def test_more_dimensions_than_features_are_zeros():
    embedded, *_ = fitted(dim=16)
    assert not embedded[:, 11:].any() and embedded[:, :11].any()


@pytest.mark.parametrize(("leading", "dim"), [(False, 11), (True, 4)])
def test_what_a_fit_would_make_has_its_cosines_and_learns_from_those_it_may(leading, dim):
    image, text, group, catalog = (torch.from_numpy(x) for x in drawn())
    learning, everyone = group % 3 > 0, torch.ones(len(image), dtype=torch.bool)
    base = PlainFusion(6, 5, dim)
    base.fit(image[learning], text[learning], group[learning], catalog[learning], 0.4, 0.2)
    meant = torch.nn.functional.normalize(base(image, everyone, text, everyone).detach(), dim=-1)
    found = torch.nn.functional.normalize(base.fit_and_project(image, text, learning, group, catalog, 0.4, 0.2, leading), dim=-1)
    torch.testing.assert_close(found @ found.T, meant @ meant.T, rtol=0, atol=2e-5)


def test_items_that_are_all_alike_make_no_nan():
    image, text = torch.ones(4, 6), torch.ones(4, 5)
    base, group = PlainFusion(6, 5, 8), torch.tensor([0, 0, 1, 1])
    base.fit(image, text, group, torch.zeros_like(group), 0.4, 0.2)
    assert all(value.isfinite().all() for value in base.state_dict().values())
