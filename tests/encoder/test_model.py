"""Saving, loading, versions, and the errors of an encoder folder."""

import json
import shutil

import pytest
import torch

from tgq.encoder.config import EncoderConfig
from tgq.encoder.model import TGQFormer
from tgq.encoder.tiny import write_tiny_encoder
from tgq.errors import ModelError


def test_an_encoder_survives_its_folder_and_a_move(tiny_encoder_dir, stirred, tmp_path):
    out = stirred.encode(None, torch.tensor([-1]), ["red shirt"], ["red shirt"]).embedding
    stirred.save_pretrained(tmp_path / "saved")
    again = TGQFormer.from_pretrained(tmp_path / "saved")
    assert again.model_version == stirred.model_version and again.dim == out.shape[1]
    torch.testing.assert_close(again.encode(None, torch.tensor([-1]), ["red shirt"], ["red shirt"]).embedding, out)
    moved = tmp_path / "moved"
    shutil.copytree(tiny_encoder_dir, moved)
    assert TGQFormer.from_pretrained(moved).model_version == TGQFormer.from_pretrained(tiny_encoder_dir).model_version


def test_the_version_follows_weights_and_configuration(tiny, tmp_path):
    first = tiny.model_version
    assert len(first) == 16 and int(first, 16) >= 0
    with torch.no_grad():
        tiny.null_image[0] += 1e-3
    assert tiny.model_version != first
    other_fit = TGQFormer.from_pretrained(write_tiny_encoder(tmp_path / "crop", fit="crop")).model_version
    assert other_fit != first
    assert TGQFormer.from_pretrained(write_tiny_encoder(tmp_path / "seed", seed=1)).model_version not in (first, other_fit)


def test_an_encoder_from_before_picture_sizes_and_close_ups_is_the_same_model(tiny_encoder_dir, tmp_path):
    older = tmp_path / "older"
    shutil.copytree(tiny_encoder_dir, older)
    config = json.loads((older / "config.json").read_text())
    assert config.pop("image_size") == config.pop("closeups") == 0
    (older / "config.json").write_text(json.dumps(config))
    assert TGQFormer.from_pretrained(older).model_version == TGQFormer.from_pretrained(tiny_encoder_dir).model_version


def test_half_precision_on_disk_changes_nothing(tiny, tmp_path):
    with torch.no_grad():
        for parameter in tiny.parameters():
            parameter.copy_(parameter.half().float())
    tiny.save_pretrained(tmp_path)
    assert TGQFormer.from_pretrained(tmp_path).model_version == tiny.model_version
    from safetensors.torch import load_file

    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}


def test_a_bad_folder_is_one_line(tmp_path, tiny_encoder_dir, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def broken(change):
        folder = tmp_path / change.__name__
        shutil.copytree(tiny_encoder_dir, folder)
        change(folder)
        return folder

    def no_config(folder):
        (folder / "config.json").unlink()

    def no_weights(folder):
        (folder / "model.safetensors").unlink()

    def cut_weights(folder):
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:500])

    def other_width(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"width": 32}))

    def unknown_key(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"wdith": 32}))

    def no_tower(folder):
        shutil.rmtree(folder / "towers" / "vision")

    for change, said in ((no_config, "config.json"), (no_weights, "model.safetensors"), (cut_weights, "cannot be read"),
                         (other_width, "does not fit"), (unknown_key, "wdith"), (no_tower, "towers/vision")):
        with pytest.raises(ModelError, match=said):
            TGQFormer.from_pretrained(broken(change))
    with pytest.raises(ModelError, match="does not exist"):
        TGQFormer.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("field", ["connector", "head"])
def test_unknown_parts_are_named(tiny_encoder_dir, field):
    config = EncoderConfig(vision="towers/vision", text="towers/text", image_size=0, **{field: "none-such"})
    with pytest.raises(ModelError, match="none-such"):
        TGQFormer(config, relative_to=tiny_encoder_dir)
