"""The engine with a grounder: what is embedded of each picture, and what is said about it."""

import io

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from tgq.encoder.model import TGQFormer
from tgq.encoder.tiny import write_tiny_encoder
from tgq.grounding.box import Found, cropped, ground
from tgq.images.decode import decode_image
from tgq.inference.engine import EmbeddingEngine, EngineOptions
from tgq.inference.grounder import SCALE, Grounder
from tgq.inference.records import INPUT_COLUMNS

THRESHOLD, MARGIN = 0.5, 0.1
KNOWN = pa.struct([("box", pa.list_(pa.float64())), ("score", pa.float64())])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.set_num_threads(1)
    return TGQFormer.from_pretrained(write_tiny_encoder(tmp_path_factory.mktemp("encoder"), seed=1))


class ByPhrase:
    """A detector whose phrases say what it finds: 'left', 'right', 'unsure', 'nothing', or what goes wrong."""

    at_once = 3

    def __init__(self):
        self.asked: list[list[str]] = []

    def find(self, pictures, phrases):
        self.asked.append(list(phrases))
        if "memory" in phrases and len(phrases) > 1:
            raise torch.OutOfMemoryError("out of memory")
        if "broken" in phrases:
            raise ValueError("this picture\nbreaks it")
        found = {"left": Found((0.0, 0.0, 0.5, 1.0), 0.9), "right": Found((0.5, 0.0, 1.0, 1.0), 0.8), "unsure": Found((0.5, 0.0, 1.0, 1.0), 0.4)}
        return [found.get(phrase, Found((0.0, 0.0, 0.5, 1.0), 0.9) if phrase == "memory" else None) for phrase in phrases]


def jpeg(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((200, 150)).save(buffer, "JPEG")
    return buffer.getvalue()


def row(n: int, phrase: str | None, **changes) -> dict:
    version = None if phrase is None else f"version-{phrase}"
    data = jpeg(n)
    return {"item_id": f"item-{n}", "image_uri": None, "image_bytes": data, "image_hash": f"hash-{n}", "metadata_text": f"red shoe {n}", "encoder_title": "",
            "phrase": phrase, "detector_version": version, "known": None} | changes  # fmt: skip


def run(encoder, rows: list[dict], grounder: Grounder | None, **options) -> list[dict]:
    kinds = {name: pa.binary() if name == "image_bytes" else pa.string() for name in (*INPUT_COLUMNS, "phrase", "detector_version")} | {"known": KNOWN}
    schema = pa.schema([(name, kinds[name]) for name in rows[0]])
    tokens = encoder.vision.tokens_per_image + encoder.text.max_length
    engine = EmbeddingEngine(encoder, lambda uri: b"", EngineOptions(batch_tokens=4 * tokens, **options), grounder)
    return [out for batch in engine.run(iter([pa.RecordBatch.from_pylist(rows, schema)])) for out in batch.to_pylist()]


def expected(encoder, n: int, box=None) -> np.ndarray:
    """The vector of a picture whose part is cut out by hand; without a box that of a plain run."""
    size = encoder.vision.input_size
    image = decode_image(jpeg(n), target=SCALE * size if box else size)
    if box:
        image.thumbnail((SCALE * size, SCALE * size))
        image = cropped(image, ground(box, 1.0, THRESHOLD, MARGIN).crop)
    pixels = encoder.vision.preprocess(image)[None]
    return encoder.encode(pixels, torch.tensor([0]), [f"red shoe {n}"], [""]).embedding[0].numpy()


def test_each_picture_is_embedded_as_its_phrase_asks(encoder):
    detector = ByPhrase()
    phrases = ["left", "right", "unsure", "nothing", "broken", "left", None, "right", "memory", "left"]
    out = run(encoder, [row(n, phrase) for n, phrase in enumerate(phrases)], Grounder(detector, THRESHOLD, MARGIN))
    left, right, whole = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)
    wanted = {
        "left": (left, None), "right": (right, None), "unsure": (whole, "low_score"), "nothing": (whole, "no_box"), "broken": (whole, "detector_failed"),
        None: (None, "no_phrase"), "memory": (left, None),
    }  # fmt: skip
    for n, (phrase, found) in enumerate(zip(phrases, out, strict=True)):
        box, reason = wanted[phrase]
        assert (found["status"], found["whole_reason"], found["kept_whole"]) == ("embedded", reason, reason is not None), phrase
        assert np.abs(np.array(found["embedding"]) - expected(encoder, n, box)).max() < 1e-5, phrase
    assert out[2]["box"] == [0.5, 0.0, 1.0, 1.0] and out[2]["score"] == 0.4, "what it found is said, though it is not used"
    assert out[3]["box"] is None and out[4]["whole_detail"] == "ValueError: this picture breaks it"
    assert np.abs(np.array(out[0]["embedding"]) - expected(encoder, 0)).max() > 1e-3, "the crop has another vector than the whole"
    assert None not in sum(detector.asked, []), "nothing is asked for a row without a phrase"


