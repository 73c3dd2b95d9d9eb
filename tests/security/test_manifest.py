"""A manifest and a pointer that somebody else wrote: paths stay in the warehouse, names go into no SQL, FAISS parses no altered bytes."""

import json
from pathlib import Path

import numpy as np
import pytest

from tgq.errors import WarehouseError
from tgq.retrieval.manifest import CURRENT, Manifest, load, load_current, publish, rollback
from tgq.retrieval.shards import ShardFile, build_shard, read_shard, slug, write_shard
from tgq.storage.files import sha256


@pytest.fixture
def root(tmp_path):
    shard, factory = build_shard(np.eye(4, dtype=np.float32), list("abcd"), "Flat", 0)
    file = write_shard(tmp_path, shard, "Shoes", 0, factory, "d")
    publish(tmp_path, Manifest("g1", "run-1", "0123456789abcdef", "default", "2026-01-01T00:00:00+00:00", {"item_embeddings": 3}, (file,)))
    return tmp_path


def poisoned(root: Path, shard: dict | None = None, **fields) -> None:
    """Change the published manifest, and its hash in the pointer too: whoever can write the one can write the other."""
    path = root / "index/generations/g1/manifest.json"
    values = json.loads(path.read_text()) | fields
    values["shards"][0] |= shard or {}
    data = json.dumps(values).encode()
    path.write_bytes(data)
    (root / CURRENT).write_text(json.dumps({"generation": "g1", "sha256": sha256(data)}))


SHARDS = {
    "path-out": {"path": "../../etc/passwd"}, "path-out-below": {"path": "index/shards/../../../etc/passwd"}, "path-absolute": {"path": "/etc/passwd"},
    "path-of-another-store": {"path": "s3://elsewhere/x.faiss"}, "path-chained": {"path": "index/shards/x.faiss::file:///etc/passwd"},
    "path-with-backslashes": {"path": "index\\shards\\x.faiss"}, "path-with-zero": {"path": "index/shards/x\0.faiss"},
    "path-of-models": {"path": "models/CHAMPION"},
    "path-is-a-number": {"path": 1}, "ids-out": {"ids_path": "../../../etc/passwd"}, "hash-is-a-number": {"sha256": 1}, "hash-is-empty": {"ids_sha256": ""},
    "items-negative": {"n_items": -1}, "items-as-text": {"n_items": "4"}, "items-as-float": {"n_items": 1e300}, "bytes-true": {"bytes": True},
    "category-is-a-list": {"category": ["Shoes"]}, "search-unknown": {"search": {"__class__": 1}}, "search-negative": {"search": {"nprobe": -1}},
    "search-endless": {"search": {"efSearch": 2**62}}, "search-is-a-list": {"search": [1]}, "unknown-field": {"loader": "os.system"},
}  # fmt: skip


@pytest.mark.parametrize("shard", SHARDS.values(), ids=SHARDS)
def test_a_shard_in_a_poisoned_manifest(root, shard):
    poisoned(root, shard)
    for use in (load_current, lambda root: load(root, "g1"), lambda root: rollback(root, "g1")):
        with pytest.raises(WarehouseError, match="broken manifest") as caught:
            use(root)
        assert "\n" not in str(caught.value) and str(caught.value).isprintable()


FIELDS = {
    "model-with-sql": {"model_version": "x' OR '1'='1"}, "model-with-more-sql": {"model_version": "x'; DROP TABLE catalog_items; --"},
    "model-is-a-number": {"model_version": 1}, "run-with-sql": {"run_id": "r' OR 1=1 --"}, "run-out": {"run_id": "../../etc"},
    "generation-out": {"generation": "../../etc"}, "previous-out": {"previous": "../../../etc"}, "previous-is-a-number": {"previous": 1},
    "version-with-sql": {"tables": {"item_embeddings": "3 WHERE 1=1"}}, "version-negative": {"tables": {"item_embeddings": -1}},
    "table-with-sql": {"tables": {"x; DROP TABLE y": 1}}, "tables-is-a-list": {"tables": [1]}, "encoder-is-a-list": {"encoder": ["/etc"]},
    "another-format": {"format": 2}, "unknown-field": {"__reduce__": "os.system"}, "shards-are-text": {"shards": "x"},
}  # fmt: skip


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_a_poisoned_manifest(root, fields):
    poisoned(root)
    path = root / "index/generations/g1/manifest.json"
    data = json.dumps(json.loads(path.read_text()) | fields).encode()
    path.write_bytes(data)
    (root / CURRENT).write_text(json.dumps({"generation": "g1", "sha256": sha256(data)}))
    with pytest.raises(WarehouseError, match="broken manifest|is not a valid name of a generation") as caught:
        load_current(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"format": ' + b"9" * 10_000 + b"}", b"\x80\x04K\x01."], ids=["deep", "long-number", "pickle"])
def test_a_manifest_or_pointer_that_is_no_json(root, content):
    (root / "index/generations/g1/manifest.json").write_bytes(content)
    with pytest.raises(WarehouseError, match="broken manifest"):
        load(root, "g1")
    (root / CURRENT).write_bytes(content)
    with pytest.raises(WarehouseError, match="does not name a generation"):
        load_current(root)


POINTERS = {"out": "../../etc", "absolute": "/etc", "newline": "g1\nok", "empty": "", "zero": "g1\0", "dots": "..", "a-list": ["g1"]}


@pytest.mark.parametrize("generation", POINTERS.values(), ids=POINTERS)
def test_a_pointer_to_another_place(root, generation):
    (root / CURRENT).write_text(json.dumps({"generation": generation, "sha256": "0" * 64}))
    with pytest.raises(WarehouseError, match="is not a valid name of a generation|does not name a generation"):
        load_current(root)


@pytest.mark.parametrize("which", ["path", "ids_path"])
@pytest.mark.parametrize("content", [b"", b"IxF2" + b"\xff" * 500, b"\x80\x04K\x01."], ids=["empty", "claims-much", "pickle"])
def test_altered_bytes_reach_neither_faiss_nor_arrow(root, which, content):
    file: ShardFile = load_current(root).shards[0]
    (root / getattr(file, which)).write_bytes(content)
    with pytest.raises(WarehouseError, match="the file was altered or damaged"):
        read_shard(root, file)


CATEGORIES = {
    "out": "../../etc/passwd", "absolute": "/etc/passwd", "newline": "Shoes\n../x", "zero": "Shoes\0", "backslash": "..\\..\\windows", "dots": "..",
    "empty": "",
    "long": "c" * 100_000, "half-a-character": "\ud800", "store": "s3://bucket/x", "percent": "%2e%2e%2f", "device": "con", "bidi": "\u202egnp.exe",
}  # fmt: skip


@pytest.mark.parametrize("category", CATEGORIES.values(), ids=CATEGORIES)
def test_a_category_names_no_other_place(tmp_path, category):
    shard, factory = build_shard(np.eye(4, dtype=np.float32), list("abcd"), "Flat", 0)
    file = write_shard(tmp_path, shard, category, 0, factory)
    assert sorted(p.parent for p in tmp_path.rglob("*") if p.is_file()) == [tmp_path / "index/shards"] * 2
    assert slug(category).replace("-", "").isalnum() and len(slug(category)) <= 53 and read_shard(tmp_path, file).ids.tolist() == list("abcd")
