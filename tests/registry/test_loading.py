"""Versions of encoders: noted in the cache, and asked of the encoder again when anything that they depend on has changed."""

import json
import shutil
import subprocess
import sys
from functools import partialmethod
from pathlib import Path

import pytest
import torch

from tgq.encoder.model import TGQFormer
from tgq.encoder.tiny import write_tiny_encoder
from tgq.errors import ModelError
from tgq.query_tower.config import FOLDER, QueryTowerConfig
from tgq.query_tower.tower import QueryTower
from tgq.registry import loading


@pytest.fixture
def versions(tmp_path, monkeypatch):
    """versions(folder): as in a new process, with a cache of the test's own."""
    monkeypatch.setenv("TGQ_CACHE", str(tmp_path / "cache"))

    def versions(folder):
        loading._identity.cache_clear()
        return loading.versions_of(str(folder))

    yield versions
    loading._identity.cache_clear()


def test_versions_are_noted_and_follow_the_files(versions, tmp_path):
    folder, notes = write_tiny_encoder(tmp_path / "encoder"), tmp_path / "cache" / "versions"
    encoder = TGQFormer.from_pretrained(folder)
    first = versions(folder)
    assert first == (encoder.model_version, loading.Towers(encoder.vision.fingerprint, encoder.text.fingerprint).version)
    [note] = notes.iterdir()
    note.write_text(json.dumps(["noted", "vision", "text"]))
    assert versions(folder)[0] == "noted", "the note is used"
    note.write_text('["half')
    assert versions(folder) == first and json.loads(note.read_text())[0] == first[0], "half a note is written again"

    other = write_tiny_encoder(tmp_path / "other", seed=4)
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    assert versions(folder)[0] != first[0] and len(list(notes.iterdir())) == 2
    (folder / "pooling").mkdir()
    (folder / "pooling" / "config.json").write_text("{}")
    versions(folder)
    assert len(list(notes.iterdir())) == 3, "files in subfolders count too: some text towers keep their pooling there"
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match="has no config.json"):
        versions(folder)


def test_a_cache_that_cannot_be_written_costs_time_only(versions, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    folder = write_tiny_encoder(tmp_path / "encoder")
    assert versions(folder)[0] == TGQFormer.from_pretrained(folder).model_version


def test_a_query_tower_must_be_complete_and_for_the_encoders_own_items(versions, tmp_path):
    folder = write_tiny_encoder(tmp_path / "encoder")
    loading.need_query_tower(str(folder))  # it has none

    def made(name, items=None, dim=12):
        copy = Path(shutil.copytree(folder, tmp_path / name))
        tower = QueryTower(QueryTowerConfig(items or versions(folder)[0], dim, text="towers/text"), relative_to=copy)
        tower.save(copy / FOLDER)
        return copy

    fitting = made("fitting")
    loading.need_query_tower(str(fitting))
    config, wide = (fitting / FOLDER / "config.json").read_bytes(), (made("wide", dim=14) / FOLDER / "model.safetensors").read_bytes()
    for n, (file, content, said) in enumerate((
        ("model.safetensors", None, "has no model.safetensors"),
        ("model.safetensors", b"half", "model.safetensors cannot be read"),
        ("model.safetensors", wide, "does not fit its config.json at weight 'project.weight'"),
        ("config.json", b"{}", "is not the configuration of a query tower"),
        ("config.json", config.replace(b"towers", b"gone"), "gone"),
    )):  # fmt: skip
        broken = made(f"broken-{n}")
        (broken / FOLDER / file).unlink() if content is None else (broken / FOLDER / file).write_bytes(content)
        with pytest.raises(ModelError, match=said):
            loading.need_query_tower(str(broken))
    with pytest.raises(ModelError, match=f"is for item embeddings of model {'0' * 16}, these are of {versions(folder)[0]}: train it again"):
        loading.need_query_tower(str(made("other", items="0" * 16)))

    # what was found is noted, so a later process need not load it
    code = f"import sys; from tgq.registry.loading import need_query_tower; need_query_tower({str(fitting)!r}); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_compiled_tower_gives_the_same_features(tmp_path, monkeypatch):
    """Without the C++ compiler that torch's own backend needs on a CPU, and half a minute of its time."""
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="eager"))
    folder = str(write_tiny_encoder(tmp_path / "encoder"))
    plain, compiled = (loading.load_encoder.__wrapped__(folder, "cpu", "float32", compiled) for compiled in (False, True))
    pixels = torch.rand(3, 3, compiled.vision.preprocess.height, compiled.vision.preprocess.width)
    torch._dynamo.utils.counters.clear()
    for one, other in zip(plain.encode_image(pixels), compiled.encode_image(pixels), strict=True):
        assert torch.allclose(one, other, atol=1e-3)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0, "the tower ran as it is"


def test_what_only_reads_versions_and_configurations_does_not_import_torch():
    code = "import sys, tgq.registry.loading, tgq.registry.champion, tgq.query_tower.config; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
