"""A query tower gives unit vectors that do not depend on the batch, and its folder holds only what is its own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tgq.errors import ModelError
from tgq.query_tower.config import FOLDER, QueryTowerConfig, tower_folder, version_of
from tgq.query_tower.tower import QueryTower

TEXTS = ["red shirt", "a long query about a blue cotton shirt for men", "mug", "red shirt"]


@pytest.fixture
def tower(tiny_encoder_dir):
    torch.manual_seed(3)
    return QueryTower(QueryTowerConfig("0" * 16, 12, text="towers/text", trained_layers=1), relative_to=tiny_encoder_dir).eval()


def test_vectors_are_of_unit_length_and_do_not_depend_on_the_batch(tower):
    vectors = tower.encode_queries(TEXTS)
    assert vectors.shape == (4, 12) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.array_equal(vectors[0], vectors[3])
    alone = np.concatenate([tower.encode_queries([text]) for text in TEXTS])
    assert np.allclose(vectors, alone, atol=1e-6) and np.allclose(vectors, tower.encode_queries(TEXTS, batch_size=2), atol=1e-6)
    assert tower.encode_queries([]).shape == (0, 12)


def test_an_empty_query_is_refused_with_its_position(tower):
    with pytest.raises(ValueError, match="query 1 is empty"):
        tower.encode_queries(["red shirt", "  "])


def test_only_the_top_layers_and_the_map_are_trained(tower):
    trained = {name.split(".")[0] for name, value in tower.named_parameters() if value.requires_grad}
    assert trained == {"text", "project"}
    before = {name: value.clone() for name, value in tower.named_parameters()}
    optimiser = torch.optim.SGD([value for value in tower.parameters() if value.requires_grad], lr=1.0)
    tower(tower.pooled(TEXTS)).square().sum(0)[:3].sum().backward()
    optimiser.step()
    changed = {name for name, value in tower.named_parameters() if not torch.equal(value, before[name])}
    own = {name for name, value in tower.named_parameters() if any(value.data_ptr() == mine.data_ptr() for mine in tower.own_state().values())}
    assert changed and changed <= own


def test_a_saved_tower_is_the_same_and_finds_its_checkpoint(tower, tiny_encoder_dir, tmp_path):
    with torch.no_grad():
        for value in tower.own_state().values():
            value.add_(0.01 * torch.randn_like(value))
    folder = tmp_path / "encoder" / FOLDER
    tower.save(folder)
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert tower_folder(folder.parent) == folder and tower_folder(tiny_encoder_dir) is None
    loaded = QueryTower.load(folder)
    assert np.array_equal(loaded.encode_queries(TEXTS), tower.encode_queries(TEXTS))
    assert version_of(folder) == version_of(folder)
    first = version_of(folder)
    with torch.no_grad():
        tower.project.weight[0, 0] += 1
    tower.save(folder)
    assert version_of(folder) != first


def test_a_folder_that_does_not_fit_is_refused(tower, tmp_path):
    with pytest.raises(ModelError, match="has no query tower"):
        QueryTower.load(tmp_path)
    folder = tmp_path / FOLDER
    tower.save(folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in weights.items() if name != "mean"}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="does not fit its config.json at weight 'mean'"):
        QueryTower.load(folder)
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ModelError, match="cannot be read"):
        QueryTower.load(folder)
    Path(folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no model.safetensors"):
        QueryTower.load(folder)
    with pytest.raises(ModelError, match="has no model.safetensors"):
        version_of(folder)
    (folder / "config.json").write_text(json.dumps({"colour": "red"}))
    with pytest.raises(ModelError, match="not the configuration of a query tower"):
        QueryTower.load(folder)


def test_more_trained_layers_than_the_checkpoint_has_are_refused(tiny_encoder_dir):
    with pytest.raises(ModelError, match="layers"):
        QueryTower(QueryTowerConfig("0" * 16, 12, text="towers/text", trained_layers=99), relative_to=tiny_encoder_dir)
