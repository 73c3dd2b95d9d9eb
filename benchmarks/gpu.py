"""Speed of the inference engine on a GPU: CLIP ViT-L/14's shape with random weights, from JPEG files of 500 pixels.

    python benchmarks/gpu.py [--items 20000] [--device auto] [--dtype auto] [--batch-tokens 16384 65536] [--decode-threads 0] [--compile] [--rounds 3]

One process as a Spark worker runs it: the engine that the embed step uses, from encoded pictures and texts to vectors. For each size of
batch the table has pictures per second, the share of the time in which the GPU waited for decoded pictures, and the peak memory of the
GPU. The texts go through the bundled MiniLM. Speed of decoding alone stands beside it: it bounds what the cores can feed.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image, ImageDraw

from tgq.encoder.config import EncoderConfig
from tgq.encoder.model import TGQFormer
from tgq.encoder.tiny import write_preprocessor
from tgq.images.decode import decode_image
from tgq.inference.device import choose_device
from tgq.inference.engine import EmbeddingEngine, EngineOptions
from tgq.inference.machine import usable_cores
from tgq.registry.loading import load_encoder

SIDE = 500
DISTINCT = 256  # drawn pictures; each is decoded anew for every item


def write_encoder(folder: Path, layers: int) -> Path:
    """An encoder whose vision tower has CLIP ViT-L/14's shape: 24 layers of 1,024, 16 heads, patches of 14 at 224 pixels."""
    from transformers import ViTConfig, ViTModel

    vision = folder / "towers" / "vision"
    shape = ViTConfig(hidden_size=1024, num_hidden_layers=layers, num_attention_heads=16, intermediate_size=4096, image_size=224, patch_size=14)
    ViTModel(shape).save_pretrained(vision)
    write_preprocessor(vision, {"height": 224, "width": 224})
    TGQFormer(EncoderConfig(vision="towers/vision", image_size=0, closeups=0), relative_to=folder).save_pretrained(folder)
    return folder


def draw_pictures() -> list[bytes]:
    """JPEG files of a photograph's size: about 50 kB each."""
    rng, files = np.random.default_rng(0), []
    for _ in range(DISTINCT):
        coarse = Image.fromarray(rng.integers(0, 256, (25, 25, 3), dtype=np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(coarse)
        for _ in range(30):
            x, y, w, h = rng.integers(0, SIDE, 4) // np.array([1, 1, 4, 4])
            draw.ellipse((x, y, x + w, y + h), fill=tuple(rng.integers(0, 256, 3).tolist()))
        buffer = io.BytesIO()
        coarse.save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def batches(pictures: list[bytes], items: int, rows: int = 256) -> Iterator[pa.RecordBatch]:
    for start in range(0, items, rows):
        numbers = range(start, min(start + rows, items))
        yield pa.RecordBatch.from_pydict({
            "item_id": pa.array([str(n) for n in numbers]), "image_uri": pa.nulls(len(numbers), pa.string()),
            "image_hash": pa.array([str(n) for n in numbers]), "image_bytes": pa.array([pictures[n % len(pictures)] for n in numbers], pa.binary()),
            "metadata_text": pa.array([f"category: shoes | color: red | brand: brand {n % 97}" for n in numbers]),
            "encoder_title": pa.array([f"red running shoe number {n}" for n in numbers]),
        })  # fmt: skip


def measure(encoder: TGQFormer, pictures: list[bytes], items: int, options: EngineOptions) -> dict[str, float]:
    cuda = encoder.null_image.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    wait, began = 0.0, time.perf_counter()
    for out in EmbeddingEngine(encoder, lambda uri: b"", options).run(batches(pictures, items)):
        assert set(out["status"].to_pylist()) == {"embedded"}
        wait += sum(out["decode_wait_s"].to_pylist())
    seconds = time.perf_counter() - began
    return {"items_per_s": items / seconds, "wait_share": wait / seconds, "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batch-tokens", type=int, nargs="+", default=[16_384, 65_536])
    parser.add_argument("--decode-threads", type=int, default=0, help="0: one per core")
    parser.add_argument("--compile", action="store_true", help="torch.compile the vision tower, as embed.compile does")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    args = parser.parse_args()
    device = choose_device(args.device)
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    pictures = draw_pictures()
    with tempfile.TemporaryDirectory(prefix="tgq-bench-") as scratch:
        folder = write_encoder(Path(scratch), args.layers)
        encoder = load_encoder(str(folder), str(device), args.dtype, args.compile)
    began = time.perf_counter()
    for picture in pictures:
        encoder.vision.preprocess(decode_image(picture, target=encoder.vision.input_size))
    decode = len(pictures) / (time.perf_counter() - began)
    print(f"{hardware}, {usable_cores()} cores, torch {torch.__version__}, {encoder.dtype}; {decode:.0f} pictures/s decoded by one core")
    print("| batch tokens | pictures/s, median [lowest, highest] | waiting | GPU memory, GB |\n|---|---|---|---|")
    rows = []
    for tokens in args.batch_tokens:
        options = EngineOptions(batch_tokens=tokens, decode_threads=args.decode_threads)
        measure(encoder, pictures, min(args.items, 4 * DISTINCT), options)  # warm-up, not counted
        runs = [measure(encoder, pictures, args.items, options) for _ in range(args.rounds)]
        rows.append({"batch_tokens": tokens, "runs": runs})
        speeds, waits = [run["items_per_s"] for run in runs], [run["wait_share"] for run in runs]
        memory = max(run["peak_gb"] for run in runs)
        print(f"| {tokens} | {statistics.median(speeds):.0f} [{min(speeds):.0f}, {max(speeds):.0f}] | {statistics.median(waits):.1%} | {memory:.1f} |")
    record = {"hardware": hardware, "cores": usable_cores(), "torch": torch.__version__, "dtype": str(encoder.dtype), "compiled": args.compile,
              "decode_per_core": decode, "rows": rows}  # fmt: skip
    args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
