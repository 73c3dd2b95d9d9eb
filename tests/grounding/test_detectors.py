"""The detectors on real, tiny models: one box per picture, in shares of the picture, whatever its shape and the batch."""

import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tgq.encoder.model import TGQFormer
from tgq.encoder.towers.preprocessing import Preprocessing
from tgq.errors import ModelError
from tgq.grounding.anchor import AnchorMap, densest, in_picture
from tgq.grounding.saliency import Saliency, largest
from tgq.grounding.zero_shot import ZeroShot


def picture(width: int, height: int, box=(0.5, 0.25, 0.75, 0.75), seed: int = 0) -> Image.Image:
    """A dark rectangle on a light ground."""
    light = np.random.default_rng(seed).integers(200, 255, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(light)
    ImageDraw.Draw(image).rectangle((box[0] * width, box[1] * height, box[2] * width - 1, box[3] * height - 1), fill=(20, 10, 30))
    return image


PICTURES = [picture(96, 64), picture(40, 90, seed=1), picture(64, 64, seed=2)]
PHRASES = ["Red Shoe", "bag", "a. lamp"]


@pytest.fixture(params=["grounding_dino_dir", "owlv2_dir"])
def zero_shot_dir(request):
    return request.getfixturevalue(request.param)


def test_a_zero_shot_detector_gives_the_best_box_in_shares_of_each_picture(zero_shot_dir):
    assert "torchvision" not in sys.modules
    detector = ZeroShot(zero_shot_dir)
    found = detector.find(PICTURES, PHRASES)
    assert len(found) == 3 and all(0 <= one.score <= 1 and np.isfinite(one.box).all() for one in found)
    alike = [picture(64, 64, seed=seed) for seed in range(3)]  # pictures of other sizes would be padded, which a model may notice
    for one, shown, phrase in zip(detector.find(alike, PHRASES), alike, PHRASES, strict=True):
        [alone] = detector.find([shown], [phrase])
        assert alone.score == pytest.approx(one.score, abs=1e-4) and alone.box == pytest.approx(one.box, abs=1e-3)
    other = detector.find(PICTURES, ["green lamp"] * 3)
    assert [one.score for one in other] != [one.score for one in found], "the phrase has a say"


def test_boxes_equal_those_of_transformers_own_code(zero_shot_dir):
    """The pictures' sides differ, and OWLv2 pads to a square, so a mistake in scaling would show."""
    detector = ZeroShot(zero_shot_dir)
    wide = PICTURES[0]
    nested = detector.nested
    inputs = detector.processor(images=wide, text=[["bag"]], return_tensors="pt")
    with torch.no_grad():
        outputs = detector.model(**inputs)
    best = outputs.logits[0].sigmoid().max(-1).values.argmax()
    x, y, w, h = outputs.pred_boxes[0, best].tolist()
    high = wide.width / wide.height if nested else 1.0  # of a square as wide as the picture
    expected = (x - w / 2, (y - h / 2) * high, x + w / 2, (y + h / 2) * high)
    assert detector.find([wide], ["bag"])[0].box == pytest.approx(expected, abs=1e-4)


def test_a_folder_without_weights_or_processor_or_with_another_model_is_a_named_error(grounding_dino_dir, tiny_encoder_dir, tmp_path):
    no_weights = shutil.copytree(grounding_dino_dir, tmp_path / "no-weights")
    (no_weights / "model.safetensors").unlink()
    no_processor = shutil.copytree(grounding_dino_dir, tmp_path / "no-processor")
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (no_processor / name).unlink(missing_ok=True)
    for folder, message in ((no_weights, "cannot be loaded"), (no_processor, "processor"), (tiny_encoder_dir / "towers/vision", "cannot be loaded")):
        with pytest.raises(ModelError, match=message):
            ZeroShot(folder)


def test_saliency_finds_the_box_of_the_largest_object_whatever_the_shape_of_the_picture(dark_saliency):
    detector = Saliency(dark_saliency)
    for shown in PICTURES:
        [found] = detector.find([shown], [""])
        assert found.box == pytest.approx((0.5, 0.25, 0.75, 0.75), abs=0.04) and found.score > 0.9
    two = PICTURES[2].copy()
    ImageDraw.Draw(two).rectangle((2, 2, 8, 8), fill=(0, 0, 0))
    assert detector.find([two], [""])[0].box == pytest.approx((0.5, 0.25, 0.75, 0.75), abs=0.04)
    assert detector.find([Image.new("RGB", (50, 30), "white")], [""]) == [None]


def test_the_score_of_saliency_is_the_mean_within_the_object():
    mask = np.zeros((4, 4), np.float32)
    mask[1:3, 1:4] = 0.8
    mask[3, 0] = 1.0
    found = largest(mask)
    assert found.box == (0.25, 0.25, 1.0, 0.75) and found.score == pytest.approx(0.8)
    assert largest(np.full((4, 4), np.nan, np.float32)) is None


def test_a_file_that_is_no_saliency_model_is_a_named_error(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="x.onnx cannot be loaded"):
        Saliency(tmp_path / "x.onnx")


def test_the_densest_box_holds_the_attention():
    grid = np.full((6, 6), 0.4 / 30)
    grid[1:3, 2:5] = 0.1
    found = densest(grid)
    assert found.box == pytest.approx((2 / 6, 1 / 6, 5 / 6, 3 / 6)) and found.score == pytest.approx(0.6 - 6 / 36)
    assert densest(np.full((6, 6), 1 / 36)) is None, "even attention looks at nothing"


def test_the_densest_box_equals_a_search_over_all_boxes():
    rng = np.random.default_rng(0)
    for _ in range(20):
        grid = rng.dirichlet(np.full(25, 0.5)).reshape(5, 5)
        best = max(grid[a:b, c:d].sum() - (b - a) * (d - c) / 25 for a in range(5) for b in range(a + 1, 6) for c in range(5) for d in range(c + 1, 6))
        found = densest(grid)
        c, a, d, b = (round(5 * v) for v in found.box)
        assert found.score == pytest.approx(best) == grid[a:b, c:d].sum() - (b - a) * (d - c) / 25


def test_boxes_of_the_towers_input_are_boxes_of_the_picture():
    def of(fit, edge=None):
        return Preprocessing(height=100, width=100, resample=2, rescale=1, mean=(0,) * 3, std=(1,) * 3, fit=fit, shortest_edge=edge)

    middle = (0.25, 0.25, 0.75, 0.75)
    assert in_picture(middle, of("crop"), 200, 100) == middle, "stretched"
    assert in_picture(middle, of("pad"), 200, 100) == pytest.approx((0.25, 0.0, 0.75, 1.0)), "white above and below"
    assert in_picture((0, 0, 1, 0.25), of("pad"), 200, 100) == pytest.approx((0, -0.5, 1, 0.0)), "only white"
    assert in_picture((0, 0, 1, 1), of("crop", 100), 200, 100) == pytest.approx((0.25, 0, 0.75, 1)), "the middle"
    assert in_picture((0, 0, 1, 1), of("crop", 125), 100, 100) == pytest.approx((0.1, 0.1, 0.9, 0.9))


def test_the_anchor_finds_a_box_where_the_encoder_looks(looking_encoder_dir):
    encoder = TGQFormer.from_pretrained(looking_encoder_dir)
    detector = AnchorMap(encoder)
    found = detector.find(PICTURES, ["red shoe", "bag", ""])
    assert all(0 < one.score < 1 for one in found[:2]) and found[2] is None, "without a text there is nothing to look for"
    pixels = encoder.vision.preprocess(PICTURES[0])[None]
    features = encoder.features(encoder.encode_image(pixels), torch.tensor([0]), ["red shoe"], [""])
    attention = encoder.attention_logits(features)[0, 1:].softmax(0).view(4, 4).numpy()  # the first of 17 tokens is no cell
    expected = densest(attention)
    assert found[0].score == pytest.approx(expected.score, abs=1e-5)
    assert found[0].box == pytest.approx(in_picture(expected.box, encoder.vision.preprocess, 96, 64))


def test_an_encoder_without_an_anchor_is_a_named_error(tmp_path):
    from tgq.encoder.tiny import write_tiny_encoder

    with pytest.raises(ModelError, match="no anchor"):
        AnchorMap(TGQFormer.from_pretrained(write_tiny_encoder(tmp_path, anchor=False)))
