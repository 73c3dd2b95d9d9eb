"""The configuration of an encoder, read without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tgq.errors import ModelError

WEIGHTS, CONFIG = "model.safetensors", "config.json"
LARGEST = 65_536  # of a width, a length, a size or a number of layers: a larger one would only fill the memory


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder.

    Raises:
        ModelError: it holds anything else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read ({type(error).__name__}: {str(error)[:120]})", "copy the file again") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds a {type(found).__name__} and no JSON object", "copy the file again")
    return found


@dataclass(frozen=True)
class EncoderConfig:
    """The configuration of an encoder, saved as `config.json`.

    `vision`, `text` and `llm` are references: the name of a bundled model, a folder (relative to the encoder's) or a hub name.
    """

    vision: str = "efficientnet-lite0"  # reference of the vision tower
    text: str = "all-minilm-l6-v2"  # reference of the text tower
    fit: str = "pad"  # pad: the whole image on a white square; crop: the resize and crop of the vision checkpoint
    image_size: int = 320  # pixels per side of the whole image at the vision tower's input; 0: the checkpoint's own size
    closeups: int = 2  # close-ups per side: the cells of a closeups x closeups grid, each encoded at the checkpoint's own size; 0: none
    text_length: int = 64  # tokens of the metadata text, truncated and padded to this length
    dim: int = 768  # De, width of an item embedding
    connector: str = "tgq"  # a name in tgq.encoder.connectors
    anchor: bool = True  # light head: the metadata guides the pooling of the image
    width: int = 128  # Dq, width of connector tokens
    heads: int = 4  # attention heads in the connector
    depth: int = 2  # cross-attention blocks in the connector
    anchored_queries: int = 8  # queries computed from the metadata
    exploratory_queries: int = 8  # learned queries
    dropout: float = 0.1  # in the connector, during training
    alignment_dim: int = 64  # width of the learned image-title space; not used if the towers are an aligned pair
    reliability: bool = False  # light head with gates: metadata that does not fit the picture is trusted less; for the shop that it was trained on
    imputation: int = 0  # light head: rank of the maps that estimate a missing side from the other one; 0: a constant vector instead
    head: str = "light"  # light: linear base and guided pooling; llm: language model with LoRA
    image_root: bool = True  # light head: signed square root of f_img before the linear base
    pooling_heads: int = 4  # light head: the vision tower's channels are split into this many parts, each pooled on its own
    llm: str = ""  # llm head: reference of the language model
    lora_rank: int = 16  # llm head: rank of the adapters

    @classmethod
    def read(cls, folder: Path) -> EncoderConfig:
        """Read the configuration of an encoder folder.

        Raises:
            ModelError: the folder has no `config.json`, or the file has an unknown key, or a value that no encoder has.
        """
        path = folder / CONFIG
        if not path.is_file():
            raise ModelError(f"encoder folder {folder} has no {CONFIG}", "give a folder written by save_pretrained")
        values = read_object(path)
        if unknown := sorted(set(values) - set(cls.__dataclass_fields__)):
            raise ModelError(f"{path} has the unknown key '{unknown[0]}'", "train the encoder again with this version")
        for name, value in values.items():
            kind = type(cls.__dataclass_fields__[name].default)
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise ModelError(f"{path}: {name} is {str(value)[:80]!r}, which is no {kind.__name__}", "copy the file again")
            if isinstance(value, int | float) and not 0 <= value <= LARGEST:
                raise ModelError(f"{path}: {name} is {value}, which is not between 0 and {LARGEST}", "copy the file again")
        return cls(**{"image_size": 0, "closeups": 0} | values)  # defaults of encoders saved before these keys existed
