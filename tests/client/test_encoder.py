"""The encoder from Python returns the vectors of the nightly run."""

import io
import subprocess
import sys

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import tgq
from tgq.errors import ModelError, UsageError
from tgq.settings.load import load_settings


@pytest.fixture(scope="module")
def encoder(published):
    return tgq.load_encoder(published.encoder)


@pytest.fixture(scope="module")
def published_items(published):
    """(item as a dict, its published vector) of some items."""
    opened = tgq.open_warehouse(published.root)
    items = {row["item_id"]: row for row in opened.items(columns=["item_id", "title", "brand", "category", "attributes", "image_uri"]).to_pylist()}
    vectors = opened.embeddings(columns=["item_id", "embedding"]).to_pylist()
    rows = [({"title": i["title"], "brand": i["brand"], "category": i["category"], "attributes": dict(i["attributes"] or ()), "image": i["image_uri"]},
             np.array(v["embedding"], np.float32)) for v in vectors if (i := items[v["item_id"]])]  # fmt: skip
    return rows[:24]


def test_items_have_the_published_vectors(encoder, published_items):
    items, expected = zip(*published_items, strict=True)
    np.testing.assert_allclose(encoder.encode(items=items), np.stack(expected), atol=1e-4)
    np.testing.assert_allclose(encoder.encode(items=items, batch_size=5), np.stack(expected), atol=1e-4)


def test_the_published_encoder_of_a_warehouse_and_metadata_settings(published, published_items):
    metadata = load_settings(["local", "catalogs/demo"], [], {}).settings.metadata
    found = tgq.load_encoder(published.encoder, metadata=metadata)
    assert found.encode(items=[published_items[0][0]]).shape == (1, found.dim)
    masked = tgq.load_encoder(published.encoder, metadata={"fields": ["category"]})
    item = published_items[0][0] | {"image": None}
    np.testing.assert_array_equal(masked.encode(items=[item]), masked.encode(items=[{"category": item["category"]}]))


def test_paths_bytes_and_pil_images_are_the_same_picture(encoder, published_items, tmp_path):
    """As PNG, because a JPEG file may be decoded at a reduced scale."""
    picture = Image.open(next(item["image"] for item, _ in published_items if item["image"])).convert("RGB")
    data, path = io.BytesIO(), tmp_path / "picture.png"
    picture.save(data, "PNG")
    path.write_bytes(data.getvalue())
    same = encoder.encode(images=[path, data.getvalue(), picture])
    np.testing.assert_allclose(same, same[:1].repeat(3, 0), atol=1e-5)
    titled = encoder.encode(images=[str(path), None], texts=["a red shoe", "a red shoe"])
    np.testing.assert_allclose(titled[1], encoder.encode(items=[{"title": "a red shoe"}])[0], atol=1e-6)
    assert titled.dtype == np.float32 and not np.allclose(titled[0], titled[1])


@pytest.mark.parametrize("arguments, said", [
    ({}, "nothing to encode"),
    ({"texts": ["a"], "items": [{"title": "a"}]}, "items were given together with images or texts"),
    ({"images": [None, None], "texts": ["a"]}, "2 images and 1 texts"),
    ({"items": [{"titel": "a"}]}, "item 0 has the unknown key 'titel'"),
    ({"texts": ["a", " "]}, "item 1 cannot be encoded: no image and no text"),
    ({"images": ["/no/such.jpg"]}, "the picture /no/such.jpg of item 0 cannot be read"),
    ({"images": [b"no picture"]}, "item 0 cannot be encoded: not an image"),
    ({"images": [7]}, "the picture of item 0 has the type int"),
    ({"texts": ["a"], "batch_size": 0}, "batch_size is 0"),
])  # fmt: skip
def test_a_mistake_names_the_item(encoder, arguments, said):
    with pytest.raises(UsageError, match=said):
        encoder.encode(**arguments)


def test_no_items_give_no_vectors(encoder):
    assert encoder.encode(items=[]).shape == (0, encoder.dim)


def test_a_folder_that_is_neither_an_encoder_nor_a_warehouse(tmp_path):
    with pytest.raises(ModelError, match="neither an encoder nor a warehouse"):
        tgq.load_encoder(tmp_path)


def test_mlflow_loads_the_registered_model(published, published_items, encoder):
    uri = f"sqlite:///{published.root}/mlflow.db"
    mlflow.set_registry_uri(uri)
    mlflow.set_tracking_uri(uri)
    model = mlflow.pyfunc.load_model("models:/tgq-encoder@champion")
    assert {c.name for c in model.metadata.get_input_schema()} == {"title", "brand", "category", "attributes", "image"}
    assert model.metadata.get_output_schema().inputs[0].shape == (-1, encoder.dim)
    frame = pd.DataFrame({"title": ["red shoe", None], "category": [None, "Toys > Cars"]})
    np.testing.assert_allclose(model.predict(frame), encoder.encode(items=[{"title": "red shoe"}, {"category": "Toys > Cars"}]), atol=1e-6)


def test_import_is_light():
    code = "import sys, tgq; dir(tgq); print([m for m in ('torch', 'pyspark', 'transformers', 'mlflow', 'pyarrow', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_reading_and_searching_import_no_spark(published):
    code = ("import sys, tgq; w = tgq.open_warehouse(sys.argv[1]); i = w.items(columns=['item_id'])['item_id'][0].as_py(); w.search(item_id=i);"
            "w.neighbors(i); tgq.load_encoder; print('pyspark' in sys.modules)")  # fmt: skip
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(published.root)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
