"""A complete encoder that weighs nothing: random towers of a few thousand weights, for tests and dry runs."""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch

from tgq.encoder.model import EncoderConfig, TGQFormer
from tgq.encoder.towers import quiet_transformers

WORDS = (
    "red blue green black white grey shoe shirt bag watch mug lamp sofa cotton wool leather men women kids sport home "
    "fruit apple juice color material brand new sale"
).split()


def write_tiny_encoder(folder: str | Path, seed: int = 0, vision: str = "vit", **config) -> Path:
    """Write an encoder with random towers under `folder/towers`, referred to by relative paths.

    Args:
        seed: another seed gives other weights, so another `model_version`.
        vision: `vit` (32 px, 17 tokens) or `efficientnet` (64 px, 4 tokens).
        config: fields of EncoderConfig to set.
    """
    from transformers import BertConfig, BertModel

    folder = Path(folder)
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(seed)
        _write_vision(folder / "towers" / "vision", vision)
        write_tiny_tokenizer(folder / "towers" / "text")
        bert = BertConfig(vocab_size=len(_vocabulary()), hidden_size=24, num_hidden_layers=1, num_attention_heads=2,
                          intermediate_size=32, max_position_embeddings=32)
        BertModel(bert).save_pretrained(folder / "towers" / "text")
        small = {"dim": 32, "width": 16, "heads": 2, "anchored_queries": 4, "exploratory_queries": 4, "text_length": 32}
        chosen = EncoderConfig(**{"vision": "towers/vision", "text": "towers/text", **small, **config})
        TGQFormer(chosen, relative_to=folder).save_pretrained(folder)
    return folder


def write_tiny_llm(folder: str | Path, seed: int = 0) -> Path:
    """Write a random Qwen3 language model of a few thousand weights, with a tokenizer."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(seed)
        qwen = Qwen3Config(vocab_size=len(_vocabulary()), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                           num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=128)
        Qwen3ForCausalLM(qwen).save_pretrained(folder)
        write_tiny_tokenizer(folder)
    return Path(folder)


def write_tiny_tokenizer(folder: str | Path) -> None:
    """Write a word-piece tokenizer that can spell any ASCII word."""
    from transformers import BertTokenizerFast

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(_vocabulary()) + "\n")
    tokenizer = BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), eos_token="[SEP]", model_max_length=32)
    tokenizer.save_pretrained(folder)


def _vocabulary() -> list[str]:
    letters = [*string.ascii_lowercase, *string.digits]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [*special, *"|,:.-'%&/()", *letters, *(f"##{letter}" for letter in letters), *WORDS]


def _write_vision(folder: Path, kind: str) -> None:
    from transformers import EfficientNetConfig, EfficientNetModel, ViTConfig, ViTModel

    if kind == "vit":
        size = 32
        model = ViTModel(ViTConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                                   image_size=size, patch_size=8))
    else:
        size = 64
        model = EfficientNetModel(EfficientNetConfig(
            image_size=size, width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=32,
            in_channels=[32, 8], out_channels=[8, 16], kernel_sizes=[3, 3], strides=[2, 2], expand_ratios=[1, 2],
            num_block_repeats=[1, 1], depthwise_padding=[], batch_norm_eps=1e-3))
    model.save_pretrained(folder)
    preprocessor = {
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": size, "width": size},
        "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=1))
