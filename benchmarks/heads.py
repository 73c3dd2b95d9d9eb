"""Cost of the light head and of a head with a language model: parameters, milliseconds and floating-point operations of an item.

    python benchmarks/heads.py [--llm smollm2-135m-instruct] [--items 32] [--rounds 5] [--threads N] [--out FILE]

The items are drawn. Their tower features are computed once and are not part of the time, as in a night with a full feature cache; the
adapters are merged, as in a night. One batch holds all items. The weights are those before training, which changes no cost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from tgq.demo.catalog import draw_catalog
from tgq.encoder.config import EncoderConfig
from tgq.encoder.features import Features
from tgq.encoder.layers.heads import LLMHead
from tgq.encoder.model import TGQFormer
from tgq.encoder.text import metadata_text
from tgq.errors import TgqError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", default="smollm2-135m-instruct", help="language model: a bundled name, a folder or a Hugging Face name")
    parser.add_argument("--items", type=int, default=32, help="items in the batch")
    parser.add_argument("--rounds", type=int, default=5, help="timed passes of each head, in turn; the first pass of each does not count")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of torch")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "heads.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    try:
        encoders = {"light": TGQFormer(EncoderConfig()).eval(), args.llm: TGQFormer(EncoderConfig(head="llm", llm=args.llm)).eval()}
    except TgqError as error:
        print(f"heads: {error}", file=sys.stderr)
        return 1
    features, towers = drawn_features(encoders["light"], args.items)
    found = {name: parameters(encoder) for name, encoder in encoders.items()}
    for name, encoder in encoders.items():
        if isinstance(encoder.head, LLMHead):
            encoder.head.merge()
        found[name]["gflops"] = operations(encoder, features)
    took: dict[str, list[float]] = {name: [] for name in encoders}
    for number in range(args.rounds + 1):
        for name, encoder in encoders.items():
            began = time.perf_counter()
            encoder.embed(features)
            if number:
                took[name].append(1000 * (time.perf_counter() - began) / args.items)
    print("| head | trained parameters | of these LoRA | all parameters | GFLOPs per item | with the towers | ms per item |")
    print("|---" * 7 + "|")
    for name, of in found.items():
        of["ms_per_item"] = took[name]
        time_of = f"{statistics.median(took[name]):.1f} [{min(took[name]):.1f}, {max(took[name]):.1f}]"
        print(f"| {name} | {of['trained']:,} | {of['lora']:,} | {of['all']:,} | {of['gflops']:.2f} | {of['gflops'] + towers:.2f} | {time_of} |")
    setting = {"items": args.items, "text_tokens": tokens(encoders[args.llm], features), "towers_gflops": towers}
    machine = {"threads": args.threads, "machine": platform.machine(), "torch": torch.__version__}
    args.out.write_text(json.dumps({"heads": found, **setting, **machine}, indent=1) + "\n")
    return 0


def drawn_features(encoder: TGQFormer, items: int) -> tuple[Features, float]:
    """Tower features of drawn items, and the towers' operations for an item, 10^9."""
    with tempfile.TemporaryDirectory(prefix="tgq-heads-") as folder:
        draw_catalog(folder, items=items, workers=1)
        rows = pd.read_parquet(Path(folder) / "catalog.parquet").to_dict("records")
        pixels = torch.stack([encoder.vision.preprocess(Image.open(Path(folder) / row["image"]).convert("RGB")) for row in rows])
    texts = [metadata_text(row["title"], row["brand"], row["category"], json.loads(row["attributes"] or "{}")) for row in rows]
    with FlopCounterMode(display=False) as counter:
        features = encoder.features(encoder.encode_image(pixels), torch.arange(items), texts, [row["title"] or "" for row in rows])
    return features, counter.get_total_flops() / 1e9 / items


def parameters(encoder: TGQFormer) -> dict[str, int]:
    """Numbers of parameters. Those of frozen towers and of a language model are among all, but are not trainable."""
    named = list(encoder.named_parameters())
    return {
        "trained": sum(p.numel() for _, p in named if p.requires_grad), "lora": sum(p.numel() for name, p in named if "lora_" in name),
        "all": sum(p.numel() for _, p in named),
    }  # fmt: skip


def operations(encoder: TGQFormer, features: Features) -> float:
    """10^9 floating-point operations per item after the towers, as torch counts them (a multiply-add as two)."""
    encoder.requires_grad_(False)  # torch's counter fails under no_grad if parameters require gradients, and a graph of this batch takes 7 GB
    with FlopCounterMode(display=False) as counter:
        encoder(features)
    return counter.get_total_flops() / 1e9 / len(features.metadata)


def tokens(encoder: TGQFormer, features: Features) -> float:
    """Mean number of the items' text tokens, with the end token, in the language model."""
    assert isinstance(encoder.head, LLMHead)
    return statistics.mean(map(len, encoder.head._tokenize(features.metadata)))


if __name__ == "__main__":
    sys.exit(main())
