"""Vision-language models in this process: tiny random ones of two families, without torchvision."""

import io
import json
import shutil
import sys

import pytest
from PIL import Image

from tests.fixtures.vision import chat, coloured, encoded
from tgq.errors import ModelError
from tgq.images.decode import ImageError, ImageLimits
from tgq.refinement.generators.local import LocalModel, _reader
from tgq.refinement.picture import SIDE, shown

RED, BLUE = coloured(220, 30, 20), coloured(20, 30, 220)


@pytest.fixture(params=["qwen_vl_dir", "llava_dir"])
def folder(request):
    return request.getfixturevalue(request.param)


def model(folder, **options):
    return LocalModel(str(folder), "cpu", **{"answer_tokens": 12, "sees_pictures": True} | options)


def test_a_picture_changes_the_answer(folder):
    replies = model(folder).answers([chat("red shoe", RED), chat("red shoe", BLUE), chat("red shoe"), chat("red shoe", RED)], json=False)
    assert all(reply.reason is None for reply in replies) and "torchvision" not in sys.modules
    assert len({reply.text for reply in replies}) == 3 and replies[0] == replies[3], "two items with one text and other pictures"
    assert replies[0].tokens > replies[2].tokens, "a picture has tokens"


def test_an_answer_does_not_depend_on_the_others_of_its_batch(folder):
    shapes = [coloured(200, 90, 10, size=size) for size in ((64, 48), (30, 90), (300, 300))]
    chats = [chat("red shoe", shapes[0]), chat("a mug"), chat("a blue bag of leather for women and men", shapes[1]), chat("mug", shapes[2]), chat("watch " * 9)]
    together = model(folder, batch=5).answers(chats, json=False)
    assert together == [model(folder).answers([one], json=False)[0] for one in chats] and all(reply.reason is None for reply in together)


def test_a_text_that_names_the_token_of_pictures_takes_no_picture(folder):
    token = _reader(str(folder), True).processor.image_token
    plain, marked = model(folder).answers([chat("red shoe", RED), chat(f"red {token} shoe", RED)], json=False)
    alone = model(folder).answers([chat(f"{token} mug"), chat("red shoe", RED)], json=False)
    assert plain == marked == alone[1] and alone[0].reason is None


def test_a_picture_that_the_processor_does_not_take_has_no_answer_and_spoils_no_other(qwen_vl_dir):
    narrow = coloured(200, 90, 10, size=(440, 2))
    lost, kept = model(qwen_vl_dir).answers([chat("red shoe", narrow), chat("red shoe", RED)], json=False)
    assert lost.reason == "model_error" and "aspect ratio" in lost.detail and kept.reason is None


def test_a_batch_that_fails_is_answered_one_by_one(qwen_vl_dir, monkeypatch):
    from transformers import Qwen2_5_VLForConditionalGeneration as Qwen

    real = Qwen.generate

    def failing(self, **inputs):
        if len(inputs["input_ids"]) > 1:
            raise RuntimeError("out of memory")
        return real(self, **inputs)

    chats = [chat("red shoe", RED), chat("red shoe", BLUE)]
    expected = model(qwen_vl_dir).answers(chats, json=False)
    monkeypatch.setattr(Qwen, "generate", failing)
    assert model(qwen_vl_dir).answers(chats, json=False) == expected


def test_a_prompt_with_a_picture_that_is_too_long_has_no_answer(qwen_vl_dir, tmp_path):
    short = shutil.copytree(qwen_vl_dir, tmp_path / "short")
    config = json.loads((short / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 50
    (short / "config.json").write_text(json.dumps(config))
    replies = model(short, answer_tokens=8).answers([chat("mug", coloured(1, 2, 3, size=(400, 400))), chat("mug")], json=False)
    assert [reply.reason for reply in replies] == ["prompt_too_long", None]


def test_a_vision_language_model_answers_without_pictures_too(folder):
    alone = model(folder, sees_pictures=False)
    alone.need()
    assert alone.answers([chat("red shoe")], json=False) == model(folder).answers([chat("red shoe")], json=False)


def test_what_a_model_lacks_is_said_before_it_is_used(qwen_vl_dir, llava_dir, tmp_path):
    from tests.refinement.test_local import written

    model(qwen_vl_dir).need()
    untold, unread, videos = (shutil.copytree(folder, tmp_path / name) for name, folder in
                              (("untold", qwen_vl_dir), ("unread", llava_dir), ("videos", qwen_vl_dir)))  # fmt: skip
    (untold / "chat_template.jinja").unlink()
    (unread / "processor_config.json").write_text("{")
    (videos / "config.json").write_text(json.dumps({"model_type": "llava_next_video"}))
    cases = ((untold, "no chat template"), (unread, "cannot be loaded"), (videos, "needs torchvision"), (written(tmp_path / "texts"), "reads no pictures"))
    for place, said in cases:
        with pytest.raises(ModelError, match=said) as caught:
            model(place).need()
        assert "\n" not in str(caught.value)


def test_pictures_are_shown_small_and_upright():
    clear = encoded(Image.new("RGBA", (1200, 900), (200, 10, 10, 0)))
    with Image.open(io.BytesIO(shown(clear, ImageLimits()))) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (SIDE, SIDE * 3 // 4)) and image.getpixel((5, 5)) == (255, 255, 255)
    with Image.open(io.BytesIO(RED)) as image:
        assert image.size == (64, 48), "a small picture is not enlarged"
    with pytest.raises(ImageError):
        shown(clear, ImageLimits(max_pixels=1000))
