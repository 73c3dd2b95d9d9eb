"""A complete tiny encoder for tests and dry runs, with random towers of a few thousand weights."""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch

from tgq.encoder.config import EncoderConfig
from tgq.encoder.model import TGQFormer
from tgq.encoder.quiet import quiet_transformers

WORDS = (
    "red blue green black white grey shoe shirt bag watch mug lamp sofa cotton wool leather men women kids sport home "
    "fruit apple juice color material brand new sale"
).split()


def write_tiny_encoder(folder: str | Path, seed: int = 0, **config) -> Path:
    """Write an encoder with a random ViT (32 px, 17 tokens) and a random BERT, both in `folder/towers` as relative paths.

    Args:
        seed: of the random weights; another seed gives another `model_version`.
        config: fields of EncoderConfig to set.
    """
    from transformers import BertConfig, BertModel

    folder = Path(folder)
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(seed)
        _write_vision(folder / "towers" / "vision")
        write_tiny_tokenizer(folder / "towers" / "text")
        bert = BertConfig(vocab_size=len(_vocabulary()), hidden_size=24, num_hidden_layers=1, num_attention_heads=2,
                          intermediate_size=32, max_position_embeddings=32)
        BertModel(bert).save_pretrained(folder / "towers" / "text")
        small = {"image_size": 0, "closeups": 0, "dim": 32, "width": 16, "heads": 2, "anchored_queries": 4, "exploratory_queries": 4,
                 "pooling_heads": 2, "text_length": 32}
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
    """Write a WordPiece tokenizer that covers every ASCII word."""
    from transformers import BertTokenizerFast

    vocabulary = {token: i for i, token in enumerate(_vocabulary())}
    BertTokenizerFast(vocab=vocabulary, eos_token="[SEP]", model_max_length=32).save_pretrained(folder)


def _vocabulary() -> list[str]:
    letters = [*string.ascii_lowercase, *string.digits]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [*special, *"|,:.-'%&/()", *letters, *(f"##{letter}" for letter in letters), *WORDS]


def _write_vision(folder: Path) -> None:
    from transformers import ViTConfig, ViTModel

    size = {"height": 32, "width": 32}
    ViTModel(ViTConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                       image_size=32, patch_size=8)).save_pretrained(folder)
    write_preprocessor(folder, size)


def write_preprocessor(folder: str | Path, size: dict[str, int]) -> None:
    """Write a `preprocessor_config.json` that resizes to `size` and normalises with mean and standard deviation 0.5."""
    preprocessor = {
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": size, "resample": 2,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }
    (Path(folder) / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=1))
