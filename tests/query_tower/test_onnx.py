"""The ONNX model gives torch's vectors, by onnxruntime and tokenizers alone, and a model that does not is never left behind."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from tgq.cli import app
from tgq.encoder.tiny import _vocabulary, write_tiny_tokenizer
from tgq.errors import ModelError, UsageError
from tgq.query_tower import onnx
from tgq.query_tower.config import FOLDER, QueryTowerConfig, version_of
from tgq.query_tower.tower import QueryTower

TEXTS = ["a", "red shoe", "Caf\u00e9 cr\u00e8me", "cafe\u0301", "\u7ea2\u8272 shoe", "blue cotton shirt for men, size XL, " * 9, "x" * 300]


def saved(folder, tiny_encoder_dir, text=None, **fields):
    """A tower whose mean and map are not those of the beginning."""
    torch.manual_seed(11)
    folder.mkdir(parents=True, exist_ok=True)  # a relative path starts there
    config = QueryTowerConfig("0" * 16, 12, text=text or os.path.relpath(tiny_encoder_dir / "towers" / "text", folder), **fields)
    tower = QueryTower(config, relative_to=folder).eval()
    with torch.no_grad():
        for value in tower.own_state().values():
            value.add_(0.2 * torch.randn_like(value))
    tower.save(folder)
    return folder


@pytest.fixture(scope="module")
def tower_dir(tiny_encoder_dir, tmp_path_factory):
    return saved(tmp_path_factory.mktemp("tower"), tiny_encoder_dir, trained_layers=1)


@pytest.fixture(scope="module")
def made(tower_dir, tmp_path_factory):
    return onnx.export_onnx(tower_dir, tmp_path_factory.mktemp("onnx") / "below" / "out")


def test_the_example_of_the_readme_gives_the_vectors_without_torch_and_tgq(made, tower_dir, tmp_path):
    assert sorted(p.name for p in made.folder.iterdir()) == ["README.md", "config.json", "model.onnx", "tokenizer.json"]
    code = re.search(r"```python\n(.*?)```", (made.folder / "README.md").read_text(), re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 14
    code += f"\nimport sys\nassert not {{'torch', 'tgq', 'transformers'}} & set(sys.modules)\ntexts = {TEXTS!r}\n"
    code += f"np.savez({str(tmp_path / 'found.npz')!r}, together=embed(texts), alone=np.concatenate([embed([text]) for text in texts]))\n"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=made.folder)
    expected = QueryTower.load(tower_dir).encode_queries(TEXTS)
    found = np.load(tmp_path / "found.npz")
    for vectors in (found["together"], found["alone"]):
        assert vectors.dtype == np.float32 and vectors.shape == (len(TEXTS), 12)
        np.testing.assert_allclose(vectors, expected, atol=1e-4)
    assert np.abs(expected - expected[:1]).max() > 0.01  # the texts differ, so the comparison says something


def test_the_configuration_names_what_a_service_must_know(made, tower_dir):
    config = json.loads((made.folder / "config.json").read_text())
    assert (config["item_model"], config["query_version"], config["dim"]) == ("0" * 16, version_of(tower_dir), made.dim)
    assert config["max_difference"] == made.difference < 1e-4 and config["made_with"]["onnxruntime"]
    tokenizer = json.loads((made.folder / "tokenizer.json").read_text())
    assert tokenizer["truncation"]["max_length"] == config["max_tokens"] == 32


def test_the_model_says_nothing_about_the_machine_that_made_it(made):
    content = (made.folder / "model.onnx").read_bytes()
    assert b"site-packages" not in content and b".py" not in content and str(made.folder.parent).encode() not in content


def test_a_model_that_onnxruntime_refuses_is_one_line(tower_dir, made, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="onnxruntime cannot run the model") as caught:
        onnx.difference(QueryTower.load(tower_dir), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_model_that_differs_leaves_nothing(tower_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "TOLERANCE", 0.0)
    with pytest.raises(ModelError, match="the ONNX model's vectors differ from torch's by [1-9]"):
        onnx.export_onnx(tower_dir, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_not_touched(tower_dir, tmp_path):
    (tmp_path / "mine").write_text("mine")
    for place in (tmp_path, tmp_path / "mine"):
        with pytest.raises(UsageError, match="exists and is not an empty folder"):
            onnx.export_onnx(tower_dir, place)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"] and (tmp_path / "mine").read_text() == "mine"
    with pytest.raises(UsageError, match="cannot be written"):
        onnx.export_onnx(tower_dir, tmp_path / "mine" / "below")


def test_missing_packages_are_named():
    with pytest.raises(UsageError, match=r"needs the packages onnx_absent, other_absent: install them: pip install 'tgq\[onnx\]'"):
        onnx.need_packages(["onnx", "onnx_absent", "other_absent"])


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_text_half_of_a_pair_is_exported_too(kind, tiny_encoder_dir, tmp_path):
    import transformers as t

    size = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = size | {"vocab_size": len(_vocabulary()), "max_position_embeddings": 32, "projection_dim": 16, "eos_token_id": 3, "pad_token_id": 0}
    config, model = {"clip": (t.CLIPConfig, t.CLIPModel), "siglip": (t.SiglipConfig, t.SiglipModel)}[kind]
    model(config(text_config=text, vision_config=size | {"image_size": 32, "patch_size": 8})).save_pretrained(tmp_path / "pair")
    write_tiny_tokenizer(tmp_path / "pair")
    folder = saved(tmp_path / "tower", tiny_encoder_dir, text="../pair")
    made = onnx.export_onnx(folder, tmp_path / "out")
    np.testing.assert_allclose(onnx.embed(made.folder, TEXTS), QueryTower.load(folder).encode_queries(TEXTS), atol=1e-4)


def test_the_command_takes_an_encoder(tiny_encoder_dir, tmp_path, capsys):
    encoder = tmp_path / "encoder"
    saved(encoder / FOLDER, tiny_encoder_dir)
    (tmp_path / "out").mkdir()
    with pytest.raises(SystemExit) as ended:
        app.main(["export-query-tower", str(tmp_path / "out"), "--encoder", str(encoder)])
    assert not ended.value.code and "query tower of width 12" in capsys.readouterr().out
    assert (tmp_path / "out" / "model.onnx").is_file()
