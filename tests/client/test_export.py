"""Export: every published vector once, and a manifest that describes the files."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import tgq
from tgq.cli import app
from tgq.client.export import export
from tgq.errors import UsageError
from tgq.storage.files import sha256


@pytest.fixture(scope="module")
def opened(published):
    return tgq.open_warehouse(published.root)


@pytest.mark.parametrize("kind", ["parquet", "npy", "lance"])
def test_every_published_vector_is_written_once(opened, tmp_path, kind):
    if kind == "lance":
        lance = pytest.importorskip("lance")
    seen = []
    made = export(opened, tmp_path / "out", kind, seen.append)
    expected = {row["item_id"]: row for row in opened.embeddings().to_pylist()}
    if kind == "npy":
        rows = pq.read_table(made.folder / "items.parquet").to_pylist()
        vectors = np.load(made.folder / "vectors.npy")
    else:
        table = pq.read_table(made.folder / "vectors.parquet") if kind == "parquet" else lance.dataset(str(made.folder / "vectors.lance")).to_table()
        assert table.schema.field("embedding").type.list_size == made.dim
        rows, vectors = table.to_pylist(), np.stack(table["embedding"].to_numpy(zero_copy_only=False))
    assert made.rows == len(rows) == len(vectors) == len(expected) == seen[-1]
    for row, vector in zip(rows, vectors, strict=True):
        assert row["title"] == expected[row["item_id"]]["title"]
        np.testing.assert_array_equal(vector, np.array(expected[row["item_id"]]["embedding"], np.float32))
    manifest = json.loads((made.folder / "manifest.json").read_text())
    assert manifest["rows"] == made.rows and manifest["generation"] == opened.published.generation and manifest["dim"] == made.dim
    for name, file in manifest["files"].items():
        data = (made.folder / name).read_bytes()
        assert (len(data), sha256(data)) == (file["bytes"], file["sha256"])


def test_an_existing_folder_is_not_changed(opened, tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        export(opened, tmp_path, "parquet")
    with pytest.raises(UsageError, match="no export to 'csv'"):
        export(opened, tmp_path / "new", "csv")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_the_export_command(published, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        app.main(["export", str(tmp_path / "out"), "--to", "npy", "--warehouse", str(published.root)])
    assert not ended.value.code and "vectors of width" in capsys.readouterr().out
    assert (tmp_path / "out" / "vectors.npy").is_file()
