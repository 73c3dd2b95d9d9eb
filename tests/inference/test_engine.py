"""The engine against a plain loop over the same encoder, and its behaviour on errors."""

import hashlib
import io
import threading
import time

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tgq.encoder.model import TGQFormer
from tgq.encoder.text import metadata_text, normalise
from tgq.encoder.tiny import write_tiny_encoder
from tgq.errors import DeviceError
from tgq.images.decode import ImageError, ImageLimits, decode_image
from tgq.inference.device import choose_device, choose_dtype
from tgq.inference.engine import EmbeddingEngine, EngineOptions
from tgq.inference.records import OUTPUT_SCHEMA

INPUT = pa.schema(
    [
        ("item_id", pa.string()),
        ("image_uri", pa.string()),
        ("image_bytes", pa.binary()),
        ("image_hash", pa.string()),
        ("metadata_text", pa.string()),
        ("encoder_title", pa.string()),
    ]
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.set_num_threads(1)
    return TGQFormer.from_pretrained(write_tiny_encoder(tmp_path_factory.mktemp("encoder"), seed=1))


@pytest.fixture
def watched(encoder):
    """The encoder, with the number of pictures in each call of its vision tower."""
    calls = []
    hook = encoder.vision.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    yield encoder, calls
    hook.remove()


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((96, 72)).save(buffer, "JPEG")
    return buffer.getvalue()


PICTURES = [picture(seed) for seed in range(12)]
STORE = {f"store/{i}.jpg": data for i, data in enumerate(PICTURES)}


def read(uri: str) -> bytes:
    if uri not in STORE:
        raise ImageError("not_found", uri)
    return STORE[uri]


def row(i: int, **changes) -> dict:
    k = i % len(PICTURES)
    return {
        "item_id": f"item-{i}",
        "image_uri": f"store/{k}.jpg",
        "image_bytes": None,
        "image_hash": None,
        "title": f"red shoe {i % 5}",
        "brand": "brand",
        "category": "sport",
        "attributes": [("color", "red"), ("material", "wool")] if i % 2 else None,
        **changes,
    }


def texts(item: dict) -> dict:
    """What the ingest step makes of an item's metadata."""
    text = metadata_text(item["title"], item["brand"], item["category"], dict(item["attributes"] or {}))
    return {"metadata_text": text, "encoder_title": normalise(item["title"])}


def batches(rows: list[dict], size: int) -> list[pa.RecordBatch]:
    ready = [{k: v for k, v in item.items() if k in INPUT.names} | texts(item) for item in rows]
    return [pa.RecordBatch.from_pylist(ready[i : i + size], INPUT) for i in range(0, len(ready), size)]


def tokens(encoder, rows: int) -> int:
    """A token budget that makes batches of so many rows."""
    return rows * (encoder.vision.tokens_per_image + encoder.text.max_length)


def embed(encoder, rows: list[dict], size: int = 10, batch_rows: int = 4, read=read, **options) -> list[dict]:
    engine = EmbeddingEngine(
        encoder, read, EngineOptions(batch_tokens=tokens(encoder, batch_rows), **options)
    )
    out = list(engine.run(iter(batches(rows, size))))
    assert all(batch.schema == OUTPUT_SCHEMA for batch in out)
    assert [batch.num_rows for batch in out] == [batch.num_rows for batch in batches(rows, size)]
    return [row for batch in out for row in batch.to_pylist()]


def plain_loop(encoder, rows: list[dict]) -> np.ndarray:
    """One item at a time, nothing shared."""
    result = []
    for item in rows:
        data = item["image_bytes"] or (read(item["image_uri"]) if item["image_uri"] else None)
        pixels = None
        if data is not None:
            image = decode_image(data, target=encoder.vision.input_size)
            pixels = encoder.vision.preprocess(image)[None]
        text = metadata_text(item["title"], item["brand"], item["category"], dict(item["attributes"] or {}))
        index = torch.tensor([-1 if pixels is None else 0])
        result.append(encoder.encode(pixels, index, [text], [item["title"] or ""]).embedding[0].numpy())
    return np.stack(result)


MIXED = [
    *(row(i) for i in range(13)),
    row(13, image_uri=None, image_bytes=PICTURES[3], image_hash="h3"),
    row(14, image_uri=None),
    row(15, title=None, brand=None, category=None, attributes=None),
    row(16, title=None),
    row(17, image_uri=None, image_bytes=PICTURES[3], image_hash="h3"),
    row(18, image_uri=""),
]


@pytest.mark.parametrize("size, batch_rows", [(1, 1), (7, 4), (19, 64), (3, 5)])
def test_equal_to_a_plain_loop(encoder, size, batch_rows):
    out = embed(encoder, MIXED, size=size, batch_rows=batch_rows)
    assert [item["item_id"] for item in out] == [item["item_id"] for item in MIXED]
    assert {item["status"] for item in out} == {"embedded"}
    got = np.array([item["embedding"] for item in out])
    assert np.abs(got - plain_loop(encoder, MIXED)).max() < 1e-4
    assert np.abs(np.linalg.norm(got, axis=1) - 1).max() < 1e-5


def test_diagnostics_and_features(encoder):
    out = {item["item_id"]: item for item in embed(encoder, MIXED)}
    text = metadata_text("red shoe 0", "brand", "sport", None)
    pixels = encoder.vision.preprocess(decode_image(PICTURES[0], target=encoder.vision.input_size))[None]
    plain = encoder.encode(pixels, torch.tensor([0]), [text], ["red shoe 0"])
    item = out["item-0"]
    assert item["agreement"] == pytest.approx(float(plain.agreement[0]), abs=1e-5)
    assert item["gate_metadata"] == pytest.approx(float(plain.gate_metadata[0]), abs=1e-5)
    assert item["gate_exploratory"] == pytest.approx(float(plain.gate_exploratory[0]), abs=1e-5)
    assert np.allclose(np.frombuffer(item["image_features"], "<f2"), plain.image[0], atol=2e-3)
    assert np.allclose(np.frombuffer(item["text_features"], "<f2"), plain.text[0], atol=2e-3)
    assert item["has_image"] and item["reason"] is None and item["detail"] is None
    no_image, no_text, no_title = out["item-14"], out["item-15"], out["item-16"]
    assert (no_image["has_image"], no_image["image_features"], no_image["agreement"]) == (False, None, None)
    assert (no_text["text_features"], no_text["agreement"]) == (None, None)
    assert no_title["text_features"] is not None and no_title["agreement"] is None


BAD = [
    (dict(image_uri="store/missing.jpg"), "not_found"),
    (dict(image_bytes=PICTURES[0][:500]), "truncated"),
    (dict(image_bytes=b"no picture at all"), "not_an_image"),
    (dict(image_bytes=b"", image_uri=None), "not_an_image"),
    (dict(image_bytes=PICTURES[0] + b" " * 10_000), "too_large"),
    (dict(image_uri="store/raises.jpg"), "unreadable"),
    (dict(image_uri=None, title=" ", brand=None, category="", attributes=[]), "no_image_and_no_text"),
]


def test_bad_rows_are_quarantined_with_their_reason_and_harm_no_other(encoder):
    def touchy(uri):
        if uri == "store/raises.jpg":
            raise ZeroDivisionError("a reader's own\nbug")
        return read(uri)

    rows = [row(i, **BAD[i // 3][0]) if i % 3 == 1 else row(i) for i in range(3 * len(BAD))]
    out = embed(encoder, rows, read=touchy, limits=ImageLimits(max_bytes=8_000))
    assert [item["reason"] for item in out[1::3]] == [reason for _, reason in BAD]
    for item in out[1::3]:
        assert item["status"] == "quarantined" and item["detail"] and "\n" not in item["detail"]
        assert (
            item["embedding"]
            is item["image_features"]
            is item["text_features"]
            is item["gate_metadata"]
            is None
        )
    good = [item for i, item in enumerate(rows) if i % 3 != 1]
    got = np.array([item["embedding"] for i, item in enumerate(out) if i % 3 != 1])
    assert np.abs(got - plain_loop(encoder, good)).max() < 1e-4


def test_only_bad_rows(encoder):
    out = embed(encoder, [row(i, image_uri="nowhere") for i in range(9)], size=4)
    assert [item["reason"] for item in out] == ["not_found"] * 9


def test_no_rows(encoder):
    engine = EmbeddingEngine(encoder, read)
    assert list(engine.run(iter([]))) == []
    assert list(engine.run(iter([pa.RecordBatch.from_pylist([], INPUT)]))) == []


def test_columns_may_be_absent(encoder):
    source = pa.RecordBatch.from_pylist([{"item_id": "a", "metadata_text": "red shoe"}])
    (out,) = EmbeddingEngine(encoder, read).run([source])
    assert out.column("status").to_pylist() == ["embedded"]


def test_a_picture_is_decoded_and_encoded_once(watched):
    """Twelve pictures by thirty-six rows; equal rows stand apart, yet within the window of four batches."""
    encoder, calls = watched
    reads = []
    rows = [row(i, image_hash=f"hash-{i % 12}", image_uri=f"store/{i % 12}.jpg?{i}") for i in range(36)]

    def counted(uri):
        reads.append(uri)
        return read(uri.partition("?")[0])

    out = embed(encoder, rows, batch_rows=9, read=counted, size=36)
    assert len(reads) == sum(calls) == 12
    assert [item["item_id"] for item in out] == [item["item_id"] for item in rows]
    plain = [row(i) for i in range(36)]
    assert np.abs(np.array([item["embedding"] for item in out]) - plain_loop(encoder, plain)).max() < 1e-4


def test_one_placeholder_for_all(watched):
    encoder, calls = watched
    out = embed(encoder, [row(i, image_uri="store/0.jpg") for i in range(40)], batch_rows=8, size=16)
    assert calls == [1] * 5  # once per batch, for it comes in more rows than a batch holds
    assert all(item["status"] == "embedded" for item in out)


def test_a_broken_copy_does_not_condemn_the_others(encoder):
    rows = [
        row(i, image_hash="same", image_uri=uri) for i, uri in enumerate(["gone/1", "store/1.jpg", "gone/2"])
    ]
    out = embed(encoder, rows)
    assert [item["reason"] for item in out] == ["not_found", None, "not_found"]


class Narrow(torch.nn.Module):
    """An encoder on a device that holds `room` rows, and fails beyond as torch does."""

    def __init__(self, encoder, room: int, error):
        super().__init__()
        self.encoder, self.room, self.error, self.tried = encoder, room, error, []
        self.vision, self.text, self.null_image = encoder.vision, encoder.text, encoder.null_image
        self.encode_image, self.embed = encoder.encode_image, encoder.embed

    def features(self, image_features, image_index, metadata, titles, cached_texts):
        self.tried.append(len(metadata))
        if len(metadata) > self.room:
            raise self.error
        return self.encoder.features(image_features, image_index, metadata, titles, cached_texts)


CPU_ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 8796093022208 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    "error", [torch.cuda.OutOfMemoryError("CUDA out of memory."), RuntimeError(CPU_ALLOCATOR), MemoryError()]
)
def test_out_of_memory_halves_the_batch_and_goes_on(encoder, error):
    narrow = Narrow(encoder, 5, error)
    engine = EmbeddingEngine(narrow, read, EngineOptions(batch_tokens=tokens(encoder, 16)))
    out = [item for batch in engine.run(batches(MIXED * 3, 10)) for item in batch.to_pylist()]
    got = np.array([item["embedding"] for item in out])
    assert np.abs(got - plain_loop(encoder, MIXED * 3)).max() < 1e-4
    assert engine.batch_rows == 4
    assert [n for n in narrow.tried if n > 4] == [16, 8]  # remembered: it never tries that much again


def test_the_real_cpu_allocator_is_understood(encoder):
    class Greedy(Narrow):
        def features(self, image_features, image_index, metadata, titles, cached_texts):
            if len(metadata) > self.room:
                torch.empty(1 << 60, dtype=torch.uint8)
            return super().features(image_features, image_index, metadata, titles, cached_texts)

    engine = EmbeddingEngine(Greedy(encoder, 3, None), read, EngineOptions(batch_tokens=tokens(encoder, 8)))
    out = [item for batch in engine.run(batches(MIXED, 10)) for item in batch.to_pylist()]
    assert {item["status"] for item in out} == {"embedded"} and engine.batch_rows == 2


def test_a_row_that_does_not_fit_alone_is_quarantined(encoder):
    class OneHeavyRow(Narrow):
        def features(self, image_features, image_index, metadata, titles, cached_texts):
            if "heavy" in titles:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
            return self.encoder.features(image_features, image_index, metadata, titles, cached_texts)

    rows = [row(i, title="heavy" if i == 6 else "light") for i in range(20)]
    out = embed(OneHeavyRow(encoder, 0, None), rows)
    assert [i for i, item in enumerate(out) if item["reason"] == "out_of_memory"] == [6]
    assert sum(item["status"] == "embedded" for item in out) == 19


def test_other_errors_of_the_model_are_no_rows_fault(encoder):
    broken = Narrow(encoder, 2, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        embed(broken, MIXED)
    assert no_threads()


def test_a_non_finite_embedding_is_quarantined(encoder):
    class Poisoned(Narrow):
        def features(self, image_features, image_index, metadata, titles, cached_texts):
            features = self.encoder.features(image_features, image_index, metadata, titles, cached_texts)
            for i, title in enumerate(titles):
                if title == "red shoe 2":
                    features.image[i, 3] = float("nan")
                if title == "red shoe 3":
                    features.image[i, 0] = 1e6  # finite, but not as float16
            return features

    out = embed(Poisoned(encoder, 100, None), [row(i) for i in range(10)])
    assert [i for i, item in enumerate(out) if item["reason"] == "non_finite"] == [2, 3, 7, 8]
    assert sum(item["status"] == "embedded" for item in out) == 6


def no_threads() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("tgq-")]


def test_closing_early_ends_the_threads(encoder):
    engine = EmbeddingEngine(encoder, read, EngineOptions(batch_tokens=tokens(encoder, 2)))
    stream = engine.run(batches([row(i) for i in range(500)], 5))
    next(stream)
    assert not no_threads()
    stream.close()
    assert no_threads()
    list(engine.run(batches(MIXED, 5)))  # and it can be used again
    assert no_threads()


def test_an_error_of_the_input_comes_through(encoder):
    def failing():
        yield from batches([row(i) for i in range(8)], 4)
        raise OSError("the source broke")

    with pytest.raises(OSError, match="the source broke"):
        list(EmbeddingEngine(encoder, read).run(failing()))
    assert no_threads()


def test_it_streams(encoder):
    """Only the window is read ahead, and only so many pictures are held."""
    asked, read_now, lock = 0, 0, threading.Lock()

    def source():
        nonlocal asked
        for batch in batches([row(i, image_uri=f"store/{i % 12}.jpg?{i}") for i in range(600)], 4):
            asked += 1
            yield batch

    def counted(uri):
        nonlocal read_now
        with lock:
            read_now += 1
        return read(uri.partition("?")[0])

    picture_bytes = 3 * 4 * encoder.vision.input_size**2
    options = EngineOptions(batch_tokens=tokens(encoder, 4), prefetch_bytes=10 * picture_bytes)
    for done, _ in enumerate(EmbeddingEngine(encoder, counted, options).run(source()), 1):
        held = 10 + 3 * 4  # the window, and the batches being taken, stacked and encoded
        assert asked <= done + held / 4 + 2
        assert read_now <= 4 * done + held + 4
        time.sleep(0.001)  # a slow consumer, so that the threads run as far ahead as they may
    assert asked == 150


def test_waiting_and_computing_are_measured_apart(encoder):
    def slow(uri):
        time.sleep(0.05)
        return read(uri)

    rows = [row(i, image_uri=f"store/{i}.jpg") for i in range(12)]
    began = time.perf_counter()
    out = embed(encoder, rows, read=slow, decode_threads=1, size=4)
    took = time.perf_counter() - began
    wait, model = (sum(item[name] for item in out) for name in ("decode_wait_s", "model_s"))
    assert 0.3 < wait < took and 0 < model < took and wait + model <= took
    assert all(item["decode_wait_s"] == item["model_s"] == 0 for i, item in enumerate(out) if i % 4)

    class Slow(Narrow):
        def features(self, *args):
            time.sleep(0.1)
            return self.encoder.features(*args)

    out = embed(Slow(encoder, 100, None), rows, size=4)
    wait, model = (sum(item[name] for item in out) for name in ("decode_wait_s", "model_s"))
    assert model > 0.3 > wait


@pytest.mark.parametrize("images, words", [(True, True), (True, False), (False, True)])
def test_cached_tower_features_give_the_same_vectors_without_the_tower(watched, images, words):
    encoder, vision_calls = watched
    text_calls = []
    hook = encoder.text.register_forward_hook(lambda module, inputs, output: text_calls.append(len(inputs[0])))
    engine = EmbeddingEngine(encoder, read, EngineOptions(batch_tokens=tokens(encoder, 4), output_tower_features=True))
    rows = [item | {"image_hash": item["image_hash"] or item["image_uri"] or None} for item in MIXED]
    first = [item for batch in engine.run(batches(rows, 10)) for item in batch.to_pylist()]
    cached_images = {r["image_hash"]: (o["image_tokens"], o["image_features"]) for r, o in zip(rows, first, strict=True) if o["image_tokens"]}
    names = ("text_tokens", "text_mask", "text_features", "title_features")
    text_keys = [(t["metadata_text"], t["encoder_title"]) for t in map(texts, rows)]
    cached_texts = {t: tuple(o[n] for n in names) for t, o in zip(text_keys, first, strict=True) if o["text_tokens"]}
    assert len(cached_images) == len({r["image_hash"] for r in rows if r["image_hash"]})
    assert cached_texts.keys() == {t for t in text_keys if t[0]}

    schema = INPUT
    for name in ("image_tokens", "image_features", *names):
        schema = schema.append(pa.field(name, pa.binary()))
    again = []
    for item, text in zip(rows, text_keys, strict=True):
        cached = dict(zip(("image_tokens", "image_features"), cached_images.get(item["image_hash"], (None, None)), strict=True)) if images else {}
        cached |= dict(zip(names, cached_texts.get(text, (None,) * 4), strict=True)) if words else {}
        again.append({k: v for k, v in (item | texts(item) | cached).items() if k in schema.names})
    vision_calls.clear()
    text_calls.clear()
    out = [item for batch in engine.run([pa.RecordBatch.from_pylist(again, schema)]) for item in batch.to_pylist()]
    hook.remove()
    assert np.array_equal([item["embedding"] for item in out], [item["embedding"] for item in first])
    assert not (images and vision_calls) and not (words and sum(text_calls) > 1), "only the empty text of a row without text may reach the text tower"
    assert all(item["image_tokens"] is None for item in out) or not images


rows_strategy = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(["uri", "bytes", "both", "none", "missing"]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=20,
)


@settings(max_examples=15, deadline=None)
@given(rows_strategy, st.integers(1, 12), st.integers(1, 9), st.integers(1, 4))
def test_every_row_comes_out_once_whatever_the_mix(encoder, drawn, size, batch_rows, threads):
    rows = []
    for i, (k, kind, hashed, titled) in enumerate(drawn):
        digest = hashlib.sha256(PICTURES[k]).hexdigest()
        rows.append(
            row(
                i,
                image_uri={"uri": f"store/{k}.jpg", "both": f"store/{k}.jpg", "missing": f"gone/{k}"}.get(
                    kind
                ),
                image_bytes=PICTURES[k] if kind in ("bytes", "both") else None,
                image_hash=digest if hashed and kind in ("uri", "bytes", "both") else None,
                title="red shoe" if titled else None,
                brand=None,
                category=None,
                attributes=None,
            )
        )
    out = embed(encoder, rows, size=size, batch_rows=batch_rows, decode_threads=threads)
    assert [item["item_id"] for item in out] == [item["item_id"] for item in rows]
    for item, (_, kind, _, titled) in zip(out, drawn, strict=True):
        expected = (
            "not_found" if kind == "missing" else None if kind != "none" or titled else "no_image_and_no_text"
        )
        assert item["reason"] == expected
    good = [i for i, item in enumerate(out) if item["status"] == "embedded"]
    if good:
        got = np.array([out[i]["embedding"] for i in good])
        assert np.abs(got - plain_loop(encoder, [rows[i] for i in good])).max() < 1e-4


# -- device


def test_device_by_name():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for wrong in ("gpu", "cuda:x", "mps"):
        with pytest.raises(DeviceError, match="choose auto, cpu, cuda"):
            choose_device(wrong)


def test_an_absent_gpu_is_an_error_and_not_a_cpu_run():
    with pytest.raises(DeviceError, match="cuda:99 was requested") as caught:
        choose_device("cuda:99")
    assert caught.value.do and "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_any_gpu_is_absent_here():
    with pytest.raises(DeviceError, match="cuda was requested"):
        choose_device("cuda")


def test_dtype():
    cpu = torch.device("cpu")
    assert choose_dtype(cpu) == torch.float32
    assert choose_dtype(cpu, "bfloat16") == torch.bfloat16
    with pytest.raises(DeviceError, match="float16"):
        choose_dtype(cpu, "float16")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_agrees_with_the_cpu(encoder, tmp_path):
    device = choose_device("cuda")
    folder = write_tiny_encoder(tmp_path, seed=1)
    on_gpu = TGQFormer.from_pretrained(folder, device=device)
    on_cpu = np.array([item["embedding"] for item in embed(encoder, MIXED)])
    assert np.abs(np.array([item["embedding"] for item in embed(on_gpu, MIXED)]) - on_cpu).max() < 1e-4
    bf16 = TGQFormer.from_pretrained(folder, device=device, dtype=choose_dtype(device, "bfloat16"))
    out = np.array([item["embedding"] for item in embed(bf16, MIXED)])
    assert (out * on_cpu).sum(1).min() > 0.99