def test_without_a_grounder_nothing_is_said_and_nothing_changes(encoder):
    with_phrases = run(encoder, [row(n, "left") for n in range(5)], None)
    plain = [{name: value for name, value in row(n, None).items() if name in INPUT_COLUMNS} for n in range(5)]
    without = run(encoder, plain, None)
    grounded = ("box", "score", "kept_whole", "whole_reason", "whole_detail")
    for a, b in zip(with_phrases, without, strict=True):
        assert a["embedding"] == b["embedding"] and all(a[name] is None for name in grounded)


def test_a_picture_is_asked_about_once_for_each_phrase(encoder):
    detector = ByPhrase()
    rows = [row(0, phrase, item_id=f"item-{n}") for n, phrase in enumerate(["left", "right", "left", "right"])]
    out = run(encoder, rows, Grounder(detector, THRESHOLD, MARGIN))
    assert sorted(sum(detector.asked, [])) == ["left", "right"]
    assert [found["box"][0] for found in out] == [0.0, 0.5, 0.0, 0.5]


def test_what_was_found_earlier_is_not_asked_again(encoder):
    detector = ByPhrase()
    known = {"box": [0.5, 0.0, 1.0, 1.0], "score": 0.9}
    rows = [row(0, "left", known=known), row(1, "left", known={"box": None, "score": None}), row(2, "left")]
    out = run(encoder, rows, Grounder(detector, THRESHOLD, MARGIN))
    assert detector.asked == [["left"]]
    assert np.abs(np.array(out[0]["embedding"]) - expected(encoder, 0, (0.5, 0.0, 1.0, 1.0))).max() < 1e-5
    assert [found["whole_reason"] for found in out] == [None, "no_box", None] and out[0]["score"] == 0.9


def test_features_of_a_picture_on_which_the_detector_failed_are_not_kept(encoder):
    """Next time it may find something, and then the kept features would be of another part of the picture."""
    out = run(encoder, [row(0, "left"), row(1, "broken"), row(2, "nothing")], Grounder(ByPhrase(), THRESHOLD, MARGIN), output_tower_features=True)
    assert [found["image_tokens"] is not None for found in out] == [True, False, True]


def test_memory_runs_out_and_the_detector_goes_on_with_fewer_pictures():
    detector = ByPhrase()
    grounder = Grounder(detector, THRESHOLD, MARGIN)
    pictures = [Image.new("RGB", (8, 8))] * 5
    done = grounder(pictures, ["memory"] * 5)
    assert [g.reason for g in done] == [None] * 5 and grounder.at_once == 1
    assert [len(asked) for asked in detector.asked] == [3, 1, 1, 1, 1, 1]


def test_an_unreadable_picture_is_quarantined_as_before(encoder):
    out = run(encoder, [row(0, "left", image_bytes=jpeg(0)[:100]), row(1, "left")], Grounder(ByPhrase(), THRESHOLD, MARGIN))
    assert [found["status"] for found in out] == ["quarantined", "embedded"] and out[0]["reason"] == "truncated" and out[0]["kept_whole"] is None
