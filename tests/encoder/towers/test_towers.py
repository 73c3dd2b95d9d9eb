"""Every family of checkpoint that the towers promise, as tiny random ones written by save_pretrained."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tgq.encoder.quiet import quiet_transformers
from tgq.encoder.tiny import write_preprocessor, write_tiny_tokenizer
from tgq.encoder.towers.preprocessing import Preprocessing
from tgq.encoder.towers.text import TextTower
from tgq.encoder.towers.vision import VisionTower
from tgq.errors import ModelError

TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
        "vocab_size": 200, "max_position_embeddings": 20}
VISION = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
          "image_size": 32, "patch_size": 16}


def checkpoint(name):
    import transformers as t

    pairs = {"clip": "CLIP", "chinese_clip": "ChineseCLIP", "siglip": "Siglip"}
    if name in pairs:
        config = getattr(t, f"{pairs[name]}Config")(text_config=TEXT, vision_config=VISION)
        if name != "siglip":
            config.projection_dim = 12
        return getattr(t, f"{pairs[name]}Model")(config)
    if name == "efficientnet":
        return t.EfficientNetModel(t.EfficientNetConfig(
            image_size=32, width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, in_channels=[32, 8], out_channels=[8, 16],
            kernel_sizes=[3, 3], strides=[2, 2], expand_ratios=[1, 2], num_block_repeats=[1, 1]))
    if name == "dinov2":
        return t.Dinov2Model(t.Dinov2Config(**VISION, mlp_ratio=2))
    return t.ViTModel(t.ViTConfig(**VISION))


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    def write(name):
        folder = tmp_path_factory.mktemp(name)
        torch.manual_seed(0)
        with quiet_transformers():
            checkpoint(name).save_pretrained(folder)
        write_preprocessor(folder, {"height": 32, "width": 32})
        write_tiny_tokenizer(folder)
        return folder

    return write


@pytest.mark.parametrize("name", ["clip", "chinese_clip", "siglip", "efficientnet", "dinov2", "vit"])
def test_vision_towers_give_tokens_and_a_pooled_feature(folder_of, name):
    tower = VisionTower(str(folder_of(name)))
    pixels = torch.stack([tower.preprocess(Image.new("RGB", (40, 30), color)) for color in ("red", "white")])
    tokens, pooled = tower(pixels)
    assert tokens.shape == (2, tower.tokens_per_image, tower.width)
    assert pooled.shape == (2, tower.pooled_width)
    assert torch.isfinite(pooled).all() and not torch.equal(pooled[0], pooled[1])
    alone = tower(pixels[1:])[1]
    torch.testing.assert_close(alone[0], pooled[1], atol=1e-5, rtol=1e-5)
    if name == "efficientnet":
        torch.testing.assert_close(tokens.mean(1), pooled)


@pytest.mark.parametrize("name", ["clip", "chinese_clip", "siglip"])
def test_a_pair_is_aligned_and_its_text_ignores_padding(folder_of, name):
    folder = str(folder_of(name))
    vision, text = VisionTower(folder), TextTower(folder)
    assert vision.is_pair and vision.weights_sha256 == text.weights_sha256
    assert vision.pooled_width == text.pooled_width
    texts = ["red shirt", "a green mug of cotton and wool for the home", ""]
    tokens, mask, pooled = text(texts)
    assert tokens.shape == (3, text.max_length, text.width)
    assert not mask[2].any() and not pooled[2].any() and not tokens[2].any()
    alone_tokens, _, alone = text(texts[:1])
    torch.testing.assert_close(alone[0], pooled[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone_tokens[0], tokens[0], atol=1e-5, rtol=1e-5)


def test_a_frozen_tower_stays_frozen(folder_of):
    tower = VisionTower(str(folder_of("efficientnet")))
    tower.train()
    assert not any(module.training for module in tower.modules())
    assert not any(parameter.requires_grad for parameter in tower.parameters())


def test_the_fingerprint_follows_weights_and_preprocessing(folder_of, tmp_path):
    folder = folder_of("vit")
    first = VisionTower(str(folder))
    assert VisionTower(str(folder)).fingerprint == first.fingerprint
    assert VisionTower(str(folder), fit="crop").fingerprint != first.fingerprint
    raw = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(raw | {"image_mean": [0.4, 0.5, 0.5]}))
    assert VisionTower(str(folder)).fingerprint != first.fingerprint


def test_a_cnn_takes_any_size_and_a_vit_its_own(folder_of):
    folder = str(folder_of("efficientnet"))
    own, large = VisionTower(folder), VisionTower(folder, size=64)
    assert large.input_size == 64 and large.tokens_per_image > own.tokens_per_image
    assert large.fingerprint != own.fingerprint == VisionTower(folder, size=32).fingerprint
    cropped = VisionTower(folder, fit="crop", size=64).preprocess
    assert cropped(Image.new("RGB", (90, 50))).shape == (3, 64, 64)
    with pytest.raises(ModelError, match="does not support images of 64 pixels per side, only of 32"):
        VisionTower(str(folder_of("vit")), size=64)


@pytest.mark.parametrize("name", ["efficientnet", "vit", "clip"])
def test_a_close_up_is_what_the_tower_says_of_that_part_alone(folder_of, name):
    folder = str(folder_of(name))
    plain, near = VisionTower(folder), VisionTower(folder, tiles=2)
    assert near.n_closeups == 4 and plain.n_closeups == 0 and near.input_size == 64
    assert near.tokens_per_image == plain.tokens_per_image + 4 and near.pooled_width == plain.pooled_width
    assert len({plain.fingerprint, near.fingerprint, VisionTower(folder, tiles=1).fingerprint}) == 3
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    tokens, _ = near(torch.stack([near.preprocess(Image.new("RGB", (64, 64), "red")), near.preprocess(noise)]))
    parts = [noise.crop((x, y, x + 32, y + 32)) for y in (0, 32) for x in (0, 32)]
    alone, _ = plain(torch.stack([plain.preprocess(part) for part in parts]))
    torch.testing.assert_close(tokens[1, -4:], alone.mean(1), atol=1e-4, rtol=1e-4)
    same, pooled = plain(torch.stack([plain.preprocess(Image.new("RGB", (64, 64), "red"))]))
    torch.testing.assert_close(tokens[0, :-4], same[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tiles", [-1, 5])
def test_a_number_of_close_ups_that_makes_no_sense_is_one_line(folder_of, tiles):
    with pytest.raises(ModelError, match=f"closeups is {tiles}: set closeups to a number from 0"):
        VisionTower(str(folder_of("efficientnet")), tiles=tiles)


def test_padding_keeps_the_whole_picture_on_white(tmp_path):
    write_preprocessor(tmp_path, {"height": 32, "width": 32})
    pixels = Preprocessing.read(tmp_path, "pad")(Image.new("RGB", (64, 16), (0, 0, 0)))
    assert pixels.shape == (3, 32, 32) and pixels.dtype == torch.float32
    rows = pixels[0].mean(1).numpy()
    assert np.allclose(rows[12:20], -1) and np.allclose(np.delete(rows, range(11, 21)), 1)


@pytest.mark.parametrize("size", [(64, 16), (16, 64), (7, 300), (224, 224), (1, 1)])
def test_cropping_is_that_of_transformers(tmp_path, size):
    from transformers import CLIPImageProcessorPil

    raw = {"size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "resample": 3,
           "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(raw))
    noise = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    ours = Preprocessing.read(tmp_path, "crop")(image)
    theirs = CLIPImageProcessorPil(**raw)(image, return_tensors="pt")["pixel_values"][0]
    assert ours.shape == theirs.shape
    if max(size) / min(size) < 8:  # where the long side is rounded the crop may start one pixel apart
        torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0)


def test_a_vision_folder_without_preprocessing_is_one_line(tmp_path, folder_of):
    folder = folder_of("vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="preprocessor_config.json"):
        VisionTower(str(folder))


def test_a_text_folder_without_tokenizer_is_one_line(folder_of):
    folder = folder_of("clip")
    for file in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink(missing_ok=True)
    with pytest.raises(ModelError, match="tokenizer"):
        TextTower(str(folder))


def test_texts_of_a_call_do_not_change_each_other(folder_of):
    tower = TextTower(str(folder_of("clip")), max_length=16)
    texts = ["", *(" ".join(["red shirt"] * (1 + i * 7 % 5)) + f" {i}" for i in range(70)), ""]
    together = tower(texts)
    alone = [torch.cat(parts) for parts in zip(*(tower([text]) for text in texts), strict=True)]
    assert torch.equal(together[1], alone[1])
    for found, meant in zip(together, alone, strict=True):
        torch.testing.assert_close(found, meant, rtol=1e-4, atol=1e-5)


def test_a_named_classifier_is_a_vocabulary_and_a_nameless_one_is_not(tmp_path):
    import transformers as t

    for folder, names in (("named", {0: "running shoe", 1: "mug", 2: "table  lamp"}), ("nameless", {i: f"LABEL_{i}" for i in range(3)})):
        with quiet_transformers():
            model = t.ViTForImageClassification(t.ViTConfig(**VISION, id2label=names))
            model.save_pretrained(tmp_path / folder)
        write_preprocessor(tmp_path / folder, {"height": 32, "width": 32})
        tower = VisionTower(str(tmp_path / folder))
        assert tower.vocabulary == (("running shoe", "mug", "table lamp") if folder == "named" else ())
        if tower.vocabulary:
            torch.testing.assert_close(tower.class_directions(), model.classifier.weight.detach())


def test_the_default_towers_classes_are_in_the_order_of_their_names():
    tower = VisionTower("efficientnet-lite0")
    banana = Image.new("RGB", (224, 224), (255, 255, 255))
    draw = ImageDraw.Draw(banana)
    draw.ellipse((52, 52, 172, 172), fill=(250, 140, 20))
    tokens, _ = tower(tower.preprocess(banana)[None])
    best = (tokens.mean(1) @ tower.class_directions().T)[0].topk(5).indices.tolist()
    assert {"orange", "lemon", "ping-pong ball", "tennis ball"} & {tower.vocabulary[i] for i in best}


def test_a_cnn_without_its_batch_norms_says_what_transformers_says(folder_of):
    from transformers import AutoModel

    folder = folder_of("efficientnet")
    tower, pixels = VisionTower(str(folder)), torch.randn(5, 3, 32, 32)
    own = AutoModel.from_pretrained(folder).eval()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in tower.model.modules())
    with torch.no_grad():
        meant = own(pixel_values=pixels).last_hidden_state.flatten(2).transpose(1, 2)
    torch.testing.assert_close(tower(pixels)[0], meant, rtol=1e-4, atol=1e-5)
