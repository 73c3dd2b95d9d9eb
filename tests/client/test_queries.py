"""Queries from Python and from MLflow: through the query tower if there is one. No warehouse is needed."""

import shutil

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

import tgq
from tgq.client.query_pyfunc import NAME, log_query_model, save_query_model
from tgq.errors import ModelError, TrackingError, UsageError
from tgq.query_tower.config import FOLDER, QueryTowerConfig
from tgq.query_tower.tower import QueryTower
from tgq.registry.loading import versions_of

TEXTS = ["red shoe", "a blue cotton shirt for men", "mug"]


@pytest.fixture(scope="module")
def folder(tiny_encoder, tmp_path_factory):
    """The tiny encoder with a random query tower beside it."""
    folder = tmp_path_factory.mktemp("queries") / "encoder"
    shutil.copytree(tiny_encoder, folder)
    torch.manual_seed(5)
    QueryTower(QueryTowerConfig(versions_of(str(folder))[0], 32, text="towers/text"), relative_to=folder).save(folder / FOLDER)
    return folder


@pytest.fixture
def expected(folder):
    return QueryTower.load(folder / FOLDER).encode_queries(TEXTS)


def test_queries_are_encoded_by_the_tower_and_without_one_as_titles(folder, tiny_encoder, expected):
    with_tower, without = tgq.load_encoder(folder), tgq.load_encoder(tiny_encoder)
    assert with_tower.encode_queries(TEXTS).dtype == np.float32 and with_tower.model_version == without.model_version
    np.testing.assert_array_equal(with_tower.encode_queries(TEXTS), expected)
    np.testing.assert_array_equal(without.encode_queries(TEXTS), without.encode(texts=TEXTS))
    assert not np.allclose(expected, without.encode_queries(TEXTS), atol=0.1)
    for encoder in (with_tower, without):
        assert encoder.encode_queries([]).shape == (0, 32)


@pytest.mark.parametrize("queries, said", [
    (["a", " \n"], "query 1 is empty"), (["a", "b", None], "query 2 has the type NoneType"), ("red shoe", "the queries are one text: give a list"),
])  # fmt: skip
@pytest.mark.parametrize("has_tower", [True, False])
def test_a_mistake_names_the_query(folder, tiny_encoder, queries, said, has_tower):
    with pytest.raises(UsageError, match=said) as caught:
        tgq.load_encoder(folder if has_tower else tiny_encoder).encode_queries(queries)
    assert "\n" not in str(caught.value)


def test_a_tower_of_another_encoder_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    QueryTower(QueryTowerConfig("f" * 16, 32, text="towers/text"), relative_to=folder).save(tmp_path / "other" / FOLDER)
    with pytest.raises(ModelError, match="the query tower is for item embeddings of model ffffffffffffffff"):
        tgq.load_encoder(tmp_path / "other").encode_queries(["a"])


def test_a_saved_mlflow_model_needs_no_other_file(folder, expected, tmp_path):
    shutil.copytree(folder, tmp_path / "encoder")
    save_query_model(tmp_path / "encoder", tmp_path / "model")
    shutil.rmtree(tmp_path / "encoder")
    shutil.move(tmp_path / "model", tmp_path / "moved")
    assert not list((tmp_path / "moved").rglob("*.pkl"))
    model = mlflow.pyfunc.load_model(str(tmp_path / "moved"))
    for queries in (pd.DataFrame({"query": TEXTS}), pd.Series(TEXTS), pd.Series(TEXTS, name="text", index=[5, 6, 7])):
        found = model.predict(queries)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert model.metadata.get_output_schema().inputs[0].shape == (-1, 32)
    with pytest.raises(UsageError, match="query 1 is empty"):
        model.predict(pd.DataFrame({"query": ["a", " "]}))
    with pytest.raises(UsageError, match="query 0 is no text"):
        model._model_impl.predict(pd.Series([None]))
    with pytest.raises(UsageError, match="there are 2 columns"):
        model._model_impl.predict(pd.DataFrame({"a": ["x"], "b": ["y"]}))


def test_a_bundled_checkpoint_is_named_and_not_copied(tmp_path):
    QueryTower(QueryTowerConfig("0" * 16, 8)).save(tmp_path / "encoder" / FOLDER)
    made = save_query_model(tmp_path / "encoder", tmp_path / "model")
    assert sorted(p.name for p in made.iterdir()) == ["MLmodel", "config.json", "model.safetensors"]
    vector = mlflow.pyfunc.load_model(str(made)).predict(pd.Series(["red shoe"]))
    np.testing.assert_allclose(vector, QueryTower.load(tmp_path / "encoder" / FOLDER).encode_queries(["red shoe"]), atol=1e-6)


def test_a_tower_is_registered_once_and_has_the_alias(folder, expected, tmp_path, mlflow_in):
    mlflow_in(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert [log_query_model(folder, uri), log_query_model(folder, uri)] == ["1", "1"]
    shutil.copytree(folder, tmp_path / "second")
    tower = QueryTower.load(tmp_path / "second" / FOLDER)
    with torch.no_grad():
        tower.project.weight.mul_(-1)
    tower.save(tmp_path / "second" / FOLDER)
    assert log_query_model(tmp_path / "second", uri) == "2" and len(list((tmp_path / "mlartifacts").rglob("MLmodel"))) == 2
    mlflow.set_registry_uri(uri)
    mlflow.set_tracking_uri(uri)
    for version, sign in (("@champion", -1), ("/1", 1)):
        np.testing.assert_allclose(mlflow.pyfunc.load_model(f"models:/{NAME}{version}").predict(pd.Series(TEXTS)), sign * expected, atol=1e-6)


def test_what_cannot_be_saved_is_named(folder, tiny_encoder, tmp_path):
    with pytest.raises(ModelError, match="has no query tower: train one"):
        save_query_model(tiny_encoder, tmp_path / "model")
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="mine exists"):
        save_query_model(folder, tmp_path / "mine")
    shutil.copytree(folder, tmp_path / "half")
    (tmp_path / "half" / FOLDER / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no model.safetensors"):
        save_query_model(tmp_path / "half", tmp_path / "model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["half", "mine"]
    (tmp_path / "mlflow.db").write_bytes(b"no database at all, but long enough to be read as one" * 50)
    with pytest.raises(TrackingError, match="mlflow.db"):
        log_query_model(folder, f"sqlite:///{tmp_path}/mlflow.db")
